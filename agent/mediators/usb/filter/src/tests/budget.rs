//! What of the kernel's memory for transfers a guest has by one device.

use usbredir::{Body, Packet};

use crate::descriptors::Pinned;
use crate::stick::{DEVICE, INPUT, OUTPUT};
use crate::testing::{bulk, cbw};
use crate::traffic::kernel_bytes;
use crate::{BYTES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MIN, Filter, Out, Rules};

const LARGEST: u32 = 128 * 1024;
/// What the printer says.
const PRINTED: u8 = 0x83;

/// A stick that is a printer as well, behind a filter.
fn stick_and_printer(rules: Rules) -> Filter {
    let mut raw = vec![9, 2, 0, 0, 2, 1, 0, 0x80, 50];
    raw.extend([9, 4, 0, 0, 2, 8, 6, 0x50, 0]);
    raw.extend([7, 5, INPUT, 2, 0, 2, 0, 7, 5, OUTPUT, 2, 0, 2, 0]);
    raw.extend([9, 4, 1, 0, 2, 7, 1, 2, 0]);
    raw.extend([7, 5, PRINTED, 2, 0, 2, 0, 7, 5, 0x04, 2, 0, 2, 0]);
    raw[2] = raw.len() as u8;
    let pinned = Pinned { device: DEVICE, configurations: vec![raw], others: Vec::new() };
    Filter::new(rules, pinned).unwrap()
}

/// A guest, its filter, and what of its transfers is with a device that answers nothing by itself.
struct Guest {
    filter: Filter,
    out: Out,
    with_device: Vec<(u64, u8, u32)>,
    next: u64,
}

impl Guest {
    fn new(filter: Filter) -> Self {
        Self { filter, out: Out::default(), with_device: Vec::new(), next: 0 }
    }

    /// Asks for so much; returns whether that was taken, by the device or to wait for its turn.
    fn asks(&mut self, endpoint: u8, length: u32, data: Vec<u8>) -> bool {
        let id = self.next;
        self.next += 1;
        self.filter.from_guest(Packet { id, body: bulk(endpoint, length, data) }, &mut self.out);
        self.passes();
        !self.out.to_guest.drain(..).any(|packet| packet.id == id)
    }

    /// The device answers the first that it has of this endpoint.
    fn answered(&mut self, endpoint: u8, data: &[u8]) {
        let at = self.with_device.iter().position(|(_, of, _)| *of == endpoint).unwrap();
        let (id, _, asked) = self.with_device.remove(at);
        let length = if endpoint & 0x80 == 0 { asked } else { data.len() as u32 };
        let body = bulk(endpoint, length, data.to_vec());
        self.filter.from_device(Packet { id, body }, &mut self.out);
        self.out.to_guest.clear();
        self.passes();
    }

    fn passes(&mut self) {
        for packet in self.out.to_device.drain(..) {
            let Body::Bulk(bulk) = packet.body else { panic!("{packet:?}") };
            self.with_device.push((packet.id, bulk.endpoint, bulk.length));
        }
    }

    /// What the kernel keeps of it.
    fn kernels(&self) -> usize {
        self.with_device.iter().map(|(_, _, length)| kernel_bytes(*length)).sum()
    }
}

// Shows: C-10.
#[test]
fn a_device_has_no_more_of_the_kernels_memory_than_its_budget_and_works_with_the_least() {
    for budget in [BYTES_IN_FLIGHT_MIN, 300 * 1024, BYTES_IN_FLIGHT_MAX, usize::MAX] {
        let mut guest = Guest::new(stick_and_printer(Rules::Allow).within(budget));
        let taken = (0..100).filter(|_| guest.asks(PRINTED, LARGEST, Vec::new())).count();
        let most = budget.min(BYTES_IN_FLIGHT_MAX);
        assert_eq!(taken, most / kernel_bytes(LARGEST), "{budget}");
        assert!(guest.kernels() <= most);
        // What it has asked for comes, and makes room.
        for _ in 0..100 {
            guest.answered(PRINTED, b"paper");
            assert!(guest.asks(PRINTED, LARGEST, Vec::new()), "{budget}");
        }
    }
}

// Shows: C-10.
#[test]
fn a_transfer_of_storage_that_waits_for_its_turn_counts_as_one_that_is_with_the_device() {
    for budget in [BYTES_IN_FLIGHT_MIN, 700 * 1024, BYTES_IN_FLIGHT_MAX] {
        let mut guest = Guest::new(stick_and_printer(Rules::ReadOnly).within(budget));
        // Data are asked for before the command: they wait here.
        assert!(guest.asks(INPUT, LARGEST, Vec::new()));
        assert!(guest.with_device.is_empty());
        while guest.asks(PRINTED, LARGEST, Vec::new()) {}
        while guest.asks(PRINTED, 1024, Vec::new()) {}
        // Now the command comes, the device takes it, and the data's turn has come.
        let read = cbw(1, LARGEST, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert!(guest.asks(OUTPUT, 31, read), "it takes no more than what waits");
        guest.answered(OUTPUT, &[]);
        assert!(guest.with_device.iter().any(|(_, endpoint, _)| *endpoint == INPUT));
        assert!(guest.kernels() <= budget, "{} of {budget}", guest.kernels());
        assert_eq!(guest.kernels(), guest.filter.bytes_in_flight());
        // A driver that asks for the next piece before it has the last one is not held up by its own storage.
        assert!(guest.asks(INPUT, LARGEST, Vec::new()));
        assert_eq!(guest.filter.bytes_in_flight(), guest.kernels());
    }
}
