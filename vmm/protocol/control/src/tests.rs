use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Returns the least there can be.
fn smallest() -> VmSpec {
    VmSpec {
        kernel: "/k".into(),
        initrd: None,
        cmdline: String::new(),
        memory: "64M".parse().unwrap(),
        hugepages: false,
        cpus: 1,
        disks: Vec::new(),
        nets: Vec::new(),
        vfio: Vec::new(),
        serial: SerialSpec::Null,
        ports: Vec::new(),
        usb: Vec::new(),
        control_socket: None,
        seat_socket: None,
        stop_timeout: Duration::from_secs(10),
        exit_on_reset: false,
        sandbox: SandboxSpec::default(),
    }
}

/// Returns everything there can be.
fn full() -> VmSpec {
    VmSpec {
        initrd: Some("/i".into()),
        cmdline: "root=/dev/vda ro, a comma is a comma".to_owned(),
        hugepages: true,
        cpus: CPUS_MAX,
        disks: vec![DiskSpec { path: "/d, e".into(), readonly: true, id: Some("root".to_owned()) }],
        nets: vec![NetSpec {
            tap: "t0".to_owned(),
            mac: Some("52:54:00:12:34:56".parse().unwrap()),
        }],
        vfio: vec!["05:00.0".parse().unwrap()],
        serial: SerialSpec::File("/log".into()),
        ports: vec![PortSpec { name: "org.x.y".to_owned(), socket: "/p".into() }],
        usb: vec!["/u1".into(), "/u2".into()],
        control_socket: Some("/c".into()),
        seat_socket: Some("/s".into()),
        stop_timeout: Duration::from_secs(90),
        exit_on_reset: true,
        sandbox: SandboxSpec { enabled: true, ids: Some((64000, 64001)) },
        ..smallest()
    }
}

#[test]
fn a_specification_is_read_as_it_was_written() {
    for spec in [smallest(), full()] {
        let json = spec.to_json().unwrap();
        assert_eq!(
            VmSpec::read(json.as_slice()).unwrap(),
            spec,
            "{}",
            String::from_utf8_lossy(&json)
        );
    }
}

/// An agent of one version starts VMMs of another: these bytes are a contract.
#[test]
fn the_form_of_a_specification_does_not_change_unnoticed() {
    let json = full().to_json().unwrap();
    assert_eq!(
        String::from_utf8(json).unwrap(),
        "{\"kernel\":\"/k\",\"initrd\":\"/i\",\"cmdline\":\"root=/dev/vda ro, a comma is a comma\",\"memory\":\"64M\",\
         \"hugepages\":true,\"cpus\":16,\"disks\":[{\"path\":\"/d, e\",\"readonly\":true,\"id\":\"root\"}],\
         \"nets\":[{\"tap\":\"t0\",\"mac\":\"52:54:00:12:34:56\"}],\"vfio\":[\"0000:05:00.0\"],\
         \"serial\":{\"file\":\"/log\"},\"ports\":[{\"name\":\"org.x.y\",\"socket\":\"/p\"}],\"usb\":[\"/u1\",\"/u2\"],\
         \"control_socket\":\"/c\",\"seat_socket\":\"/s\",\"stop_timeout\":\"90s\",\"exit_on_reset\":true,\
         \"sandbox\":{\"enabled\":true,\"ids\":[64000,64001]}}"
    );
}

#[test]
fn what_no_guest_can_have_is_refused_in_words() {
    let disk = |id: &str| DiskSpec { path: "/d".into(), readonly: false, id: Some(id.to_owned()) };
    let port = |name: &str, socket: &str| PortSpec { name: name.to_owned(), socket: socket.into() };
    let net = |tap: &str| NetSpec { tap: tap.to_owned(), mac: None };
    for (spec, says) in [
        (VmSpec { cpus: 0, ..smallest() }, "1 to 16"),
        (VmSpec { cpus: 17, ..smallest() }, "1 to 16"),
        (VmSpec { cmdline: "x".repeat(CMDLINE_MAX + 1), ..smallest() }, "at most 2047"),
        (VmSpec { disks: vec![disk(""); 1], ..smallest() }, "1 to 20 ASCII"),
        (VmSpec { disks: vec![disk("aaaaaaaaaaaaaaaaaaaaa")], ..smallest() }, "1 to 20 ASCII"),
        (VmSpec { disks: vec![disk("d"); DISKS_MAX + 1], ..smallest() }, "`disks` has 17"),
        (VmSpec { nets: vec![net("averyverylongname")], ..smallest() }, "network interface"),
        (VmSpec { nets: vec![net("a/b")], ..smallest() }, "network interface"),
        (VmSpec { nets: vec![net("..")], ..smallest() }, "network interface"),
        (VmSpec { ports: vec![port("a/b", "/s")], ..smallest() }, "not a port name"),
        (VmSpec { ports: vec![port("a", "/s"), port("a", "/t")], ..smallest() }, "named twice"),
        (VmSpec { ports: vec![port("a", "/s")], usb: vec!["/s".into()], ..smallest() }, "its own"),
        (VmSpec { usb: vec!["/u".into(); USB_MAX + 1], ..smallest() }, "`usb` has 9"),
        (VmSpec { kernel: "".into(), ..smallest() }, "empty path"),
        (VmSpec { seat_socket: Some("".into()), ..smallest() }, "empty path"),
    ] {
        let error = VmSpec::read(spec.to_json().unwrap().as_slice()).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    let unknown =
        br#"{"kernel":"/k","cmdline":"","memory":"1G","cpus":1,"stop_timeout":"1s","fly":1}"#;
    assert!(VmSpec::read(&unknown[..]).unwrap_err().to_string().contains("`fly`"));
    let endless = io::repeat(b' ');
    assert!(matches!(VmSpec::read(endless), Err(SpecError::TooLong)));
}

proptest! {
    #[test]
    fn whatever_is_read_is_within_the_limits(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(VmSpec::read(text.as_slice()).is_err());
    }

    #[test]
    fn a_changed_specification_is_refused_or_within_the_limits(at in 0..600_usize, byte in any::<u8>()) {
        let mut json = full().to_json().unwrap();
        let at = at % json.len();
        json[at] = byte;
        if let Ok(spec) = VmSpec::read(json.as_slice()) {
            prop_assert!(spec.check().is_ok());
        }
    }
}
