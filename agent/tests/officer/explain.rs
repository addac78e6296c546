//! What would happen, as the command line is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{artefacts, bulkhead, json, path};

#[test]
fn explain_decides_on_a_file_as_the_agent_would_on_a_paste() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let rules = "\n[[clipboard]]\nid = \"in\"\nfrom = \"internet\"\nto = \"clinical\"\n\
                 types = [\"text/plain\", \"image/png\"]\nmax_bytes = 20\naction = \"allow\"\n";
    fs::write(&policy, fs::read_to_string(&policy).unwrap() + rules).unwrap();
    let explain = |media_type: &str, content: &[u8]| {
        let file = path(dir.path(), "content");
        fs::write(&file, content).unwrap();
        let explained = bulkhead(&[
            "explain",
            &policy,
            "clipboard",
            "--from",
            "internet",
            "--to",
            "clinical",
            "--type",
            media_type,
            "--text-file",
            &file,
            "--json",
        ]);
        let answer = json(&explained);
        (
            explained.status.code(),
            answer["verdict"].clone(),
            answer["reason"].clone(),
            answer["cleaned"].clone(),
        )
    };
    // Twenty bytes once the line ends are what they will be.
    let (status, verdict, _, cleaned) = explain("text/plain", "a\r\n".repeat(10).as_bytes());
    assert_eq!(
        (status, verdict, cleaned),
        (Some(0), "allow".into(), "10 line ends changed".into())
    );
    let (status, verdict, reason, _) = explain("text/plain", b"caf\xe9");
    assert_eq!(
        (status, verdict, reason),
        (Some(1), "deny".into(), "it is not readable text".into())
    );
    let (status, verdict, reason, _) = explain("image/png", b"<html>");
    assert_eq!((status, verdict), (Some(1), "deny".into()));
    assert_eq!(reason, "it is not what it claims to be (image/png)");
}

#[test]
fn explain_answers_2_and_not_denied_where_the_policy_or_the_language_knows_no_such_thing() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let clipboard = |from: &str, to: &str, media_type: &str| {
        let with = ["--from", from, "--to", to, "--type", media_type, "--bytes", "10"];
        bulkhead(&[&["explain", &policy, "clipboard"][..], &with].concat())
    };
    let usb =
        |arguments: &[&str]| bulkhead(&[&["explain", &policy, "usb"][..], arguments].concat());
    let missing = path(dir.path(), "1-4");
    let reader = "08e6:3437,interfaces=0b/00/00";
    for (output, says) in [
        (clipboard("clincal", "internet", "text/plain"), "did you mean \"clinical\"?"),
        (clipboard("clinical", "lab", "text/plain"), "write one of: clinical, internet"),
        (clipboard("clinical", "internet", "text/plane"), "did you mean text/plain?"),
        (clipboard("clinical", "internet", "application/pdf"), "known are text/plain"),
        (usb(&["--device", reader, "--to", "internt"]), "did you mean \"internet\"?"),
        (
            usb(&["--device", "vender=08e6,product=3437,interfaces=0b/00/00"]),
            "did you mean `vendor=`?",
        ),
        (usb(&["--device", "08e6:3437"]), "--busid reads them"),
        (usb(&["--device", "08e6:3437,interfaces=smart-card"]), "0b/00/00"),
        (usb(&["--device", "08e6:3437,interfaces=03/01/01:keybord-or-mouse"]), "did you mean"),
        (
            usb(&["--device", "08e6:3437,interfaces=0b/00/00,port=4"]),
            "`bulkhead usb list` shows them",
        ),
        (usb(&["--device", "08e6:3437,interfaces=0b/00/00,port=1-4:1.0"]), "write \"1-4\""),
        (usb(&["--device", "08e6:3437,interfaces=0b/00/00,port="]), "\"\" is not a USB port"),
        (usb(&["--device", "08e6:3437,class=0b,interfaces=0b/00/00"]), "known are vendor"),
        (
            usb(&["--device", "08e6:3437,serial=A1,colour=red,interfaces=0b/00/00"]),
            "a device has no `colour`; known are vendor, product, serial, port, interfaces; a comma in a serial number is written %2c",
        ),
        (usb(&["--busid", "999-9"]), "no USB device is plugged in at 999-9"),
        (usb(&["--busid", "somewhere"]), "1-4.2"),
        (usb(&["--sysfs", &missing]), "no USB device is plugged in at 1-4"),
        (usb(&[]), "--device"),
    ] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(output.stdout.is_empty());
    }
    // What is known and not allowed is still denied.
    assert_eq!(clipboard("clinical", "internet", "text/plain").status.code(), Some(1));
}

#[test]
fn explain_takes_a_device_as_lsusb_usbguard_and_the_kernel_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let rule = "\n[[usb]]\nid = \"one-stick\"\nmatch = { vendor = 0x0781, product = 0x5567, serial = \"A,1\" }\n\
                to = \"clinical\"\naction = \"read-only\"\n";
    fs::write(&policy, fs::read_to_string(&policy).unwrap() + rule).unwrap();
    let decided = |arguments: &[&str]| {
        let answer = bulkhead(&[&["explain", &policy, "usb", "--json"][..], arguments].concat());
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.is_empty(), "{said}");
        json(&answer)["rule"].clone()
    };
    for device in [
        "vendor=0781,product=5567,serial=A,1,interfaces=08/06/50",
        "0781:5567,serial=A,1,interfaces=08:06:50",
        "0781:5567,interfaces={ 08:06:50 },serial=A,1",
        "vendor=0x0781,product=0x5567,interfaces=08:06:50+08/06/62,serial=A,1",
    ] {
        assert_eq!(decided(&["--device", device]), "one-stick", "{device}");
    }
    // As the kernel shows it once it is plugged in.
    let folder = dir.path().join("1-4");
    fs::create_dir(&folder).unwrap();
    let device = [18, 1, 0, 2, 0, 0, 0, 64, 0x81, 0x07, 0x67, 0x55, 0, 1, 1, 2, 3, 1];
    let configuration = [
        9, 2, 32, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, //
        7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0,
    ];
    fs::write(folder.join("descriptors"), [&device[..], &configuration].concat()).unwrap();
    for (name, text) in [
        ("busnum", "1"),
        ("devnum", "7"),
        ("idVendor", "0781"),
        ("idProduct", "5567"),
        ("serial", "A,1"),
        ("authorized", "1"),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    assert_eq!(decided(&["--sysfs", &path(dir.path(), "1-4")]), "one-stick");
    let said = bulkhead(&["explain", &policy, "usb", "--sysfs", &path(dir.path(), "1-4")]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.starts_with(
            "device    vendor=0781,product=5567,serial=A%2c1,port=1-4,interfaces=08/06/50\n"
        ),
        "{said}"
    );
}

#[test]
fn a_security_key_is_known_for_none_that_types_in_the_kernels_list_and_in_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
    let configuration =
        [9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 0, 0, 0, 7, 5, 0x81, 3, 8, 0, 10];
    let list = dir.path().join("list");
    let interface = list.join("1-5:1.0");
    fs::create_dir_all(list.join("1-5")).unwrap();
    fs::create_dir_all(interface.join("0003:1209:0042.0001")).unwrap();
    let report = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0];
    fs::write(interface.join("0003:1209:0042.0001/report_descriptor"), report).unwrap();
    fs::write(list.join("1-5/descriptors"), [&device[..], &configuration].concat()).unwrap();
    for (name, text) in [
        ("busnum", "1"),
        ("devnum", "7"),
        ("idVendor", "1209"),
        ("idProduct", "0042"),
        ("authorized", "1"),
    ] {
        fs::write(list.join("1-5").join(name), text).unwrap();
    }
    let said = |folder: &Path| {
        let folder = folder.display().to_string();
        let output = bulkhead(&["explain", &policy, "usb", "--sysfs", &folder]);
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = said(&list.join("1-5"));
    assert!(listed.contains("interfaces=03/00/00:no-keyboard"), "{listed}");
    assert_eq!(said(&interface), listed, "by its interface");
    // Below /sys/devices the interface lies in the device's folder.
    let within = list.join("1-5/1-5:1.0");
    fs::rename(&interface, &within).unwrap();
    assert_eq!(said(&list.join("1-5")), listed);
    assert_eq!(said(&within), listed, "by its interface");
}

#[test]
fn explain_ends_with_2_for_a_file_that_holds_no_policy_as_nothing_is_denied() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, missing) = (path(dir.path(), "bad.toml"), path(dir.path(), "missing.toml"));
    fs::write(&bad, "format = 1\nserail = 2\n").unwrap();
    for file in [&bad, &missing] {
        for json in [&["--json"][..], &[]] {
            let device = ["usb", "--device", "08e6:3437,interfaces=0b/00/00"];
            let output = bulkhead(&[&["explain", file][..], &device, json].concat());
            assert_eq!(output.status.code(), Some(2), "{output:?}");
        }
    }
    // What asks nothing of a device, says no to it.
    assert_eq!(bulkhead(&["check", &missing]).status.code(), Some(1));
}

#[test]
fn a_size_with_a_unit_is_refused_with_the_bytes_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let explain = |bytes: &str| {
        let with =
            ["--from", "clinical", "--to", "internet", "--type", "text/plain", "--bytes", bytes];
        bulkhead(&[&["explain", &policy, "clipboard"][..], &with].concat())
    };
    for (bytes, says) in
        [("5 MB", "write 5000000"), ("5MiB", "write 5242880"), ("five", "whole number of bytes")]
    {
        let refused = explain(bytes);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(explain("5,000,000").status.code(), Some(1), "denied, as no rule allows it");
}

#[test]
fn a_file_that_never_ends_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let with = ["--from", "internet", "--to", "clinical", "--type", "text/plain"];
    for (content, says) in [("/dev/zero", "it is a device"), ("-", "larger than 64 MiB")] {
        let explained = Command::new(artefacts::program("bulkhead"))
            .args(["policy", "explain", &policy, "clipboard"])
            .args(with)
            .args(["--text-file", content])
            .stdin(fs::File::open("/dev/zero").unwrap())
            .output()
            .unwrap();
        assert_eq!(explained.status.code(), Some(2), "{explained:?}");
        let said = String::from_utf8_lossy(&explained.stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }
}
