//! A security key as a guest's browser first meets it: a HID device of the FIDO usage page that answers CTAPHID_INIT and
//! CTAPHID_PING (FIDO Client to Authenticator Protocol 2.1, section 11.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use usbredir::packet::{EndpointType, Interface, Interrupt};
use usbredir::{Body, Packet, Status};

use super::Model;
use super::hid::{Facts, REPORTS, Reports};

const OUTPUT: u8 = 0x01;
const REPORT: usize = 64;

/// One interface with an interrupt endpoint each way.
const INTERFACE: [u8; 32] = [
    9, 4, 0, 0, 2, 3, 0, 0, 0, //
    9, 0x21, 0x11, 0x01, 0, 1, 0x22, 34, 0, //
    7, 5, REPORTS, 3, 64, 0, 5, //
    7, 5, OUTPUT, 3, 64, 0, 5,
];
/// Usage page f1d0, usage 1; 64 bytes each way.
const REPORT_DESCRIPTOR: [u8; 34] = [
    0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, //
    0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x81, 0x02, //
    0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02, //
    0xc0,
];

/// A keyboard's eight bytes: an application collection of usage Keyboard, as long as the security key's.
const KEYBOARD: [u8; 34] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, //
    0x19, 0x00, 0x29, 0x65, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x08, 0x81,
    0x00, //
    0x75, 0x08, 0x95, 0x38, 0x81, 0x01, 0x75, 0x08, 0x75, 0x08, 0xc0,
];

/// A FIDO security key, as QEMU's peer.
#[derive(Debug, Default)]
pub struct SecurityKey {
    /// Set once it has given its report descriptor. With another holder of this it is a keyboard from then on.
    keyboard: Arc<AtomicBool>,
    reports: Reports,
    /// What it says, not asked for yet.
    said: Vec<Vec<u8>>,
}

impl SecurityKey {
    /// Makes one that is a keyboard once it has given its report descriptor, and says so here.
    #[must_use]
    pub fn impostor(turned: Arc<AtomicBool>) -> Self {
        Self { keyboard: turned, ..Self::default() }
    }

    /// Takes a message of the host's: 64 bytes.
    fn message(&mut self, message: &[u8]) {
        let Some((channel, [command, _, length, data @ ..])) = message.split_at_checked(4) else {
            return;
        };
        let data = data.get(..usize::from(*length)).unwrap_or_default();
        let answer = match command {
            // CTAPHID_INIT: the nonce, a channel, versions, and what it can.
            0x86 => [data, &[1, 2, 3, 4, 2, 1, 0, 0, 0]].concat(),
            // CTAPHID_PING.
            0x81 => data.to_vec(),
            _ => return,
        };
        let mut report =
            [channel, &[*command, 0, u8::try_from(answer.len()).unwrap_or(0)], &answer].concat();
        report.resize(REPORT, 0);
        self.said.push(report);
    }

    /// Returns the report descriptor: a keyboard's, the second time and later, if somebody wants that.
    fn report(&self) -> Vec<u8> {
        let wanted = Arc::strong_count(&self.keyboard) > 1;
        let again = self.keyboard.swap(true, Ordering::Relaxed);
        if wanted && again { KEYBOARD.to_vec() } else { REPORT_DESCRIPTOR.to_vec() }
    }
}

fn facts() -> Facts {
    Facts {
        product: 0x0042,
        name: "Security key",
        descriptors: INTERFACE.to_vec(),
        interfaces: vec![Interface { number: 0, class: 3, subclass: 0, protocol: 0 }],
        endpoints: vec![
            (REPORTS, EndpointType::Interrupt, 0, 64),
            (OUTPUT, EndpointType::Interrupt, 0, 64),
        ],
        interval: 5,
    }
}

impl Model for SecurityKey {
    fn hello(&self) -> Vec<Packet> {
        facts().hello()
    }

    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        let Packet { id, body } = packet;
        match body {
            Body::Control(asked) => {
                let answer = facts().control(asked, || self.report());
                answers.push(Packet { id, body: Body::Control(answer) });
            }
            Body::Interrupt(interrupt) => {
                self.message(&interrupt.data);
                let status = Status::Success;
                let body = Body::Interrupt(Interrupt { status, data: Vec::new(), ..interrupt });
                answers.push(Packet { id, body });
            }
            body => self.reports.take(Packet { id, body }, answers),
        }
        if self.reports.wanted {
            for data in std::mem::take(&mut self.said) {
                self.reports.say(data, answers);
            }
        }
    }
}
