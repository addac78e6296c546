use super::*;
use crate::config::{bar_register, register};
use proptest::prelude::*;

const LOW: Range<u64> = 0xc000_0000..0xe000_0000;
const HIGH: Range<u64> = 0x1_0000_0000..0x11_0000_0000;

/// A function with a 64-bit BAR 0 and a 32-bit BAR 2 that remembers what happens to it.
struct Probe {
    config: ConfigSpace,
    moves: Vec<(usize, Option<Window>)>,
    accesses: Vec<(usize, u64, usize)>,
}

fn probe(size: u64) -> Arc<Mutex<Probe>> {
    let identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 1,
        class: [2, 0, 0],
        subsystem_vendor: 0x1234,
        subsystem: 1,
    };
    let mut config = ConfigSpace::new(identity);
    let bar = |index| BarIndex::new(index).unwrap();
    config.add_bar(bar(0), size, BarKind::Memory64, true).unwrap();
    config.add_bar(bar(2), 4096, BarKind::Memory32, false).unwrap();
    config.add_capability(9, &[1, 2, 3, 4], &[0, 0xff]).unwrap();
    Arc::new(Mutex::new(Probe { config, moves: Vec::new(), accesses: Vec::new() }))
}

impl Function for Probe {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }
    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
    }
    fn config_space(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        self.accesses.push((bar.index(), offset, data.len()));
        data.fill(0x5a);
    }
    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        self.accesses.push((bar.index(), offset, data.len()));
    }
    fn bar_moved(&mut self, bar: BarIndex, now: Option<Window>) {
        self.moves.push((bar.index(), now));
    }
    fn reset(&mut self) {
        self.config.reset();
    }
}

fn bus(functions: &[Arc<Mutex<Probe>>]) -> Bus {
    let mut bus = Bus::new();
    for (device, function) in (1..).zip(functions) {
        bus.add(device, function.clone());
    }
    bus.place_bars(LOW, HIGH).unwrap();
    bus
}

fn ecam(device: u64, register: u16) -> u64 {
    device << 15 | u64::from(register)
}

fn read32(bus: &Bus, device: u64, register: u16) -> u32 {
    let mut data = [0; 4];
    bus.ecam_read(ecam(device, register), &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn functions_are_found_by_both_configuration_mechanisms() {
    let bus = bus(&[probe(1 << 20)]);
    assert_eq!(read32(&bus, 0, 0), 0x0008_1b36);
    assert_eq!(read32(&bus, 1, 0), 0x5678_1234);
    for (device, function, number) in [(2, 0, 0u64), (1, 1, 0), (1, 0, 1)] {
        let mut data = [0; 4];
        bus.ecam_read(number << 20 | ecam(device, 0) | function << 12, &mut data);
        assert_eq!(data, [0xff; 4], "bus {number} device {device} function {function}");
    }
    let mut data = [0; 2];
    bus.io_write(0, &0x8000_0800u32.to_le_bytes());
    bus.io_read(6, &mut data);
    assert_eq!(data, [0x78, 0x56]);
    bus.io_write(0, &[0x00]);
    bus.io_read(4, &mut data);
    assert_eq!(data, [0x34, 0x12], "a byte written does not set the address");
    bus.io_write(0, &0x0000_0800u32.to_le_bytes());
    bus.io_read(4, &mut data);
    assert_eq!(data, [0xff; 2], "disabled");
}

#[test]
fn bars_are_placed_apart_aligned_and_decode_once_switched_on() {
    let functions = [probe(1 << 14), probe(1 << 24), probe(1 << 20)];
    let bus = bus(&functions);
    let mut ranges = Vec::new();
    for (device, function) in (1..).zip(&functions) {
        assert!(lock(&(function.clone() as Shared)).windows().iter().all(Option::is_none));
        bus.ecam_write(ecam(device, register::COMMAND), &2u16.to_le_bytes());
        let function = function.lock().unwrap();
        for window in function.config.windows().into_iter().flatten() {
            assert_eq!(window.address % window.size, 0);
            assert!(LOW.contains(&window.address) || HIGH.contains(&window.address));
            ranges.push(window.address..window.address + window.size);
        }
        assert_eq!(function.moves.len(), 2);
    }
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let mut data = [0; 4];
    let at = ranges.last().unwrap().end - 4;
    assert!(bus.mmio_read(at, &mut data) && data == [0x5a; 4]);
    assert!(!bus.mmio_read(at + 1, &mut data), "over the end");
    assert!(!bus.mmio_read(0x8000_0000, &mut data));
    bus.reset();
    assert!(!bus.mmio_read(at, &mut data), "decoding is off after a reset");
}

#[test]
fn a_bar_tells_its_size_the_way_the_specification_says() {
    let bus = bus(&[probe(1 << 20)]);
    let bar0 = bar_register(BarIndex::new(0).unwrap());
    bus.ecam_write(ecam(1, bar0), &[0xff; 4]);
    bus.ecam_write(ecam(1, bar0 + 4), &[0xff; 4]);
    assert_eq!(read32(&bus, 1, bar0), !((1 << 20) - 1) | 0b1100);
    assert_eq!(read32(&bus, 1, bar0 + 4), u32::MAX);
    assert_eq!(read32(&bus, 1, bar_register(BarIndex::new(5).unwrap())), 0);
}

#[test]
fn bars_that_do_not_fit_are_an_error_that_names_them() {
    let mut bus = Bus::new();
    bus.add(3, probe(1 << 40));
    let error = bus.place_bars(LOW, HIGH).unwrap_err().to_string();
    assert!(error.contains("device 3: BAR 0 has 1 TiB"), "{error}");
}

#[test]
fn a_bar_no_guest_has_room_for_is_not_blamed_on_the_other_functions() {
    let mut bus = Bus::new();
    bus.add(1, probe(1 << 48));
    let error = bus.place_bars(LOW, HIGH).unwrap_err().to_string();
    assert!(error.contains("256 TiB") && error.contains("64 GiB"), "{error}");
    assert!(error.contains("another card") && !error.contains("fewer"), "{error}");
    // Each alone would fit.
    let mut bus = Bus::new();
    bus.add(1, probe(1 << 35));
    bus.add(2, probe(1 << 35));
    let half = HIGH.start..HIGH.start + (1 << 35);
    let error = bus.place_bars(LOW, half).unwrap_err().to_string();
    assert!(error.contains("beside the others") && error.contains("fewer"), "{error}");
}

#[test]
fn capabilities_are_linked_and_guarded_by_their_masks() {
    let bus = bus(&[probe(4096)]);
    let first = read32(&bus, 1, register::CAPABILITIES) as u16 & 0xff;
    bus.ecam_write(ecam(1, first + 2), &[0xaa; 4]);
    assert_eq!(read32(&bus, 1, first), 0xaa01_0009);
    let config = &mut ConfigSpace::new(Identity {
        vendor: 0,
        device: 0,
        revision: 0,
        class: [0; 3],
        subsystem_vendor: 0,
        subsystem: 0,
    });
    assert_eq!(config.add_capability(9, &[0; 300], &[]), Err(LayoutError::Capability(302)));
}

use crate::config::LayoutError;

proptest! {
    #[test]
    fn whatever_a_guest_writes_windows_stay_aligned_and_identity_stays(
        writes in prop::collection::vec(
            (0u64..3, 0u16..300, prop::collection::vec(any::<u8>(), 1..5)), 0..80),
        ports in prop::collection::vec((0u16..8, prop::collection::vec(any::<u8>(), 1..5)), 0..20),
        reads in prop::collection::vec(any::<u64>(), 0..20),
    ) {
        let functions = [probe(1 << 16), probe(1 << 12)];
        let bus = bus(&functions);
        let identity = [read32(&bus, 1, 0), read32(&bus, 1, 8), read32(&bus, 1, 0x2c)];
        for (device, register, data) in writes {
            bus.ecam_write(ecam(device, register), &data);
        }
        for (offset, data) in ports {
            bus.io_write(offset, &data);
            bus.io_read(offset, &mut data.clone());
        }
        for address in reads {
            bus.mmio_read(address, &mut [0; 8]);
            bus.ecam_read(address, &mut [0; 4]);
        }
        prop_assert_eq!(identity, [read32(&bus, 1, 0), read32(&bus, 1, 8), read32(&bus, 1, 0x2c)]);
        for function in &functions {
            let function = function.lock().unwrap();
            for window in function.config.windows().into_iter().flatten() {
                prop_assert_eq!(window.address % window.size, 0);
            }
            // The last move reported for each BAR is where it is.
            for (index, window) in function.config.windows().into_iter().enumerate() {
                let last = function.moves.iter().rev().find(|(bar, _)| *bar == index);
                prop_assert_eq!(last.and_then(|(_, w)| *w), window);
            }
        }
    }
}
