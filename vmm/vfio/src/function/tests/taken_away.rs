//! A card that the guest loses: a link error, or the host's wish to have it back.

use super::*;

/// Asserts that everything of the function that the guest could reach is gone, as if the card had been pulled out.
fn assert_absent(nic: &FakeNic, function: &mut VfioFunction, recorder: &Recorder) {
    assert!(!function.usable());
    assert_eq!(read(function, 0), 0xffff_ffff);
    let mut bytes = [0; 4];
    function.bar_read(bar(0), 0, &mut bytes);
    assert_eq!(bytes, [0xff; 4]);
    assert!(!nic.raise(Irq::Msix, 0) && recorder.live(FIRST_MSIX).is_none());
    assert!(nic.with(|state| state.slots.is_empty()), "its BARs are in the guest's memory");
    assert_eq!(nic.with(|state| state.config[4]) & 4, 0, "bus mastering is off");
    nic.events();
    write(function, 4, &0x0406u16.to_le_bytes());
    function.bar_write(bar(0), 0, &[1, 2, 3, 4]);
    assert_eq!(nic.events(), [], "nothing reaches it");
}

#[test]
fn a_link_error_takes_the_card_from_the_guest_until_its_next_reset() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    function.link_error();
    assert_absent(&nic, &mut function, &recorder);
    function.link_error();
    assert!(!function.unreset());
    function.reset();
    assert!(nic.events().contains(&Event::FunctionReset));
    assert!(function.usable(), "a reset that succeeds gives it back");
}

#[test]
fn a_card_the_host_wants_back_is_reset_and_closed_and_never_touched_again() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    function.release();
    assert!(nic.events().contains(&Event::FunctionReset));
    assert!(!nic.is_open(), "what has it open keeps it from the host");
    assert_absent(&nic, &mut function, &recorder);
    function.release();
    function.reset();
    function.link_error();
    assert!(!function.usable() && !function.unreset());
    drop(function);
    assert_eq!(nic.events(), []);
}

#[test]
fn a_card_whose_lock_the_host_keeps_is_given_back_cut_off() {
    let nic = FakeNic::new();
    let (mut function, recorder) = running(&nic);
    enable_msix(&mut function, true);
    unmask(&mut function, 0);
    nic.with(|state| state.reset_errors = vec![libc::EAGAIN; 100]);
    function.release();
    assert!(!nic.is_open(), "what has it open keeps it from the host");
    assert_absent(&nic, &mut function, &recorder);
    assert!(!function.unreset(), "nothing is wrong with the card");
}

#[test]
fn a_card_that_does_not_reset_when_it_is_given_back_is_known_to_the_end() {
    let nic = FakeNic::new();
    let (mut function, _) = running(&nic);
    nic.with(|state| state.reset_errors = vec![libc::EIO]);
    function.release();
    function.reset();
    assert!(function.unreset(), "the VMM's exit says so");
    assert!(!nic.is_open());
}
