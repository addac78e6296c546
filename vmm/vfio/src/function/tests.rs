mod any_access;
mod taken_away;

use pci::host::MsiMessage;
use pci::testing::Recorder;

use super::*;
use crate::testing::{EXPRESS, Event, FakeNic, MSI, MSIX, VECTORS, address, bar};

/// Command as the test NIC's firmware left it, less I/O and bus mastering.
const QUIET: [u8; 2] = 0x0502u16.to_le_bytes();
const MASTER: [u8; 2] = 0x0506u16.to_le_bytes();
/// The recorder numbers vectors as they are made: one for MSI, then MSI-X's.
const FIRST_MSIX: u16 = 1;

fn open(nic: &FakeNic) -> (VfioFunction, Recorder) {
    let recorder = Recorder::default();
    let function =
        VfioFunction::new(nic.boxed(), address(), &recorder, Arc::new(nic.clone())).unwrap();
    (function, recorder)
}

/// Places the BARs, has the guest turn decoding and bus mastering on, and forgets the events so far.
fn running(nic: &FakeNic) -> (VfioFunction, Recorder) {
    let (mut function, recorder) = open(nic);
    for (index, address) in [(0, 0xc000_0000), (1, 0xc002_0000), (3, 0xc004_0000)] {
        function.place_bar(bar(index), address);
    }
    write(&mut function, 4, &0x0406u16.to_le_bytes());
    nic.events();
    (function, recorder)
}

/// Does a configuration write, and the bus's report of what moved.
fn write(function: &mut VfioFunction, offset: u16, data: &[u8]) {
    let before = function.windows();
    function.config_write(offset, data);
    report_moves(function, before);
}

fn report_moves(function: &mut VfioFunction, before: [Option<Window>; BarIndex::COUNT]) {
    for (index, (before, now)) in before.into_iter().zip(function.windows()).enumerate() {
        if before != now {
            function.bar_moved(bar(index), now);
        }
    }
}

fn read(function: &mut VfioFunction, offset: u16) -> u32 {
    let mut bytes = [0; 4];
    function.config_read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Sets a vector's message, and unmasks it.
fn unmask(function: &mut VfioFunction, vector: u32) {
    let at = u64::from(vector) * 16;
    function.bar_write(bar(3), at, &0xfee0_0000u64.to_le_bytes());
    function.bar_write(bar(3), at + 8, &(0x40 + vector).to_le_bytes());
    function.bar_write(bar(3), at + 12, &0u32.to_le_bytes());
}

fn enable_msix(function: &mut VfioFunction, on: bool) {
    write(function, MSIX + 2, &(if on { 0x8000u16 } else { 0 }).to_le_bytes());
}

#[test]
fn opening_resets_the_card_first_and_leaves_bus_mastering_off() {
    let nic = FakeNic::new();
    let (function, _) = open(&nic);
    let events = nic.events();
    assert_eq!(events.first(), Some(&Event::FunctionReset));
    let reports = Event::ConfigWrite(EXPRESS + 8, 0x2816u16.to_le_bytes().to_vec());
    assert!(events.ends_with(&[Event::ConfigWrite(4, QUIET.to_vec()), reports]), "{events:?}");
    assert!(function.usable());
}

#[test]
fn a_card_reports_its_errors_also_after_a_reset_whatever_its_guest_writes() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    let reports = |nic: &FakeNic| nic.with(|state| state.config[usize::from(EXPRESS) + 8]) & 6;
    assert_eq!(reports(&nic), 6);
    write(&mut function, EXPRESS + 8, &0u16.to_le_bytes());
    assert_eq!(reports(&nic), 6);
    nic.with(|state| state.config[usize::from(EXPRESS) + 8] = 0x10);
    function.reset();
    assert_eq!(reports(&nic), 6);
}

#[test]
fn a_card_that_does_not_reset_is_not_opened_and_nothing_is_written_to_it() {
    let nic = FakeNic::new();
    nic.with(|state| state.reset_errors = vec![libc::EIO]);
    let recorder = Recorder::default();
    let slots: Arc<dyn MemorySlots> = Arc::new(nic.clone());
    let result = VfioFunction::new(nic.boxed(), address(), &recorder, slots);
    assert!(matches!(result, Err(FunctionError::Reset(ResetError::Failed { .. }))));
    assert_eq!(nic.events(), [Event::FunctionReset]);
}

#[test]
fn bus_mastering_follows_the_guest_while_memory_and_intx_disable_stay_on() {
    let nic = FakeNic::new();
    let (mut function, _) = open(&nic);
    nic.events();
    write(&mut function, 4, &0x0004u16.to_le_bytes());
    write(&mut function, 4, &0x0000u16.to_le_bytes());
    let expected = [Event::ConfigWrite(4, MASTER.to_vec()), Event::ConfigWrite(4, QUIET.to_vec())];
    assert_eq!(nic.events(), expected);
}

#[test]
fn bars_are_memory_of_the_guest_less_the_pages_of_the_msix_table() {
    let nic = FakeNic::new();
    let (function, _) = running(&nic);
    let mut shown: Vec<_> = nic.with(|state| state.slots.values().copied().collect());
    shown.sort_unstable();
    let expected = [
        (0xc000_0000, 0x2_0000),
        (0xc002_0000, 0x2_0000),
        (0xc004_1000, 0x1000),
        (0xc004_3000, 0x1000),
    ];
    assert_eq!(shown, expected);
    drop(function);
    assert!(nic.with(|state| state.slots.is_empty()));
}

#[test]
fn a_bar_that_moves_is_taken_from_the_old_place_and_shown_at_the_new() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    write(&mut function, 0x10, &0xd000_0000u32.to_le_bytes());
    assert_eq!(nic.events(), [Event::SlotUnmapped, Event::SlotMapped(0xd000_0000, 0x2_0000)]);
    write(&mut function, 4, &0x0404u16.to_le_bytes());
    assert_eq!(nic.events(), vec![Event::SlotUnmapped; 4]);
}

#[test]
fn a_bar_laid_over_another_stays_trapped_and_works() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    write(&mut function, 0x14, &0xc000_0000u32.to_le_bytes());
    assert_eq!(nic.events(), [Event::SlotUnmapped]);
    let mut data = [0; 4];
    function.bar_read(bar(1), 8, &mut data);
    assert_eq!(data, [0x5a; 4]);
    function.bar_write(bar(1), 8, &[1, 2, 3, 4]);
    assert_eq!(nic.events(), [Event::BarWrite(1, 8, vec![1, 2, 3, 4])]);
}

#[test]
fn only_vectors_the_guest_unmasks_are_tied_in_the_hardware() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    assert_eq!(nic.events(), [Event::On(Irq::Msix, 0, vec![false])], "on, with nothing tied");
    unmask(&mut function, 1);
    let expected = [Event::Off(Irq::Msix), Event::On(Irq::Msix, 0, vec![false, true])];
    assert_eq!(nic.events(), expected);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    assert_eq!(recorder.live(FIRST_MSIX + 1), Some(message));
    assert!(!nic.raise(Irq::Msix, 0));
    assert!(nic.raise(Irq::Msix, 1));
    assert!(recorder.take(FIRST_MSIX + 1));
    unmask(&mut function, 0);
    assert_eq!(nic.events(), [Event::On(Irq::Msix, 0, vec![true])]);
}

#[test]
fn adding_vectors_where_the_kernel_cannot_signals_those_in_use_so_that_no_event_is_lost() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    recorder.take(FIRST_MSIX);
    nic.events();
    unmask(&mut function, 2);
    let expected = [Event::Off(Irq::Msix), Event::On(Irq::Msix, 0, vec![true, false, true, false])];
    assert_eq!(nic.events(), expected);
    assert!(recorder.take(FIRST_MSIX));
    assert!(!recorder.waiting(FIRST_MSIX + 2), "a new vector cannot have lost anything");
    // Room was made for a fourth.
    unmask(&mut function, 3);
    assert_eq!(nic.events(), [Event::On(Irq::Msix, 3, vec![true])]);
    assert!(!recorder.waiting(FIRST_MSIX));
}

#[test]
fn adding_vectors_where_the_kernel_can_disturbs_nobody() {
    let nic = FakeNic::new();
    nic.with(|state| state.growable = true);
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.events();
    unmask(&mut function, 4);
    assert_eq!(nic.events(), [Event::On(Irq::Msix, 4, vec![true])]);
    assert!(!recorder.waiting(FIRST_MSIX));
}

#[test]
fn a_masked_vector_stays_tied_and_what_the_card_signals_waits() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.events();
    function.bar_write(bar(3), 12, &1u32.to_le_bytes());
    assert_eq!(recorder.live(FIRST_MSIX), None);
    assert!(nic.raise(Irq::Msix, 0));
    let mut pending = [0; 8];
    function.bar_read(bar(3), 0x2000, &mut pending);
    assert_eq!(pending, [1, 0, 0, 0, 0, 0, 0, 0]);
    unmask(&mut function, 0);
    assert!(recorder.live(FIRST_MSIX).is_some() && recorder.waiting(FIRST_MSIX));
    assert_eq!(nic.events(), []);
}

#[test]
fn a_guest_goes_from_msix_to_msi_and_back() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    enable_msix(&mut function, false);
    write(&mut function, MSI + 4, &0xfee0_0000u32.to_le_bytes());
    write(&mut function, MSI + 12, &0x55u16.to_le_bytes());
    nic.events();
    write(&mut function, MSI + 2, &1u16.to_le_bytes());
    assert_eq!(nic.events(), [Event::On(Irq::Msi, 0, vec![true])]);
    assert_eq!(recorder.live(0), Some(MsiMessage { address: 0xfee0_0000, data: 0x55 }));
    assert!(nic.raise(Irq::Msi, 0) && recorder.take(0));
    write(&mut function, MSI + 2, &0u16.to_le_bytes());
    enable_msix(&mut function, true);
    let expected = [Event::Off(Irq::Msi), Event::On(Irq::Msix, 0, vec![true])];
    assert_eq!(nic.events(), expected);
    assert_eq!(recorder.live(0), None);
}

#[test]
fn msix_that_is_turned_off_is_off_in_the_hardware() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.events();
    enable_msix(&mut function, false);
    assert_eq!(nic.events(), [Event::Off(Irq::Msix)]);
    assert_eq!(recorder.live(FIRST_MSIX), None);
}

#[test]
fn the_guests_interrupt_message_never_reaches_the_hardware() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    enable_msix(&mut function, true);
    for vector in 0..VECTORS {
        unmask(&mut function, vector);
    }
    function.bar_write(bar(3), 0x2000, &[0xff; 8]);
    // Half in the table, half behind it.
    function.bar_write(bar(3), u64::from(VECTORS) * 16 - 4, &[0xff; 8]);
    assert!(!nic.events().iter().any(|event| matches!(event, Event::BarWrite(..))));
    function.bar_write(bar(3), u64::from(VECTORS) * 16, &[7; 4]);
    assert_eq!(nic.events(), [Event::BarWrite(3, 0x50, vec![7; 4])]);
}

#[test]
fn the_read_request_size_is_passed_on_and_put_back_on_reset() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    write(&mut function, EXPRESS + 8, &0x5fffu16.to_le_bytes());
    let at = EXPRESS + 8;
    assert_eq!(nic.events(), [Event::ConfigWrite(at, 0x5816u16.to_le_bytes().to_vec())]);
    function.reset();
    let last = nic.events().pop();
    assert_eq!(last, Some(Event::ConfigWrite(at, 0x2816u16.to_le_bytes().to_vec())));
    assert_eq!(read(&mut function, at), 0x2810);
}

#[test]
fn a_machine_reset_takes_interrupts_memory_and_bus_mastering_away_before_it_resets_the_card() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.events();
    let before = function.windows();
    function.reset();
    report_moves(&mut function, before);
    let mut expected = vec![Event::Off(Irq::Msix)];
    expected.extend(vec![Event::SlotUnmapped; 4]);
    expected.push(Event::ConfigWrite(4, QUIET.to_vec()));
    expected.push(Event::FunctionReset);
    expected.push(Event::ConfigWrite(4, QUIET.to_vec()));
    assert_eq!(nic.events(), expected);
    assert_eq!(recorder.live(FIRST_MSIX), None);
    assert_eq!(read(&mut function, 4) & 0xffff, 0);
    assert_eq!(read(&mut function, 0x10), 0xc000_0000, "the BARs are where firmware put them");
}

#[test]
fn a_card_that_does_not_reset_with_the_machine_is_absent_and_cut_off() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    nic.with(|state| state.reset_errors = vec![libc::EIO]);
    function.reset();
    assert!(!function.usable());
    assert_eq!(read(&mut function, 0), 0xffff_ffff);
    nic.events();
    write(&mut function, 4, &[0xff; 2]);
    assert_eq!(function.windows(), [None; BarIndex::COUNT]);
    assert_eq!(nic.events(), []);
    assert_eq!(nic.with(|state| state.config[4]) & 4, 0, "bus mastering is off");
}

#[test]
fn a_card_that_stops_answering_is_lost_to_the_guest_at_once() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.with(|state| state.config_broken = true);
    write(&mut function, 4, &0u16.to_le_bytes());
    assert!(!function.usable());
    assert!(!nic.raise(Irq::Msix, 0) && recorder.live(FIRST_MSIX).is_none());
    assert_eq!(function.windows(), [None; BarIndex::COUNT]);
    assert!(nic.with(|state| state.slots.is_empty()));
}

#[test]
fn a_used_card_is_reset_when_its_vm_ends_and_an_unused_one_is_clean_already() {
    let nic = FakeNic::new();
    let (function, _) = running(&nic);
    drop(function);
    assert!(nic.events().contains(&Event::FunctionReset));
    let (function, _) = open(&nic);
    nic.events();
    drop(function);
    assert_eq!(nic.events(), []);
}

#[test]
fn link_errors_and_the_hosts_wish_to_have_it_back_are_signalled() {
    let nic = FakeNic::new();
    let (function, _) = open(&nic);
    let notices = function.notices().unwrap();
    assert!(nic.raise(Irq::Error, 0) && nic.raise(Irq::Release, 0));
    assert!(notices.error.unwrap().read().is_ok());
    assert!(notices.release.unwrap().read().is_ok());
}
