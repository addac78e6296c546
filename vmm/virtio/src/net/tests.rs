use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::spec::{MAX_FRAME, MIN_FRAME, NEEDS_CSUM, gso};
use super::*;
use crate::GuestMemory;
use crate::testing::{DriverQueue, EventLoop, Recorder, activation, memory, readable, writable};

const ROUNDS: usize = 1000;
/// Where the driver's transmit buffer lies.
const OUT: u64 = 0x40_0000;
/// Where its receive buffers lie, one per head.
const IN: u64 = 0x80_0000;
const STRIDE: u64 = 0x1_1000;

/// A card in a machine, seen from its driver and from the network.
struct Bench {
    memory: GuestMemory,
    receive: DriverQueue,
    transmit: DriverQueue,
    event_loop: EventLoop<Net>,
    recorder: Arc<Recorder>,
    network: OwnedFd,
}

impl Bench {
    fn new(features: u64) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (network, tap) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mac = "52:54:00:12:34:56".parse().unwrap();
        let mut net = Net::new(Tap::stand_in(File::from(tap)), mac).unwrap();
        let memory = memory(0x200_0000);
        let receive = DriverQueue::new(&memory, 0, 256);
        let transmit = DriverQueue::new(&memory, 1, 256);
        let (activation, recorder) = activation(&memory, &[&receive, &transmit], features);
        net.activate(activation).unwrap();
        let event_loop = EventLoop::new(net);
        Self { memory, receive, transmit, event_loop, recorder, network }
    }

    /// Has the network send a frame whose bytes count up.
    fn network_sends(&self, len: usize) -> Vec<u8> {
        let frame: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        let mut packet = vec![0; HEADER_BYTES];
        packet[10] = 0xee; // a tap leaves num_buffers as it is
        packet.extend_from_slice(&frame);
        send(self.network.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        frame
    }

    fn at_network(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 0x2_0000];
        let len = recv(self.network.as_raw_fd(), &mut packet, MsgFlags::empty()).ok()?;
        packet.truncate(len);
        Some(packet)
    }

    fn give_buffer(&mut self, len: u32) -> u16 {
        let place = IN + u64::from(self.receive.next_head()) * STRIDE;
        let head = self.receive.offer(&[writable(place, len)]);
        self.event_loop.device().queue_notified(0);
        head
    }

    fn settle(&mut self) {
        assert!(self.event_loop.settle(ROUNDS), "the device does not come to rest");
    }

    /// Takes the next used receive buffer.
    fn received(&mut self) -> Option<Vec<u8>> {
        let (head, len) = self.receive.used()?;
        let mut data = vec![0; len as usize];
        let place = GuestAddress(IN + u64::from(head) * STRIDE);
        self.memory.read_slice(&mut data, place).unwrap();
        Some(data)
    }

    fn transmit(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        self.memory.write_slice(&header, GuestAddress(OUT)).unwrap();
        self.memory.write_slice(frame, GuestAddress(OUT + 12)).unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        // Not where the boundary between header and frame is.
        self.transmit.offer(&[readable(OUT, 5), readable(OUT + 5, 7 + len)]);
        self.event_loop.device().queue_notified(1);
        assert_eq!(self.transmit.used().unwrap().1, 0);
    }
}

#[test]
fn a_frame_from_the_network_lands_in_one_buffer_behind_its_header() {
    let mut bench = Bench::new(0);
    bench.give_buffer(1526);
    let frame = bench.network_sends(100);
    bench.settle();
    let data = bench.received().unwrap();
    assert_eq!(data[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "in one buffer");
    assert_eq!(data[12..], frame);
    assert_eq!(bench.recorder.interrupts(), 1);
}

#[test]
fn without_receive_buffers_the_tap_is_left_alone_until_there_are_some() {
    let mut bench = Bench::new(0);
    let first = bench.network_sends(60);
    let second = bench.network_sends(61);
    bench.settle();
    assert!(bench.received().is_none());
    bench.give_buffer(1526);
    assert_eq!(bench.received().unwrap()[12..], first);
    bench.give_buffer(1526);
    assert_eq!(bench.received().unwrap()[12..], second);
}

#[test]
fn a_long_frame_is_spread_over_mergeable_buffers_that_appear_together() {
    let mut bench = Bench::new(feature::MRG_RXBUF);
    bench.give_buffer(1000);
    bench.give_buffer(2000);
    let frame = bench.network_sends(5000);
    bench.settle();
    assert!(bench.received().is_none(), "not before all of it is there");
    bench.give_buffer(4000);
    let mut data = bench.received().unwrap();
    assert_eq!((data.len(), data[10], data[11]), (1000, 3, 0));
    data.extend(bench.received().unwrap());
    data.extend(bench.received().unwrap());
    assert_eq!(data[12..], frame);
    assert!(bench.received().is_none());

    bench.give_buffer(100);
    let frame = bench.network_sends(20);
    bench.settle();
    assert_eq!(bench.received().unwrap()[12..], frame, "and the next one is not disturbed");
}

#[test]
fn the_longest_frame_passes_both_ways() {
    let mut bench = Bench::new(feature::MRG_RXBUF);
    let frame = bench.network_sends(MAX_FRAME);
    for _ in 0..44 {
        bench.give_buffer(1526);
    }
    bench.settle();
    let mut data = Vec::new();
    while let Some(part) = bench.received() {
        data.extend(part);
    }
    assert!(data[12..] == frame);
    bench.transmit([0; 12], &frame);
    assert!(bench.at_network().unwrap()[12..] == frame);
}

#[test]
fn a_frame_too_long_for_a_driver_that_cannot_merge_is_dropped_alone() {
    let mut bench = Bench::new(0);
    bench.give_buffer(1000);
    bench.network_sends(5000);
    let frame = bench.network_sends(500);
    bench.settle();
    assert_eq!(bench.received().unwrap()[12..], frame);
}

#[test]
fn a_frame_that_would_need_too_many_buffers_is_dropped_and_they_stay() {
    let mut bench = Bench::new(feature::MRG_RXBUF);
    for _ in 0..256 {
        bench.give_buffer(12);
    }
    bench.network_sends(5000);
    bench.settle();
    assert!(bench.received().is_none());
    let frame = bench.network_sends(36);
    bench.settle();
    assert_eq!(bench.received().unwrap()[10], 4);
    assert_eq!(bench.received().unwrap(), frame[..12]);
}

#[test]
fn a_frame_from_the_guest_reaches_the_network_whole() {
    let mut bench = Bench::new(0);
    let frame: Vec<u8> = (0..200).collect();
    bench.transmit([0; 12], &frame);
    let packet = bench.at_network().unwrap();
    assert_eq!((&packet[..12], &packet[12..]), (&[0; 12][..], &frame[..]));
    assert_eq!(bench.recorder.interrupts(), 1);
}

#[test]
fn frames_that_are_none_are_dropped_and_given_back() {
    let mut bench = Bench::new(0);
    bench.transmit([0; 12], &[0; MIN_FRAME - 1]);
    bench.transmit([0; 12], &[0; MAX_FRAME + 1]);
    bench.transmit.offer(&[readable(OUT, 4)]);
    bench.transmit.offer(&[writable(OUT, 400)]);
    bench.event_loop.device().queue_notified(1);
    assert_eq!(bench.transmit.used().unwrap().1, 0);
    assert_eq!(bench.transmit.used().unwrap().1, 0);
    assert_eq!(bench.at_network(), None);
    assert!(!bench.recorder.asked_for_reset());
}

#[test]
fn a_network_that_takes_nothing_does_not_hold_up_the_guest() {
    let mut bench = Bench::new(0);
    for _ in 0..2000 {
        bench.transmit([0; 12], &[1; 1500]);
    }
    let mut arrived = 0;
    while bench.at_network().is_some() {
        arrived += 1;
    }
    assert!((1..2000).contains(&arrived), "{arrived}");
}

#[test]
fn a_receive_buffer_without_room_for_a_header_stops_the_device() {
    let mut bench = Bench::new(0);
    bench.give_buffer(11);
    assert!(bench.recorder.asked_for_reset());
}

#[test]
fn frames_from_before_the_driver_came_are_not_delivered() {
    let mut bench = Bench::new(0);
    bench.event_loop.device().reset();
    for _ in 0..10 {
        bench.network_sends(60);
    }
    bench.settle();
    bench.memory.write_slice(&[0; 0x2_0000], GuestAddress(0)).unwrap();
    bench.receive = DriverQueue::new(&bench.memory, 0, 256);
    bench.transmit = DriverQueue::new(&bench.memory, 1, 256);
    let (activation, _) = activation(&bench.memory, &[&bench.receive, &bench.transmit], 0);
    bench.event_loop.device().activate(activation).unwrap();
    bench.give_buffer(1526);
    assert!(bench.received().is_none());
    let frame = bench.network_sends(60);
    bench.settle();
    assert_eq!(bench.received().unwrap()[12..], frame);
}

#[test]
fn a_header_passes_only_with_what_was_negotiated() {
    let csum = |start: u8, offset: u8| [NEEDS_CSUM, 0, 0, 0, 0, 0, start, 0, offset, 0, 9, 9];
    let admitted = [NEEDS_CSUM, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    assert_eq!(header::admit(csum(34, 16), 60, feature::CSUM), Some(admitted));
    assert_eq!(header::admit(csum(34, 16), 60, 0), None);
    assert_eq!(header::admit(csum(34, 25), 60, feature::CSUM), None, "beyond the frame");
    assert_eq!(header::admit([0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9], 60, 0), Some([0; 12]));

    let tso = |kind: u8| [NEEDS_CSUM, kind, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    let all = u64::MAX;
    for (kind, needed) in [
        (gso::TCPV4, feature::HOST_TSO4),
        (gso::TCPV6, feature::HOST_TSO6),
        (gso::UDP, feature::HOST_UFO),
        (gso::TCPV4 | gso::ECN, feature::HOST_ECN),
    ] {
        assert_eq!(header::admit(tso(kind), 3000, all), Some(tso(kind)));
        assert_eq!(header::admit(tso(kind), 3000, all & !needed), None, "{kind:#x}");
    }
    for kind in [2, 5, 6, gso::UDP | gso::ECN, gso::ECN] {
        assert_eq!(header::admit(tso(kind), 3000, all), None, "{kind:#x}");
    }
    let without_checksum = [0, gso::TCPV4, 54, 0, 0xb4, 5, 0, 0, 0, 0, 0, 0];
    assert_eq!(header::admit(without_checksum, 3000, all), None);
    let without_size = [NEEDS_CSUM, gso::TCPV4, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    assert_eq!(header::admit(without_size, 3000, all), None);
    assert_eq!(header::admit(tso(gso::TCPV4), 53, all), None, "headers beyond the frame");
}

#[test]
fn the_host_is_asked_for_no_offload_the_driver_did_not_take() {
    use feature::{GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_UFO, HOST_TSO4};
    let offloads = tap::offloads;
    assert_eq!(offloads(GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO | HOST_TSO4), 0, "no checksums");
    assert_eq!(offloads(GUEST_CSUM | GUEST_ECN), libc::TUN_F_CSUM, "no TCP to mark");
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    assert_eq!(offloads(GUEST_CSUM | GUEST_TSO4 | GUEST_ECN), tcp);
    let rest = libc::TUN_F_CSUM | libc::TUN_F_TSO6 | libc::TUN_F_UFO;
    assert_eq!(offloads(GUEST_CSUM | GUEST_TSO6 | GUEST_UFO), rest);
}

#[test]
fn the_configuration_is_the_address_and_nothing_more() {
    let mut bench = Bench::new(0);
    let mut space = [0xff; 12];
    bench.event_loop.device().config().read(0, &mut space);
    assert_eq!(space, [0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0, 0, 0, 0, 0]);
    bench.event_loop.device().config().write(0, &[1, 2, 3]);
    let mut byte = [0xff];
    bench.event_loop.device().config().read(2, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
fn addresses_are_read_as_people_write_them_and_no_other_way() {
    let mac: Mac = "52:54:00:Ab:cD:ef".parse().unwrap();
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
    for bad in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52-54-00-12-34-56",
        "52:54:00:12:34:5",
        "52:54:00:12:34:+5",
        "52:54:00:12:34:5g",
    ] {
        assert_eq!(bad.parse::<Mac>(), Err(MacError::Malformed), "{bad}");
    }
    assert_eq!("01:00:5e:00:00:01".parse::<Mac>(), Err(MacError::Multicast));
    assert_eq!("00:00:00:00:00:00".parse::<Mac>(), Err(MacError::Zero));
}

#[test]
fn derived_addresses_are_stable_local_and_differ() {
    assert_eq!(Mac::derived("tap0"), Mac::derived("tap0"));
    assert_eq!(Mac::derived("tap0").to_string(), Mac::derived("tap0").to_string());
    let all: std::collections::BTreeSet<_> =
        (0..1000).map(|n| Mac::derived(&format!("tap{n}")).bytes()).collect();
    assert_eq!(all.len(), 1000);
    assert!(all.iter().all(|mac| mac[0] & 3 == 2), "local, unicast");
}

#[test]
fn a_tap_that_is_not_there_is_refused_with_what_to_do() {
    for bad in ["", "a-name-too-long-x", "../x"] {
        assert!(matches!(Tap::open(bad), Err(TapError::Name(_))), "{bad}");
    }
    let missing = Tap::open("nosuchtap").unwrap_err();
    assert!(matches!(missing, TapError::Missing(_)));
    assert!(missing.to_string().contains("ip tuntap add dev nosuchtap mode tap"), "{missing}");
}

/// Runs `ip` in the network namespace of this thread.
fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// Needs the right to make a network namespace, which it says and stops if it has not.
#[test]
fn a_real_tap_takes_the_offloads_and_gives_the_hosts_frames() {
    std::thread::spawn(|| {
        let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        if own.is_err() || !ip("tuntap add dev bhtap0 mode tap") {
            eprintln!("not tested: no right to make a tap in a network namespace");
            return;
        }
        assert!(matches!(Tap::open("lo"), Err(TapError::NotATap(_))));
        let tap = Tap::open("bhtap0").unwrap();
        assert!(matches!(Tap::open("bhtap0"), Err(TapError::InUse(_))));

        let mut net = Net::new(tap, Mac::derived("bhtap0")).unwrap();
        let features = net.features() & !RING_FEATURES;
        let memory = memory(0x200_0000);
        let mut receive = DriverQueue::new(&memory, 0, 256);
        let transmit = DriverQueue::new(&memory, 1, 256);
        let (activation, _) = activation(&memory, &[&receive, &transmit], features);
        net.activate(activation).unwrap();
        let mut event_loop = EventLoop::new(net);
        for _ in 0..32 {
            receive.offer(&[writable(IN + u64::from(receive.next_head()) * STRIDE, 2000)]);
        }
        event_loop.device().queue_notified(0);
        assert!(ip("link set bhtap0 up"));
        assert!(ip("addr add 192.0.2.1/24 dev bhtap0"));
        // Somebody to ask for: the host sends an ARP request out of the tap.
        let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.send_to(b"anybody?", "192.0.2.2:9").unwrap();
        let mut frames = Vec::new();
        for _ in 0..200 {
            event_loop.settle(ROUNDS);
            while let Some((head, len)) = receive.used() {
                let mut data = vec![0; len as usize];
                let place = GuestAddress(IN + u64::from(head) * STRIDE);
                memory.read_slice(&mut data, place).unwrap();
                frames.push(data);
            }
            if frames.iter().any(|frame| frame[24..26] == [8, 6]) {
                return; // ARP
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no ARP request among {} frames", frames.len());
    })
    .join()
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames arrive whole and in order, or not at all, whatever buffers the driver gives.
    #[test]
    fn merged_frames_are_the_frames_that_were_sent(
        frames in proptest::collection::vec(MIN_FRAME..4000_usize, 1..20),
        room in 12_u32..3000,
    ) {
        let mut bench = Bench::new(feature::MRG_RXBUF);
        for len in frames {
            let frame = bench.network_sends(len);
            bench.settle();
            let mut data = Vec::new();
            for _ in 0..256 {
                bench.give_buffer(room);
                while let Some(part) = bench.received() {
                    data.extend(part);
                }
                if !data.is_empty() {
                    break;
                }
            }
            // Up to 256 buffers a frame.
            prop_assert_eq!(data.is_empty(), len + HEADER_BYTES > 256 * room as usize);
            if data.is_empty() {
                return Ok(()); // dropped, and the ring is full of buffers too small to go on with
            }
            prop_assert_eq!(&data[12..], &frame[..]);
        }
    }
}
