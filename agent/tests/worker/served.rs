//! The role that serves a USB device, in its sandbox, with a device: a node of a test's own takes what it asks of usbfs (`usbfs.rs`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use usbredir::packet::{Bulk, Control};
use usbredir::{Body, Packet, Role as End, Session, Status};
use worker_link::usb::{Command, Job, Message, Reason, Speed, Start};
use worker_link::{Role, user_of_domain};
use workers::{Channel, Process};

use super::usb::{DEVICE, ended, hears};
use super::usbfs::{Answer, CLAIM, RELEASE, RESET, Usbfs};
use super::*;

/// A card reader with a bulk endpoint each way.
const READER: [u8; 32] = [
    9, 2, 32, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 11, 0, 0, 0, 7, 5, 0x81, 2, 0, 2, 0, 7, 5, 2, 2,
    0, 2, 0,
];
const INPUT: u8 = 0x81;
const LARGEST: u32 = 128 * 1024;

/// The guest's end of the stream.
struct Guest {
    stream: UnixStream,
    session: Session,
}

impl Guest {
    fn says(&mut self, id: u64, body: Body) {
        self.session.send(&Packet { id, body }).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        let output = self.session.output().to_vec();
        self.stream.write_all(&output).unwrap();
        self.session.sent(output.len());
    }

    /// Waits for the next packet; nothing if the stream has ended.
    fn hears(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.session.next().unwrap() {
                return Some(packet);
            }
            let mut buffer = vec![0; self.session.room().min(4096)];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.session.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            };
        }
    }

    /// Waits for the answer to its request of this number.
    fn answered(&mut self, id: u64) -> Body {
        loop {
            let packet = self.hears().unwrap();
            if packet.id == id {
                return packet.body;
            }
        }
    }

    /// Makes a control request, and returns its status and data.
    fn asks(&mut self, id: u64, kind: u8, request: u8, value: u16) -> (Status, Vec<u8>) {
        self.says(id, control(kind, request, value));
        match self.answered(id) {
            Body::Control(answer) => (answer.status, answer.data),
            other => panic!("{other:?}"),
        }
    }

    fn wants_data(&mut self, id: u64) {
        let (status, data) = (Status::Success, Vec::new());
        let bulk = Bulk { endpoint: INPUT, status, length: LARGEST, stream: 0, data };
        self.says(id, Body::Bulk(bulk));
    }
}

fn control(request_type: u8, request: u8, value: u16) -> Body {
    let (endpoint, status) = (request_type & 0x80, Status::Success);
    let (index, data) = (0, Vec::new());
    let length = match (request_type, request) {
        (0x80, 6) => 18,
        (0x80, 0) => 2,
        _ => 0,
    };
    Body::Control(Control { endpoint, request, request_type, status, value, index, length, data })
}

/// A worker that serves a card reader with a budget of 300 KiB, its guest, and its agent's end.
struct Ward {
    usbfs: Usbfs,
    process: Process,
    channel: Channel,
    guest: Guest,
    /// Set while the device answers no control request.
    silent: Arc<AtomicBool>,
}

impl Ward {
    /// Starts it as the agent does, up to the moment from which the guest has the device.
    fn begun() -> Option<Self> {
        let descriptors = [&DEVICE[..], &READER].concat();
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = Arc::clone(&silent);
        let usbfs = Usbfs::plug(descriptors.clone(), move |setup| match setup {
            _ if is_silent.load(Ordering::SeqCst) => Answer::Nothing,
            [0x80, 6, _, 1, ..] => Answer::Data(DEVICE.to_vec()),
            [0x80, 0, ..] => Answer::Data(vec![1, 0]),
            _ => Answer::Stall,
        })?;
        let (stream, guest) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (channel, end) = Channel::pair().unwrap();
        let (reader, mut job) = std::io::pipe().unwrap();
        let node = usbfs.open();
        channel.send(&Start { whole: true }.write(), &[node.as_fd(), reader.as_fd()]).unwrap();
        drop((node, reader));
        let program = Program::read(&program()).unwrap();
        let user = user_of_domain(0).unwrap();
        let process = Process::start(&program, Role::Usb, user, stream.into(), end).unwrap();
        let share = usbdescriptors::Share::Whole;
        let (speed, budget, others) = (Speed::High, 300 * 1024, Vec::new());
        let of = Job { read_only: false, speed, share, budget, descriptors, others };
        job.write_all(&of.write()).unwrap();
        drop(job);
        let guest = Guest { stream: guest, session: Session::new(End::Guest, "test") };
        let mut ward = Self { usbfs, process, channel, guest, silent };
        ward.guest.flush();
        ward.authorises();
        assert_eq!(hears(&ward.channel), Some(Message::Begun));
        while !matches!(ward.guest.hears().unwrap().body, Body::DeviceConnect(_)) {}
        Some(ward)
    }

    fn tell(&self, command: Command) {
        self.channel.send(&command.write(), &[]).unwrap();
    }

    /// Has the interfaces authorised, which its worker asks for.
    fn authorises(&self) {
        assert_eq!(hears(&self.channel), Some(Message::Authorise));
        self.tell(Command::Done(1));
    }

    /// Asks the worker whether it serves the device, and waits for the answer; how long that took.
    fn is_served(&self) -> Duration {
        let began = Instant::now();
        self.tell(Command::Ask);
        assert_eq!(hears(&self.channel), Some(Message::Serving));
        began.elapsed()
    }

    /// The agent takes the device away: what the guest had of it, by the worker.
    fn closes(mut self) -> worker_link::usb::Counts {
        self.tell(Command::Close);
        while let Some(packet) = self.guest.hears() {
            assert!(!matches!(packet.body, Body::Hello { .. }));
        }
        let Some(Message::Detached { reason: Reason::Told, counts, .. }) = hears(&self.channel)
        else {
            panic!("it does not say that it has let go")
        };
        assert_eq!(hears(&self.channel), None);
        assert!(ended(&mut self.process).success());
        counts
    }
}

// Shows: C-8, C-10.
#[test]
fn a_worker_serves_a_device_from_its_first_packet_to_its_end_within_its_budget() {
    let Some(mut ward) = Ward::begun() else { return };
    assert_eq!(ward.usbfs.asked(CLAIM), 1);
    assert_eq!(ward.guest.asks(1, 0x80, 6, 0x0100), (Status::Success, DEVICE.to_vec()));
    // What nobody admitted does not reach the device.
    assert_eq!(ward.guest.asks(2, 0x40, 0xee, 0).0, Status::Stall);
    let Some(Message::Refused { times: 1, what }) = hears(&ward.channel) else { panic!() };
    assert!(what.contains("control request 0xee"), "{what}");
    // The device has no data yet. Two such transfers are what it may have of the kernel's memory.
    (10..13).for_each(|id| ward.guest.wants_data(id));
    let Body::Bulk(refused) = ward.guest.answered(12) else { panic!() };
    assert_eq!(refused.status, Status::IoError);
    assert!(matches!(hears(&ward.channel), Some(Message::Refused { .. })));
    ward.is_served();
    // The guest resets it: what it waits for comes back, and it goes on.
    ward.guest.says(20, Body::Reset);
    ward.authorises();
    for id in [10, 11] {
        let Body::Bulk(taken_back) = ward.guest.answered(id) else { panic!() };
        assert_eq!(taken_back.status, Status::Cancelled);
    }
    let asked = [RESET, CLAIM, RELEASE].map(|request| ward.usbfs.asked(request));
    assert_eq!(asked, [1, 2, 1], "its interface was let go, and claimed again");
    assert_eq!(ward.guest.asks(21, 0x80, 0, 0), (Status::Success, vec![1, 0]));
    ward.guest.wants_data(22);
    let counts = ward.closes();
    assert_eq!((counts.to_guest, counts.to_device, counts.refused), (20, 0, 2));
}

// Shows: C-8.
#[test]
fn a_worker_whose_device_says_nothing_answers_its_agent() {
    let Some(mut ward) = Ward::begun() else { return };
    ward.guest.wants_data(1);
    assert!(ward.is_served() < Duration::from_secs(5), "it waits for no data");
    // One request of the device's, which takes its time, and then another.
    ward.silent.store(true, Ordering::SeqCst);
    ward.guest.says(2, control(0x80, 0, 0));
    ward.guest.says(3, control(0x80, 0, 0));
    let took = ward.is_served();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let Body::Control(timed_out) = ward.guest.answered(2) else { panic!() };
    assert_eq!(timed_out.status, Status::Timeout);
    ward.silent.store(false, Ordering::SeqCst);
    ward.guest.answered(3);
    ward.is_served();
    ward.closes();
}
