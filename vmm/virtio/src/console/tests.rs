use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::spec::event;
use super::*;
use crate::GuestMemory;
use crate::testing::{DriverQueue, EventLoop, Recorder, activation, memory, readable, writable};

/// Returns where driver buffers lie: 64 KiB a queue.
fn buffer(queue: usize) -> u64 {
    0x40_0000 + queue as u64 * 0x1_0000
}

/// Events handled before a test says that the device does not come to rest.
const ROUNDS: usize = 1000;

/// A console with two named ports in a machine, seen from its driver and its clients.
struct Bench {
    memory: GuestMemory,
    queues: Vec<DriverQueue>,
    event_loop: EventLoop<Console>,
    recorder: Arc<Recorder>,
    dir: TempDir,
}

impl Bench {
    /// Makes the device as it is before a driver comes.
    fn cold() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let named = ["org.bulkhead.one", "org.bulkhead.two"];
        let named = named.map(|name| NamedPort {
            name: name.into(),
            listener: UnixListener::bind(dir.path().join(name)).unwrap(),
        });
        let console = UnixListener::bind(dir.path().join("console")).unwrap();
        let console = Console::new(Some(console), named.into()).unwrap();
        let memory = memory(0x100_0000);
        let queues = (0..8).map(|index| DriverQueue::new(&memory, index, QUEUE_SIZE)).collect();
        let event_loop = EventLoop::new(console);
        Self { memory, queues, event_loop, recorder: Arc::default(), dir }
    }

    fn activate(&mut self, features: u64) {
        self.memory.write_slice(&[0; 0x8_0000], GuestAddress(0)).unwrap();
        self.queues =
            (0..8).map(|index| DriverQueue::new(&self.memory, index, QUEUE_SIZE)).collect();
        let queues: Vec<_> = self.queues.iter().collect();
        let (activation, recorder) = activation(&self.memory, &queues, features);
        self.recorder = recorder;
        self.event_loop.device().activate(activation).unwrap();
    }

    /// Makes a driver that did the whole handshake, and a guest that has port 1 and 2 open.
    fn ready() -> Self {
        let mut bench = Self::cold();
        bench.activate(spec::F_MULTIPORT);
        bench.say(u32::MAX, event::DEVICE_READY, 1);
        for port in 0..3 {
            bench.say(port, event::PORT_READY, 1);
            bench.say(port, event::PORT_OPEN, 1);
        }
        bench.hear();
        bench
    }

    fn say(&mut self, port: u32, event: u16, value: u16) {
        let mut raw = port.to_le_bytes().to_vec();
        raw.extend_from_slice(&event.to_le_bytes());
        raw.extend_from_slice(&value.to_le_bytes());
        self.memory.write_slice(&raw, GuestAddress(buffer(3))).unwrap();
        self.queues[3].offer(&[readable(buffer(3), 8)]);
        self.event_loop.device().queue_notified(3);
        assert_eq!(self.queues[3].used().unwrap().1, 0);
    }

    /// Hears everything the device has to say on the control queue, as port, event, value, name.
    fn hear(&mut self) -> Vec<(u32, u16, u16, String)> {
        let mut heard = Vec::new();
        loop {
            // One buffer is left over each time: the next message goes there.
            let place = |head: u16| buffer(2) + u64::from(head) * 256;
            let next = self.queues[2].next_head();
            self.queues[2].offer(&[writable(place(next), 256)]);
            self.event_loop.device().queue_notified(2);
            let Some((head, len)) = self.queues[2].used() else { return heard };
            let mut raw = vec![0; len as usize];
            self.memory.read_slice(&mut raw, GuestAddress(place(head))).unwrap();
            heard.push((
                u32::from_le_bytes(raw[..4].try_into().unwrap()),
                u16::from_le_bytes(raw[4..6].try_into().unwrap()),
                u16::from_le_bytes(raw[6..8].try_into().unwrap()),
                String::from_utf8(raw[8..].to_vec()).unwrap(),
            ));
        }
    }

    fn path(&self, port: usize) -> PathBuf {
        self.dir.path().join(["console", "org.bulkhead.one", "org.bulkhead.two"][port])
    }

    fn connect(&mut self, port: usize) -> UnixStream {
        let client = UnixStream::connect(self.path(port)).unwrap();
        client.set_nonblocking(true).unwrap();
        self.settle();
        client
    }

    fn settle(&mut self) {
        assert!(self.event_loop.settle(ROUNDS), "the device does not come to rest");
    }

    /// Has the guest write; returns whether the device took it at once.
    fn write(&mut self, port: usize, data: &[u8]) -> bool {
        let queue = spec::queue::input(port) + 1;
        self.memory.write_slice(data, GuestAddress(buffer(queue))).unwrap();
        self.queues[queue].offer(&[readable(buffer(queue), u32::try_from(data.len()).unwrap())]);
        self.event_loop.device().queue_notified(queue);
        self.queues[queue].used().is_some()
    }

    /// Has the guest give room for `len` bytes.
    fn give_room(&mut self, port: usize, len: u32) {
        let queue = spec::queue::input(port);
        self.queues[queue].offer(&[writable(buffer(queue), len)]);
        self.event_loop.device().queue_notified(queue);
    }

    /// Reads what came into the oldest room given.
    fn read(&mut self, port: usize) -> Option<Vec<u8>> {
        let queue = spec::queue::input(port);
        let (_, len) = self.queues[queue].used()?;
        let mut data = vec![0; len as usize];
        self.memory.read_slice(&mut data, GuestAddress(buffer(queue))).unwrap();
        Some(data)
    }
}

fn received(client: &mut UnixStream) -> Vec<u8> {
    let mut data = vec![0; 1 << 20];
    match client.read(&mut data) {
        Ok(len) => data.truncate(len),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            data.clear();
        }
    }
    data
}

fn is_hung_up(client: &mut UnixStream) -> bool {
    matches!(client.read(&mut [0; 1]), Ok(0))
}

#[test]
fn ports_are_announced_named_and_opened_in_the_order_of_the_specification() {
    let mut bench = Bench::cold();
    let _client = bench.connect(2);
    bench.activate(spec::F_MULTIPORT);
    assert_eq!(bench.hear(), [], "nothing before the driver is ready");

    bench.say(u32::MAX, event::DEVICE_READY, 1);
    let add = |port| (port, event::PORT_ADD, 1, String::new());
    assert_eq!(bench.hear(), [add(0), add(1), add(2)]);

    bench.say(0, event::PORT_READY, 1);
    assert_eq!(bench.hear(), [(0, event::CONSOLE_PORT, 1, String::new())]);
    bench.say(1, event::PORT_READY, 1);
    assert_eq!(bench.hear(), [(1, event::PORT_NAME, 1, "org.bulkhead.one".into())]);
    bench.say(2, event::PORT_READY, 1);
    assert_eq!(
        bench.hear(),
        [
            (2, event::PORT_NAME, 1, "org.bulkhead.two".into()),
            (2, event::PORT_OPEN, 1, String::new())
        ]
    );
}

#[test]
fn bytes_go_both_ways() {
    let mut bench = Bench::ready();
    for port in 0..3 {
        let mut client = bench.connect(port);
        assert!(bench.write(port, b"from the guest"));
        assert_eq!(received(&mut client), b"from the guest");

        client.write_all(b"to the guest").unwrap();
        bench.settle();
        assert_eq!(bench.read(port), None, "the guest has given no room");
        bench.give_room(port, 6);
        assert_eq!(bench.read(port).unwrap(), b"to the");
        bench.give_room(port, 100);
        assert_eq!(bench.read(port).unwrap(), b" guest");
        bench.give_room(port, 100);
        client.write_all(b"more").unwrap();
        bench.settle();
        assert_eq!(bench.read(port).unwrap(), b"more");
    }
}

#[test]
fn a_console_without_multiport_works_alone() {
    let mut bench = Bench::cold();
    bench.activate(0);
    let mut client = bench.connect(0);
    assert!(bench.write(0, b"hello"));
    assert_eq!(received(&mut client), b"hello");
    client.write_all(b"hi").unwrap();
    bench.settle();
    bench.give_room(0, 100);
    assert_eq!(bench.read(0).unwrap(), b"hi");
}

#[test]
fn what_the_guest_writes_without_a_client_is_dropped_and_does_not_block_it() {
    let mut bench = Bench::ready();
    for _ in 0..1000 {
        assert!(bench.write(1, &[b'x'; 4096]));
    }
    let mut client = bench.connect(1);
    assert_eq!(received(&mut client), b"");
}

#[test]
fn a_client_that_does_not_read_stalls_its_own_port_only_and_loses_nothing() {
    let mut bench = Bench::ready();
    let mut slow = bench.connect(1);
    let mut quick = bench.connect(2);
    let mut sent = Vec::new();
    for round in 0_u8.. {
        let data = [round; 0x8000];
        sent.extend_from_slice(&data);
        if !bench.write(1, &data) {
            break;
        }
    }
    assert!(sent.len() < 4 << 20, "what waits in the host is bounded");
    for _ in 0..100 {
        assert!(bench.write(2, b"quick"));
        assert_eq!(received(&mut quick), b"quick");
        bench.settle();
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let more = received(&mut slow);
        assert!(!more.is_empty(), "{} of {} bytes arrived", got.len(), sent.len());
        got.extend_from_slice(&more);
        bench.settle();
    }
    assert!(got == sent);
    assert!(bench.queues[5].used().is_some(), "the chain that waited came back");
}

#[test]
fn a_guest_that_gives_no_room_stops_the_client_not_the_device() {
    let mut bench = Bench::ready();
    let mut client = bench.connect(1);
    let mut sent = 0;
    while let Ok(len) = client.write(&[7; 4096]) {
        sent += len;
        bench.settle();
    }
    let mut got = 0;
    while got < sent {
        bench.give_room(1, 0x8000);
        bench.settle();
        got += bench.read(1).unwrap().len();
    }
    assert_eq!(got, sent);
}

#[test]
fn a_second_client_is_refused_and_the_first_not_disturbed() {
    let mut bench = Bench::ready();
    let mut first = bench.connect(1);
    let mut second = bench.connect(1);
    assert!(is_hung_up(&mut second));
    assert!(bench.write(1, b"still here"));
    assert_eq!(received(&mut first), b"still here");
}

#[test]
fn a_client_that_leaves_closes_the_port_and_makes_room_for_the_next() {
    let mut bench = Bench::ready();
    let mut client = bench.connect(1);
    assert_eq!(bench.hear(), [(1, event::PORT_OPEN, 1, String::new())]);
    client.write_all(b"last words").unwrap();
    drop(client);
    bench.settle();
    assert_eq!(bench.hear(), [], "not before the guest has read what was sent");
    bench.give_room(1, 100);
    assert_eq!(bench.read(1).unwrap(), b"last words");
    bench.give_room(1, 100);
    bench.settle();
    assert_eq!(bench.hear(), [(1, event::PORT_OPEN, 0, String::new())]);

    let mut client = bench.connect(1);
    assert_eq!(bench.hear(), [(1, event::PORT_OPEN, 1, String::new())]);
    assert!(bench.write(1, b"again"));
    assert_eq!(received(&mut client), b"again");
}

#[test]
fn a_new_client_replaces_one_that_left_words_nobody_reads() {
    let mut bench = Bench::ready();
    let mut client = bench.connect(1);
    client.write_all(b"last words").unwrap();
    drop(client);
    bench.settle();
    let mut client = bench.connect(1);
    assert!(bench.write(1, b"for the new one"));
    assert_eq!(received(&mut client), b"for the new one");
    bench.give_room(1, 100);
    assert_eq!(bench.read(1), None, "the old one's words are gone");
}

#[test]
fn a_guest_that_missed_a_change_of_clients_is_told_of_both_ends() {
    let mut bench = Bench::ready();
    let client = bench.connect(1);
    assert_eq!(bench.hear().len(), 1);
    // No room on the control queue from here on: the last `hear` left one buffer.
    bench.connect(2);
    drop(client);
    bench.settle();
    let _client = bench.connect(1);
    let heard: Vec<_> = bench.hear().into_iter().filter(|message| message.0 == 1).collect();
    let open = |value| (1, event::PORT_OPEN, value, String::new());
    assert_eq!(heard, [open(0), open(1)]);
}

#[test]
fn a_client_waits_until_a_guest_process_opens_the_port_and_is_hung_up_on_when_it_closes() {
    let mut bench = Bench::ready();
    bench.say(1, event::PORT_OPEN, 0);
    let mut client = bench.connect(1);
    bench.give_room(1, 100);
    client.write_all(b"early").unwrap();
    bench.settle();
    assert_eq!(bench.read(1), None, "the guest's driver would have thrown it away");
    bench.say(1, event::PORT_OPEN, 1);
    assert_eq!(bench.read(1).unwrap(), b"early");

    bench.say(1, event::PORT_OPEN, 0);
    bench.settle();
    assert!(is_hung_up(&mut client));
    let mut next = bench.connect(1);
    assert!(!is_hung_up(&mut next));
}

#[test]
fn a_reset_hangs_up_on_clients_that_talked_to_the_guest_and_on_no_other() {
    let mut bench = Bench::ready();
    bench.say(2, event::PORT_OPEN, 0);
    let mut talking = bench.connect(1);
    let mut waiting = bench.connect(2);
    bench.event_loop.device().reset();
    bench.settle();
    assert!(is_hung_up(&mut talking));
    assert!(!is_hung_up(&mut waiting));

    bench.activate(spec::F_MULTIPORT);
    bench.say(u32::MAX, event::DEVICE_READY, 1);
    bench.say(2, event::PORT_READY, 1);
    assert!(bench.hear().contains(&(2, event::PORT_OPEN, 1, String::new())));
    bench.say(2, event::PORT_OPEN, 1);
    assert!(bench.write(2, b"hello again"));
    assert_eq!(received(&mut waiting), b"hello again");
}

#[test]
fn a_guest_that_asks_and_never_listens_costs_nothing() {
    let mut bench = Bench::cold();
    bench.activate(spec::F_MULTIPORT);
    for _ in 0..10_000 {
        bench.say(u32::MAX, event::DEVICE_READY, 1);
        bench.say(1, event::PORT_READY, 1);
        bench.say(77, event::PORT_READY, 1);
    }
    assert_eq!(bench.hear().len(), 4, "three ports added and one named, once each");
}

#[test]
fn a_control_buffer_too_small_for_a_message_stops_the_device() {
    let mut bench = Bench::cold();
    bench.activate(spec::F_MULTIPORT);
    bench.queues[2].offer(&[writable(buffer(2), 7)]);
    bench.queues[3].offer(&[readable(buffer(3), 8)]);
    bench.memory.write_slice(&[0, 0, 0, 0, 0, 0, 1, 0], GuestAddress(buffer(3))).unwrap();
    bench.event_loop.device().queue_notified(3);
    assert!(bench.recorder.asked_for_reset());
    bench.settle();
}

#[test]
fn a_broken_ring_stops_the_device_and_hangs_up() {
    let mut bench = Bench::ready();
    let mut client = bench.connect(1);
    bench.queues[5].set_avail_index(1000);
    bench.event_loop.device().queue_notified(5);
    assert!(bench.recorder.asked_for_reset());
    bench.settle();
    assert!(is_hung_up(&mut client));
}

#[test]
fn the_configuration_tells_how_many_ports_there_are() {
    let mut bench = Bench::cold();
    let mut space = [0xff; 16];
    bench.event_loop.device().config().read(0, &mut space);
    assert_eq!(space, [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut byte = [0xff];
    bench.event_loop.device().config().read(usize::MAX, &mut byte);
    assert_eq!(byte, [0]);
    assert_eq!(bench.event_loop.device().queue_sizes(), [QUEUE_SIZE; 8]);
}

#[test]
fn bad_names_and_too_many_ports_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let port = |name: &str, at: usize| {
        let path = dir.path().join(at.to_string());
        let _ = std::fs::remove_file(&path);
        NamedPort { name: name.into(), listener: UnixListener::bind(path).unwrap() }
    };
    for names in [
        vec![""],
        vec!["one", "one"],
        vec!["a-name-of-more-than-sixty-four-bytes-which-no-driver-has-to-accept"],
    ] {
        let named = names.iter().enumerate().map(|(at, name)| port(name, at)).collect();
        assert!(matches!(Console::new(None, named), Err(ConsoleError::Name(_))), "{names:?}");
    }
    let named = (0..MAX_PORTS).map(|at| port(&format!("port-{at}"), at)).collect();
    assert!(matches!(Console::new(None, named), Err(ConsoleError::TooManyPorts(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What goes into a port comes out of it, whole and in order, however it is cut up.
    #[test]
    fn both_directions_are_streams(
        moves in proptest::collection::vec((any::<bool>(), 1..3000_usize, 1..3000_u32), 1..40),
    ) {
        let mut bench = Bench::ready();
        let mut client = bench.connect(1);
        let (mut down, mut down_got) = (Vec::new(), Vec::new());
        let (mut up, mut up_got) = (Vec::new(), Vec::new());
        for (number, (downwards, len, room)) in (0_u8..).zip(moves) {
            let data = vec![number; len];
            if downwards {
                client.write_all(&data).unwrap();
                down.extend_from_slice(&data);
                bench.settle();
                bench.give_room(1, room);
                down_got.extend(bench.read(1).unwrap());
            } else {
                prop_assert!(bench.write(1, &data));
                up.extend_from_slice(&data);
                up_got.extend(received(&mut client));
            }
        }
        while down_got.len() < down.len() {
            bench.give_room(1, 4096);
            down_got.extend(bench.read(1).unwrap());
        }
        prop_assert!(down == down_got);
        prop_assert!(up == up_got);
    }
}
