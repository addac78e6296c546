//! USB devices on their way into domains.
//!
//! ```text
//!  kernel: uevents, sysfs --> Broker (own thread) --> daemon: audit, words, list
//!                               |   ^ policy, break-glass, by hand
//!                               v   a thread for each place where something is plugged in
//!  thread: usbhost::Hold, permit, words --> worker: usbexport::Export <--> Filter <--> usbredir::Session <--> VMM's --usb socket
//!                                             ^ node, with few rights --> device
//! ```
//! | file | |
//! | --- | --- |
//! | [`usbsysfs::identity`] | what a device says it is, as the policy is asked |
//! | [`lifecycle`] | what becomes of a device, as a pure state machine |
//! | [`grant`] | what permits allow: that a device goes to a domain, and that it is attached |
//! | [`attached`] | one device in a domain: the worker that serves it, and who attends to that |
//! | [`budget`] | what of the kernel's memory for transfers each device has |
//! | [`broker`] | the thread that tells life-cycles what happens, and does what they want |
//!
//! A device goes nowhere before its event is on the disk, the first time and each time after. What goes wrong with one device touches no
//! other: the broker waits for none, so rules that no longer allow something count within a second, whatever devices do.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

mod attached;
mod broker;
mod budget;
mod grant;
mod lifecycle;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use audit::AuditEvent;
use monitor::{Denial, MediatorId, MediatorThread, Permit, Request};
use policy::Policy;
use usbhost::{BusId, UsbDevices};

pub use attached::DomainWorkers;
pub use broker::not_attached;
pub use grant::{UsbAdmission, UsbGrant};

use broker::Broker;

use base::sockets::SocketEndpoint;
use control::reports::UsbReport;

/// What the daemon tells the broker.
#[derive(Debug)]
pub enum Command {
    /// Another policy is in force, or break-glass has begun or ended.
    Rules(Arc<Policy>, bool),
    /// Somebody attaches a device to a domain by hand; the number of that request's entry in the log, if it has one.
    Attach(BusId, String, Option<u64>),
    /// Somebody takes one away, likewise.
    Detach(BusId, Option<u64>),
    /// A device may go to its domain: the permit for the request of this number.
    Admitted(u64, Permit<UsbAdmission>),
    /// A device may be attached: the permit for the request of this number.
    Permitted(u64, Permit<UsbGrant>),
    /// There is no permit, and why.
    Refused(u64, Denial),
    /// The audit log has failed, and may have lost what was on the disk: what its entries permitted is taken back.
    RecordLost,
}

/// What the broker tells the daemon.
#[derive(Debug)]
pub enum UsbEvent {
    /// Ask the monitor for a permit by a verdict: [`Command::Admitted`], or [`Command::Refused`].
    Admit(Request<UsbAdmission>),
    /// Ask the monitor for a permit to attach a device: [`Command::Permitted`], or [`Command::Refused`].
    Authorize(Request<UsbGrant>),
    /// Write this event into the audit log; nothing waits for it.
    Note(AuditEvent),
    /// Say this at the seat, of what is at this socket of the PC.
    Notice(String, String),
    /// The devices as they are now.
    Devices(Vec<UsbReport>),
}

/// A broker that runs. When it is stopped, every domain loses the devices that it has.
/// - [`Stop::GiveBack`](monitor::Stop::GiveBack): the host's drivers get every device.
/// - [`Stop::KeepFromHost`](monitor::Stop::KeepFromHost): they get nothing but the keyboards, mice and hubs that they have. The kernel's switches stay as they are, and
///   so does the file that says what they were, for the next agent.
pub type Usb = MediatorThread<Command, UsbEvent>;

/// What the monitor knows the broker by.
pub const USB: MediatorId = MediatorId::new("usb");

/// A domain that may have devices.
pub struct Domain {
    pub name: String,
    /// Its sockets for devices, one device each. Where the agent listens, whoever connects waits until there is a device.
    pub sockets: Vec<SocketEndpoint>,
    /// What serves its devices, or why nothing does, in words for the list and the seat: then it gets none.
    pub workers: Result<DomainWorkers, &'static str>,
}

/// The arguments of a broker.
pub struct Setup {
    /// Where the host's devices are looked for.
    pub sysfs: UsbDevices,
    /// Where what the kernel's switches were is kept.
    pub switches: PathBuf,
    pub domains: Vec<Domain>,
    pub policy: Arc<Policy>,
}

/// Starts the thread, which takes the kernel's switches first.
///
/// # Errors
/// The process has no thread or file descriptor left, or may not set the switches.
pub fn start(setup: Setup) -> io::Result<Usb> {
    monitor::spawn(USB, |ends| Broker::new(setup, ends), Broker::run)
}

#[cfg(test)]
mod tests {
    use policy::carriage::Limit;
    use policy::decide::Decision;
    use policy::request::{UsbDescription, UsbFunction};
    use proptest::prelude::*;
    use usbdescriptors::{Pinned, Share};
    use usbfilter::{Error, Filter, Out, Rules, Unsupported};
    use usbredir::{Body, Packet, Status};

    /// Makes a device of these functions, each with a bulk endpoint each way.
    fn of(functions: &[(u8, u8, u8)]) -> (Pinned, UsbDescription) {
        let mut raw = vec![9, 2, 0, 0, u8::try_from(functions.len()).unwrap(), 1, 0, 0x80, 50];
        for (number, (class, subclass, protocol)) in (0..).zip(functions) {
            raw.extend([9, 4, number, 0, 2, *class, *subclass, *protocol, 0]);
            raw.extend([7, 5, 0x81 + number, 2, 0, 2, 0, 7, 5, 1 + number, 2, 0, 2, 0]);
        }
        raw[2] = u8::try_from(raw.len()).unwrap();
        let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
        let pinned = Pinned { device, configurations: vec![raw], others: Vec::new() };
        let new = |(class, subclass, protocol): &(u8, u8, u8)| {
            UsbFunction::new(*class, *subclass, *protocol)
        };
        let functions = functions.iter().map(new).collect();
        let (vendor, product, serial, port) = (0x1209, 0x42, None, None);
        (pinned, UsbDescription { vendor, product, serial, port, functions })
    }

    proptest! {
        #[test]
        fn what_the_officer_is_told_of_a_devices_limits_is_what_its_stream_does(
            functions in prop::collection::vec(
                (
                    prop::sample::select(vec![0x02, 0x07, 0x08, 0x0a, 0x0b, 0xff]),
                    prop::sample::select(vec![0x02, 0x05, 0x06, 0x04]),
                    prop::sample::select(vec![0x50, 0x62, 0x00]),
                ),
                1..4,
            ),
            read_only in any::<bool>(),
            beside_a_keyboard in any::<bool>(),
        ) {
            // Storage beside a keyboard never goes anywhere.
            let storage = |(class, ..): &(u8, u8, u8)| *class == 0x08;
            prop_assume!(!(beside_a_keyboard && functions.iter().any(storage)));
            let (rules, decision) = if read_only {
                (Rules::ReadOnly, Decision::ReadOnly)
            } else {
                (Rules::Allow, Decision::Allow)
            };
            let (mut pinned, description) = of(&functions);
            let (mut share, mut limits_of) = (Share::Whole, Limit::of as fn(&_, _) -> _);
            if beside_a_keyboard {
                pinned = of(&[&functions[..], &[(3, 1, 1)]].concat()).0;
                share = Share::Interfaces((0..u8::try_from(functions.len()).unwrap()).collect());
                limits_of = Limit::of_rest;
            }
            let limits: Vec<Limit> = limits_of(&description.device(), decision);
            match Filter::of(rules, pinned, share) {
                Ok(mut filter) => {
                    let mut out = Out::default();
                    let request = usbredir::packet::Control {
                        endpoint: 0x80,
                        request: 1,
                        request_type: 0xc0,
                        status: Status::Success,
                        value: 0,
                        index: 0,
                        length: 1,
                        data: Vec::new(),
                    };
                    let body = Body::Control(request);
                    filter.from_guest(Packet { id: 1, body }, &mut out);
                    let vendors = functions.iter().any(|(class, ..)| *class == 0xff);
                    let told = limits.iter().any(|limit| matches!(limit, Limit::VendorRequests(_)));
                    assert_eq!(told, vendors && out.to_device.is_empty());
                }
                Err(Error::Unsupported(Unsupported::UasOnly)) => {
                    let one = |(class, _, protocol): &(u8, u8, u8)| (*class, *protocol) == (8, 0x62);
                    // Beside other storage it is what cannot be had of the device.
                    let alone = !functions.iter().any(|(class, _, protocol)| *class == 8 && *protocol != 0x62);
                    assert!(functions.iter().any(one));
                    assert_eq!(limits.contains(&Limit::OnlyAttachedScsi), alone);
                }
                Err(Error::Unsupported(Unsupported::Transport)) => {
                    assert!(limits.contains(&Limit::CannotBeReadOnly));
                }
                Err(Error::Unsupported(Unsupported::NotStorage)) => {
                    assert!(!functions.iter().any(|(class, ..)| *class == 8));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
