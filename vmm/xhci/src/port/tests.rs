//! What a guest sees of one port.

use super::*;

fn port(fast: bool) -> Port {
    Port::new(PortId(1), fast)
}

fn link_of(port: &Port) -> u32 {
    port.read(0) >> portsc::PLS_SHIFT & 0xf
}

#[test]
fn a_usb_2_device_is_usable_only_after_a_reset() {
    let mut port = port(false);
    port.attach(Speed::High);
    assert_eq!(port.read(0) & (portsc::CCS | portsc::PED), portsc::CCS);
    assert_eq!(link_of(&port), link::POLLING);
    assert_eq!(port.enabled_generation(), None);

    assert_eq!(port.write(0, portsc::PR), Effect::Reset);
    assert_eq!(port.read(0) & (portsc::PED | portsc::PR | portsc::PRC), portsc::PED | portsc::PRC);
    assert_eq!(link_of(&port), link::U0);
    assert!(port.enabled_generation().is_some());
}

#[test]
fn a_usb_3_device_is_usable_at_once() {
    let mut port = port(true);
    port.attach(Speed::Super);
    assert_ne!(port.read(0) & portsc::PED, 0);
    assert_eq!(port.read(0) >> portsc::SPEED_SHIFT & 0xf, 4);
    assert_eq!(link_of(&port), link::U0);
}

#[test]
fn a_change_stays_until_a_one_is_written_to_it() {
    let mut port = port(false);
    port.attach(Speed::Full);
    port.write(0, portsc::PP);
    assert_ne!(port.read(0) & portsc::CSC, 0);
    port.write(0, portsc::PP | portsc::CSC);
    assert_eq!(port.read(0) & portsc::CHANGES, 0);
}

#[test]
fn a_reset_of_an_empty_port_does_nothing() {
    for fast in [false, true] {
        let mut port = port(fast);
        assert_eq!(port.write(0, portsc::PR | portsc::WPR), Effect::None);
        assert_eq!(port.read(0) & portsc::CHANGES, 0);
        assert!(!port.changed);
    }
}

#[test]
fn an_unplugged_device_leaves_nothing_but_the_change() {
    let mut port = port(false);
    let empty = port.read(0);
    port.attach(Speed::Low);
    port.write(0, portsc::PR);
    port.detach();
    assert_eq!(port.read(0) & !portsc::CHANGES, empty);
    assert_ne!(port.read(0) & portsc::CSC, 0);
}

#[test]
fn a_suspended_link_resumes_and_says_so() {
    let mut port = port(false);
    port.attach(Speed::High);
    port.write(0, portsc::PR);
    port.write(0, portsc::LWS | link::U3 << portsc::PLS_SHIFT);
    assert_eq!(link_of(&port), link::U3);
    port.write(0, portsc::LWS | link::RESUME << portsc::PLS_SHIFT);
    assert_eq!(link_of(&port), link::RESUME);
    port.write(0, portsc::LWS | link::U0 << portsc::PLS_SHIFT);
    assert_eq!(link_of(&port), link::U0);
    assert_ne!(port.read(0) & portsc::PLC, 0);
}

#[test]
fn a_disabled_usb_3_port_connects_again_when_told_to_look() {
    let mut port = port(true);
    port.attach(Speed::Super);
    port.write(0, portsc::CHANGES);
    port.write(0, portsc::LWS | link::DISABLED << portsc::PLS_SHIFT);
    assert_eq!(port.read(0) & (portsc::CCS | portsc::PED), 0);
    port.write(0, portsc::LWS | link::RX_DETECT << portsc::PLS_SHIFT);
    assert_ne!(port.read(0) & portsc::CSC, 0);
    assert!(port.enabled_generation().is_some());
}

#[test]
fn the_next_device_is_not_taken_for_the_last() {
    let mut port = port(true);
    port.attach(Speed::Super);
    let first = port.enabled_generation();
    port.detach();
    assert_eq!(port.enabled_generation(), None);
    port.attach(Speed::Super);
    assert_ne!(port.enabled_generation(), first);
}
