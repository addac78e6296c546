use super::*;
use crate::testing::{Event, FakeNic, address};

fn run(nic: &FakeNic) -> Result<(), ResetError> {
    reset(nic, address())
}

#[test]
fn a_function_that_resets_alone_is_reset_alone() {
    let nic = FakeNic::new();
    run(&nic).unwrap();
    assert_eq!(nic.events(), [Event::FunctionReset]);
}

#[test]
fn a_failed_function_reset_is_an_error_and_no_other_way_is_tried() {
    let nic = FakeNic::new();
    nic.with(|state| state.reset_errors = vec![libc::ENOTTY]);
    let text = run(&nic).unwrap_err().to_string();
    assert!(text.contains("0000:00:05.0 did not reset") && text.contains("off and on"), "{text}");
    assert_eq!(nic.events(), [Event::FunctionReset]);
}

#[test]
fn a_function_that_is_locked_for_a_moment_is_tried_again() {
    let nic = FakeNic::new();
    nic.with(|state| state.reset_errors = vec![libc::EAGAIN; 2]);
    run(&nic).unwrap();
    assert_eq!(nic.events(), vec![Event::FunctionReset; 3]);
}

#[test]
fn a_function_that_stays_locked_is_refused_after_a_while() {
    let nic = FakeNic::new();
    nic.with(|state| state.reset_errors = vec![libc::EAGAIN; 1000]);
    assert!(matches!(run(&nic), Err(ResetError::Failed { .. })));
    assert_eq!(nic.events().len(), ATTEMPTS as usize);
}

#[test]
fn without_function_reset_the_bus_is_reset_if_nothing_else_is_on_it() {
    let nic = FakeNic::new();
    nic.with(|state| state.function_reset = false);
    run(&nic).unwrap();
    assert_eq!(nic.events(), [Event::BusReset]);
}

#[test]
fn a_bus_reset_that_would_hit_a_neighbour_is_refused_and_the_neighbour_named() {
    let nic = FakeNic::new();
    nic.with(|state| {
        state.function_reset = false;
        state.bus_scope = Ok(vec![address(), "0000:00:05.1".parse().unwrap()]);
    });
    let text = run(&nic).unwrap_err().to_string();
    assert!(text.contains("together with 0000:00:05.1") && text.contains("FLR"), "{text}");
    assert_eq!(nic.events(), []);
}

#[test]
fn a_function_without_any_reset_is_refused() {
    let nic = FakeNic::new();
    nic.with(|state| {
        state.function_reset = false;
        state.bus_scope = Err(io::ErrorKind::NotFound.into());
    });
    let text = run(&nic).unwrap_err().to_string();
    assert!(text.contains("no way to be reset") && text.contains("FLR"), "{text}");
    assert_eq!(nic.events(), []);
}
