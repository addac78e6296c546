//! Updates that something is in the way of: the store, another update, dpkg, the way back.

use super::*;

#[test]
fn what_lies_in_the_store_is_verified_again_before_dpkg_sees_it() {
    // Damaged; another bundle in its place; officers who may no more.
    for how in 0..3 {
        let mut ward = Ward::with_a_way_back();
        ward.offer(2, 1, "2.0", false).unwrap();
        let kept = ward.store.folder().join("2.bundle");
        match how {
            0 => {
                let mut bytes = fs::read(&kept).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&kept, bytes).unwrap();
            }
            1 => drop(fs::copy(ward.bundle(2, 1, "6.6"), &kept).unwrap()),
            _ => {
                // Kim and Lee were withdrawn.
                let text = "format = 2\nserial = 2\n[threshold]\npolicy = 1\n[[officer]]\nname = \"park\"\nkey = \"";
                let text = format!("{text}{}\"\nmay_sign = [\"policy\"]\n", key(3).public());
                ward.pc.trust = TrustStore::parse("trust.toml", &text).unwrap();
            }
        }
        assert_eq!(ended(ward.run()), (2, Outcome::Refused), "{how}");
        assert_eq!((ward.pc.has.as_deref(), ward.in_force()), (Some("1.0"), Some(1)));
        assert!(ward.noted().contains("\"refused\""));
    }
}

#[test]
fn a_second_update_waits_its_turn_and_one_that_nobody_began_gives_way() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.offer(3, 1, "3.0", false).unwrap();
    ward.pc.power = Some(7);
    catch_unwind(AssertUnwindSafe(|| ward.run())).unwrap_err();
    assert_eq!(ward.record().pending.unwrap().stage, Stage::Installing);
    ward.pc.has = Some("1.0".to_owned());
    let refused = ward.offer(4, 1, "4.0", false).unwrap_err();
    assert!(refused.to_string().contains("3.0 (serial 3) is under way"), "{refused}");
    ward.pc.power = None;
    assert_eq!(ended(ward.run()), (3, Outcome::InForce));
}

#[test]
fn a_record_of_a_newer_bulkhead_or_one_that_is_damaged_is_named_and_left_alone() {
    let mut ward = Ward::with_a_way_back();
    let file = ward.store.folder().join("record.json");
    for (text, says) in [
        ("{\"format\": 2, \"more\": 1}", "by a newer Bulkhead"),
        ("{\"format\": 1}", "cannot be used"),
        ("{", "cannot be used"),
    ] {
        fs::write(&file, text).unwrap();
        let error = explain(&run(&ward.store, &mut ward.pc).unwrap_err());
        assert!(error.contains(says), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn an_update_waits_while_somebody_else_is_at_work_with_dpkg() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.dpkg_is_busy = true;
    let why = run(&ward.store, &mut ward.pc).unwrap_err().to_string();
    assert!(why.contains("somebody else") && why.contains("waits"), "{why}");
    let record = ward.record();
    assert_eq!(record.pending.map(|pending| pending.stage), Some(Stage::Waiting));
    assert_eq!(ward.pc.has.as_deref(), Some("1.0"));
    ward.pc.dpkg_is_busy = false;
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
}

#[test]
fn no_update_begins_whose_way_back_cannot_be_used() {
    let mut ward = Ward::with_a_way_back();
    let kept = ward.store.folder().join("1.bundle");
    let whole = fs::read(&kept).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let offer = |ward: &Ward| {
        let approved = ward.approved(2, 1, "2.0");
        let has = InstalledPackage {
            version: "1.0".parse().unwrap(),
            offered_is_older: false,
            offered_is_this: false,
        };
        let wish = crate::install::InstallRequest { uid: 0, no_way_back: false };
        crate::install::take(&ward.store, &approved, &ward.pc.trust, &has, wish)
    };
    fs::write(&kept, &damaged).unwrap();
    let why = offer(&ward).unwrap_err().to_string();
    assert!(why.contains("serial 1"), "{why}");
    // And if it is damaged while the update waits.
    fs::write(&kept, &whole).unwrap();
    offer(&ward).unwrap();
    fs::write(&kept, &damaged).unwrap();
    assert_eq!(ended(ward.run()), (2, Outcome::Refused));
    assert_eq!(ward.pc.has.as_deref(), Some("1.0"));
}

#[test]
fn a_way_back_that_there_is_is_kept_also_by_who_needs_none() {
    let ward = Ward::with_a_way_back();
    assert!(matches!(ward.offer(2, 1, "2.0", true), Ok(Admission::Update { back: Some(_) })));
    let ward = Ward::new();
    assert_eq!(ward.offer(2, 1, "2.0", true), Ok(Admission::Update { back: None }));
}
