//! Domains that start from an installed image: which one they get, when another comes into force, and what is on the record of it.

use std::fs;

use serde_json::Value;

use crate::asked::entries;
use crate::support::Ward;

const MACHINE: &str = r#"
format = 1
allow_host_network = true
stop_deadline = "2s"
[domain.clinical]
image = "desk"
disks = [{ path = "home.img" }]
[domain.internet]
kernel = "vmlinuz"
"#;

/// A ward PC of [`MACHINE`], with the disk that its domain has besides its image.
fn ward() -> Ward {
    let ward = Ward::new(MACHINE);
    fs::create_dir_all(ward.at("images")).unwrap();
    fs::write(ward.at("images/home.img"), vec![0; 4096]).unwrap();
    ward
}

fn done(ward: &Ward, words: &[&str]) -> String {
    let output = ward.bulkhead(words);
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    said
}

/// Runs `bulkhead images` on this ward's store, by the trust store of an office.
fn bulkhead_images(ward: &Ward, words: &[&str]) -> String {
    let at = |name: &str| ward.at(name).display().to_string();
    let pc = [
        "--images",
        &at("images"),
        "--machine",
        &at("office/machine.toml"),
        "--state",
        &at("office"),
    ];
    done(ward, &[&["images"], words, &pc].concat())
}

/// Installs an image with this serial.
fn install(ward: &Ward, serial: &str) {
    install_with(ward, serial, &[]);
}

/// Installs one with more to say.
fn install_with(ward: &Ward, serial: &str, more: &[&str]) {
    let at = |name: &str| ward.at(name).display().to_string();
    if !ward.at("office").exists() {
        fs::create_dir_all(ward.at("office")).unwrap();
        done(ward, &["policy", "keygen", &at("office/kim"), "--name", "kim", "--no-passphrase"]);
        let (store, officer) = (at("office/trust.toml"), at("office/kim.pub"));
        done(ward, &["trust", "add", &store, &officer, "--may-sign", "policy,image"]);
    }
    fs::write(ward.at("office/kernel"), images::bzimage_for_tests(serial)).unwrap();
    let bundle = at(&format!("office/{serial}.bundle"));
    let (kernel, key) = (at("office/kernel"), at("office/kim"));
    let cmdline = format!("serial={serial}");
    let words = [
        "images",
        "pack",
        &bundle,
        "--name",
        "desk",
        "--serial",
        serial,
        "--kernel",
        &kernel,
        "--disk",
        &kernel,
        "--cmdline",
        &cmdline,
        "--key",
        &key,
    ];
    done(ward, &[&words[..], more].concat());
    bulkhead_images(ward, &["install", &bundle]);
}

/// Returns what the domain's last VMM was told: command line, kernel, disks with whether they are read only.
fn told(ward: &Ward) -> (String, String, Vec<(String, bool)>) {
    // It may be writing it just now.
    let read = || serde_json::from_slice::<Value>(&fs::read(ward.at("spec-clinical")).unwrap());
    let told = std::cell::OnceCell::new();
    ward.wait("what it was told", || read().is_ok_and(|read| told.set(read).is_ok()));
    let told = told.into_inner().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let disk = |disk: &Value| (text(&disk["path"]), disk["readonly"].as_bool().unwrap());
    let disks = told["disks"].as_array().unwrap().iter().map(disk).collect();
    (text(&told["cmdline"]), text(&told["kernel"]), disks)
}

// Shows: K-5.1.1, K-5.1.4.
#[test]
fn a_domain_starts_from_its_image_and_takes_the_one_that_was_activated_at_its_next_start() {
    let ward = ward();
    install(&ward, "1");
    let agent = ward.start_agent();
    // It is there, and nobody has let it come into force.
    ward.wait("the reason", || {
        ward.domain("clinical")["problem"]
            .as_str()
            .is_some_and(|it| it.contains("bulkhead images activate desk"))
    });
    bulkhead_images(&ward, &["activate", "desk"]);
    done(&ward, &["start", "clinical"]);
    let at = |name: &str| ward.at(name).display().to_string();
    let own = (at("images/home.img"), false);
    let of = |serial: u8| {
        let disk = (at(&format!("images/desk/{serial}/disk1")), true);
        (
            format!("serial={serial}"),
            at(&format!("images/desk/{serial}/kernel")),
            vec![disk, own.clone()],
        )
    };
    assert_eq!(told(&ward), of(1));
    install(&ward, "2");
    done(&ward, &["restart", "clinical"]);
    assert_eq!(told(&ward), of(1), "arrival is not activation");
    bulkhead_images(&ward, &["activate", "desk"]);
    assert_eq!(told(&ward), of(1), "activation is not a restart");
    done(&ward, &["restart", "clinical"]);
    assert_eq!(told(&ward), of(2));
    bulkhead_images(&ward, &["rollback", "desk"]);
    done(&ward, &["restart", "clinical"]);
    assert_eq!(told(&ward), of(1));
    // One that was changed since does not start, and the other domain does not notice.
    fs::write(ward.at("images/desk/1/kernel"), "kernel X").unwrap();
    ward.bulkhead(&["restart", "clinical"]);
    ward.wait("the reason", || {
        ward.domain("clinical")["problem"]
            .as_str()
            .is_some_and(|it| it.contains("is not what was signed"))
    });
    assert_eq!(ward.domain("internet")["state"], "running");
    ward.wait("the record", || entries(&ward, "image-rolled-back").len() == 1);
    let serials = |kind: &str| -> Vec<u64> {
        entries(&ward, kind)
            .iter()
            .map(|entry| entry["detail"]["serial"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(serials("image-installed"), [1, 2]);
    assert_eq!(serials("image-activated"), [1, 2]);
    assert_eq!(serials("image-in-force"), [1, 2, 1]);
    assert_eq!(entries(&ward, "image-in-force")[0]["domain"], "clinical");
    agent.stop();
}

#[test]
fn a_new_image_whose_guest_does_not_come_up_goes_back_by_itself_and_one_that_does_stays() {
    let ward = ward();
    let health: &[&str] = &["--health", "10"];
    install_with(&ward, "1", health);
    bulkhead_images(&ward, &["activate", "desk"]);
    ward.behave("clinical", "up");
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    let record = || fs::read_to_string(ward.at("images/desk/image.json")).unwrap();
    ward.wait("the guest's word", || record().contains("\"trial\": null"));
    install_with(&ward, "2", health);
    bulkhead_images(&ward, &["activate", "desk"]);
    ward.behave("clinical", "obey");
    let restarted = ward.bulkhead(&["restart", "clinical"]);
    assert!(restarted.status.success(), "{restarted:?}");
    assert_eq!(told(&ward).0, "serial=2");
    let list = bulkhead_images(&ward, &["list"]);
    assert!(list.contains("in force, on trial in clinical"), "{list}");
    ward.wait("the image before", || told(&ward).0 == "serial=1");
    ward.wait_for_state("clinical", "running");
    ward.wait("the record", || !entries(&ward, "image-returned").is_empty());
    let entry = entries(&ward, "image-returned").pop().unwrap();
    assert_eq!((&entry["domain"], &entry["detail"]["back"]), (&"clinical".into(), &1.into()));
    assert_eq!(entry["detail"]["serial"], 2);
    let notes = ward.status()["notes"].to_string();
    assert!(
        notes.contains(
            "clinical: image desk 2 did not come up in its time, and 1 is in force again"
        ),
        "{notes}"
    );
    // Below the floor nothing comes back, and the one that does not come up stays.
    bulkhead_images(&ward, &["remove", "desk", "2"]);
    install_with(&ward, "3", &["--health", "10", "--floor", "3"]);
    bulkhead_images(&ward, &["activate", "desk"]);
    assert!(ward.bulkhead(&["restart", "clinical"]).status.success());
    ward.wait("the record", || entries(&ward, "image-returned").len() == 2);
    let entry = entries(&ward, "image-returned").pop().unwrap();
    assert!(entry["detail"]["back"].is_null());
    assert!(entry["detail"]["stays"].to_string().contains("below the floor 3"), "{entry}");
    assert_eq!(told(&ward).0, "serial=3");
    agent.stop();
}

/// Changes what is written down of the image.
fn forge(ward: &Ward, change: impl FnOnce(&mut Value)) {
    let path = ward.at("images/desk/image.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut record);
    fs::write(path, record.to_string()).unwrap();
}

#[test]
fn that_an_image_came_into_force_is_recorded_once_whenever_the_agent_is_killed() {
    let ward = ward();
    install(&ward, "1");
    bulkhead_images(&ward, &["activate", "desk"]);
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    let in_force = || entries(&ward, "image-in-force");
    ward.wait("the record", || in_force().len() == 1);
    let record = || fs::read_to_string(ward.at("images/desk/image.json")).unwrap();
    ward.wait("the note's end", || record().contains("\"outbox\": []"));
    agent.stop();
    // Killed once it was on record, before that was written down.
    let happened = |serial: u64, logged: &Value| {
        let what = serde_json::json!({"in-force": {"manifest": logged["manifest"]}});
        let (at, domain) = (&logged["at"], "clinical");
        serde_json::json!([{"at": at, "serial": serial, "domain": domain, "what": what}])
    };
    let logged = in_force()[0]["detail"].clone();
    forge(&ward, |record| record["outbox"] = happened(1, &logged));
    let agent = ward.start_agent();
    ward.wait("the note's end", || record().contains("\"outbox\": []"));
    assert_eq!(in_force().len(), 1, "{:?}", in_force());
    agent.stop();
    // Killed before it was on record.
    install(&ward, "2");
    forge(&ward, |record| {
        (record["current"], record["previous"]) = (2.into(), 1.into());
        record["outbox"] = happened(2, &logged);
    });
    for _ in 0..2 {
        let agent = ward.start_agent();
        ward.wait_for_state("clinical", "running");
        ward.wait("the note's end", || record().contains("\"outbox\": []"));
        let serials: Vec<u64> =
            in_force().iter().map(|it| it["detail"]["serial"].as_u64().unwrap()).collect();
        assert_eq!(serials, [1, 2]);
        agent.stop();
    }
    assert_eq!(in_force()[1]["domain"], "clinical");
    assert_eq!(in_force()[1]["detail"]["manifest"].as_str().unwrap().len(), 64);
}

#[test]
fn that_an_image_went_back_is_recorded_said_and_done_though_the_agent_that_gave_it_up_was_killed() {
    let ward = ward();
    let agent = ward.start_agent();
    for serial in ["1", "2"] {
        install(&ward, serial);
        bulkhead_images(&ward, &["activate", "desk"]);
        ward.bulkhead(&["restart", "clinical"]);
        ward.wait_for_state("clinical", "running");
        ward.wait("the image", || told(&ward).0 == format!("serial={serial}"));
    }
    let record = || fs::read_to_string(ward.at("images/desk/image.json")).unwrap();
    ward.wait("the record", || record().contains("\"outbox\": []"));
    agent.kill();
    // It had been given up, and nothing else was done.
    forge(&ward, |record| {
        (record["current"], record["previous"]) = (1.into(), Value::Null);
        record["outbox"] = serde_json::json!([
            {"at": "2026-11-29T12:00:00Z", "serial": 2, "domain": "clinical", "what": {"returned": {"back": 1}}}
        ]);
        record["failed"] =
            serde_json::json!({"serial": 2, "domain": "clinical", "back": {"Ok": 1}});
    });
    for _ in 0..2 {
        let agent = ward.start_agent();
        ward.wait("the image before", || told(&ward).0 == "serial=1");
        ward.wait_for_state("clinical", "running");
        ward.wait("the record", || record().contains("\"outbox\": []"));
        let returned = entries(&ward, "image-returned");
        assert_eq!(returned.len(), 1, "{returned:?}");
        assert_eq!(returned[0]["detail"]["at"], "2026-11-29T12:00:00Z");
        let notes = ward.status()["notes"].to_string();
        assert!(
            notes.contains("image desk 2 did not come up in its time, and 1 is in force"),
            "{notes}"
        );
        agent.kill();
    }
    let agent = ward.start_agent();
    agent.stop();
}

#[test]
fn what_waits_for_a_start_is_said_also_by_an_agent_that_took_the_guest_up_and_with_the_right_cause()
{
    let ward = ward();
    install(&ward, "1");
    bulkhead_images(&ward, &["activate", "desk"]);
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    let notes = || ward.status()["notes"].to_string();
    install(&ward, "2");
    bulkhead_images(&ward, &["activate", "desk"]);
    let waits = "clinical: runs image desk 1, and 2 comes with its next start";
    assert!(notes().contains(waits), "{}", notes());
    let answered = || {
        let record = fs::read(ward.at("run/clinical/vmm.json")).unwrap();
        serde_json::from_slice::<Value>(&record).unwrap()
    };
    ward.wait("the record", || answered()["answered"] == true);
    assert_eq!(answered()["image"], serde_json::json!({"image": "desk", "serial": 1}));
    agent.kill();
    let agent = ward.start_agent();
    assert!(notes().contains(waits), "{}", notes());
    assert!(!notes().contains("policy or machine file ask for something else"), "{}", notes());
    // It cannot: also the agent that did not try says why, and so does the list.
    fs::write(ward.at("images/desk/2/kernel"), "kernel X").unwrap();
    assert!(ward.bulkhead(&["restart", "clinical"]).status.success());
    let cannot = "image desk 2 was to come into force and cannot, so that 1 stays";
    ward.wait("the cause", || notes().contains(cannot));
    ward.wait("the record", || answered()["answered"] == true);
    agent.kill();
    let agent = ward.start_agent();
    assert!(notes().contains(cannot), "{}", notes());
    let list = bulkhead_images(&ward, &["list"]);
    assert!(list.contains("desk 2 could not come into force at a start of clinical"), "{list}");
    bulkhead_images(&ward, &["rollback", "desk"]);
    assert!(!notes().contains("image desk"), "{}", notes());
    agent.stop();
}

#[test]
fn a_first_image_that_cannot_start_is_taken_back_and_another_takes_its_place() {
    let ward = ward();
    install(&ward, "1");
    bulkhead_images(&ward, &["activate", "desk"]);
    fs::write(ward.at("images/desk/1/kernel"), "kernel X").unwrap();
    let agent = ward.start_agent();
    let problem = |says: &str| {
        ward.wait(says, || {
            ward.domain("clinical")["problem"].as_str().is_some_and(|it| it.contains(says))
        });
    };
    problem("is not what was signed");
    let said = bulkhead_images(&ward, &["rollback", "desk"]);
    assert!(said.contains("none is in force"), "{said}");
    problem("none of it is activated");
    ward.wait("the record", || entries(&ward, "image-rolled-back").len() == 1);
    assert!(entries(&ward, "image-rolled-back")[0]["detail"]["serial"].is_null());
    install(&ward, "2");
    bulkhead_images(&ward, &["activate", "desk"]);
    ward.bulkhead(&["start", "clinical"]);
    ward.wait_for_state("clinical", "running");
    assert_eq!(told(&ward).0, "serial=2");
    agent.stop();
}
