//! Which trust store counts, and what of it is remembered.

use std::fs;

use policy::signature::TrustText;

use super::*;

/// Officers 0 and 1 change the trust store, both; those in `policy` may sign policies.
fn store(serial: u64, policy: &[u8]) -> String {
    let mut text = format!("format = 2\nserial = {serial}\n[threshold]\npolicy = 1\ntrust = 2\n");
    for number in 0..3 {
        let may: Vec<&str> = [("\"policy\"", policy.contains(&number)), ("\"trust\"", number < 2)]
            .into_iter()
            .filter_map(|(word, may)| may.then_some(word))
            .collect();
        if !may.is_empty() {
            text += &format!(
                "[[officer]]\nname = \"officer {number}\"\nkey = \"{}\"\nmay_sign = [{}]\n",
                key(number).public(),
                may.join(", ")
            );
        }
    }
    text
}

impl Pc {
    /// Lays a trust store down, with the signatures of these.
    fn lay_trust(&self, text: Option<&str>, keys: &[u8]) {
        let file = self.dir.path().join("trust.toml");
        match text {
            Some(text) => {
                let mut signatures = Signatures::<TrustText>::default();
                keys.iter().for_each(|number| signatures.sign(text, &key(*number)));
                fs::write(signature_file(&file), signatures.text()).unwrap();
                fs::write(&file, text).unwrap();
            }
            None => {
                durable::remove(&file).unwrap();
                durable::remove(&signature_file(&file)).unwrap();
            }
        }
    }

    /// Makes a PC with a policy of serial 1 and a trust store of serial 5, in which officer 0 may sign policies.
    fn pinned() -> Self {
        let pc = Self::new();
        let text = policy(1, "a");
        pc.lay_trust(Some(&store(5, &[0])), &[]);
        pc.lay(&text, signed(&text, &[0]));
        let started = pc.start().unwrap();
        let change = started.trust.changed.unwrap();
        assert_eq!((change.serial, change.signers.len(), change.officers.len()), (5, 0, 2));
        assert_eq!(pc.start().unwrap().trust, TrustReport::default(), "it is no news any more");
        pc
    }

    /// Returns whether a policy that this officer signed would come into force.
    fn takes(&self, officer: u8) -> bool {
        let text = policy(9, "z");
        self.store.consider(text.clone(), signed(&text, &[officer])).1.is_ok()
    }
}

// Shows: K-5.1.2, K-5.1.3.
#[test]
fn a_trust_store_changes_only_by_those_who_may_change_it() {
    let pc = Pc::pinned();
    let wider = store(6, &[0, 2]);
    for (text, keys, says) in [
        (Some(wider.clone()), &[0][..], "only officer 0 did"),
        (Some(wider.clone()), &[0, 2], "only officer 0 did"),
        (Some(store(4, &[0, 2])), &[0, 1], "serial above 5"),
        (Some(store(5, &[0, 2])), &[0, 1], "serial above 5"),
        (Some("format = 2\n".to_owned()), &[0, 1], "mistakes"),
        (Some("[[[".to_owned()), &[], "no signature holds"),
        // Without a trust store policies would be taken unsigned.
        (None, &[], "is not there"),
    ] {
        pc.lay_trust(text.as_deref(), keys);
        assert!(pc.takes(0) && !pc.takes(2), "{says}");
        let refused = pc.start().unwrap().trust.refused.unwrap();
        assert!(refused.serial == 5 && refused.why.contains(says), "{refused:?}");
        let text = policy(9, "z");
        assert!(pc.store.consider(text, None).1.is_err(), "{says}");
    }
    pc.lay_trust(Some(&wider), &[0, 1]);
    assert!(pc.takes(2));
    let change = pc.start().unwrap().trust.changed.unwrap();
    assert_eq!((change.serial, change.signers.len(), change.officers.len()), (6, 2, 3));
    assert_eq!(pc.start().unwrap().trust, TrustReport::default());
}

// Shows: K-5.1.2, K-5.1.3.
#[test]
fn an_officer_who_was_withdrawn_is_not_brought_back_by_the_store_of_before() {
    let pc = Pc::pinned();
    let (before, after) = (store(5, &[0]), store(6, &[1]));
    pc.lay_trust(Some(&after), &[0, 1]);
    // The policy in the file is by whom it may not be any more: the last good one stays, and the change counts all the same.
    let started = pc.start().unwrap();
    assert!(started.refused.unwrap().contains("officer 0 signed it and may not sign a policy"));
    assert!(!pc.takes(0) && pc.takes(1));
    for (keys, says) in [(&[][..], "no signature holds"), (&[0, 1], "serial above 6")] {
        pc.lay_trust(Some(&before), keys);
        assert!(!pc.takes(0) && pc.takes(1));
        let why = pc.start().unwrap().trust.refused.unwrap().why;
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn a_changed_trust_store_is_remembered_with_the_policy_that_it_approved() {
    let pc = Pc::pinned();
    pc.lay_trust(Some(&store(6, &[2])), &[0, 1]);
    let text = policy(2, "b");
    let in_force = pc.apply(&text, signed(&text, &[2])).unwrap();
    assert_eq!(in_force.trust.changed.unwrap().serial, 6);
    pc.lay_trust(Some(&store(5, &[0])), &[0, 1]);
    assert!(pc.takes(2) && !pc.takes(0));
}

#[test]
fn a_trust_store_that_officers_signed_counts_also_if_the_policy_that_came_with_it_is_refused() {
    let pc = Pc::pinned();
    let (before, after) = (store(5, &[0]), store(6, &[2]));
    pc.lay_trust(Some(&after), &[0, 1]);
    let text = policy(2, "b");
    // By whom may not any more; the change is found all the same.
    let (found, candidate) = pc.store.consider(text.clone(), signed(&text, &[0]));
    assert!(matches!(candidate, Err(Refusal::NotApproved(_))), "{candidate:?}");
    let found = found.unwrap();
    assert_eq!(found.report().changed.as_ref().unwrap().serial, 6);
    pc.store.remember_trust(&found).unwrap();
    pc.lay_trust(Some(&before), &[0, 1]);
    assert!(pc.takes(2) && !pc.takes(0), "the withdrawn officer is not brought back");
    // And that a store is refused, beside a policy that is.
    let (found, candidate) = pc.store.consider(text.clone(), signed(&text, &[0]));
    assert!(candidate.is_err());
    assert_eq!(found.unwrap().report().refused.as_ref().unwrap().serial, 6);
}

#[test]
fn a_trust_store_is_saved_only_when_it_is_written() {
    let pc = Pc::pinned();
    pc.lay_trust(Some(&store(6, &[0])), &[0, 1]);
    let mut started = pc.store.load().unwrap();
    assert!(!started.unsaved.trust_is_saved());
    // Where the disk takes nothing: a directory is in the way.
    let memory = pc.dir.path().join("trust.json");
    let kept = fs::read(&memory).unwrap();
    fs::remove_file(&memory).unwrap();
    fs::create_dir(&memory).unwrap();
    fs::write(memory.join("in the way"), "").unwrap();
    pc.store.remember(&mut started.unsaved).unwrap_err();
    assert!(!started.unsaved.trust_is_saved());
    fs::remove_dir_all(&memory).unwrap();
    fs::write(&memory, kept).unwrap();
    pc.store.remember(&mut started.unsaved).unwrap();
    assert!(started.unsaved.is_empty());
}

#[test]
fn a_store_whose_changes_nobody_signs_is_laid_down_as_it_always_was() {
    let pc = Pc::trusting(1);
    let text = policy(1, "a");
    pc.lay(&text, signed(&text, &[0]));
    assert_eq!(pc.start().unwrap().trust, TrustReport::default());
    assert!(!pc.dir.path().join("trust.json").exists());
    pc.lay_trust(None, &[]);
    assert!(pc.takes(9), "unsigned");
    // Signed away: from here on it is IT's again.
    let pc = Pc::pinned();
    let given_up = format!(
        "format = 2\nserial = 6\n[threshold]\npolicy = 1\n[[officer]]\nname = \"officer 0\"\nkey = \"{}\"\nmay_sign = [\"policy\"]\n",
        key(0).public()
    );
    pc.lay_trust(Some(&given_up), &[0, 1]);
    assert_eq!(pc.start().unwrap().trust.changed.unwrap().serial, 6);
    pc.lay_trust(Some(&given_up.replace("serial = 6", "serial = 2")), &[]);
    assert_eq!(pc.start().unwrap().trust, TrustReport::default());
    assert!(pc.takes(0));
}

#[test]
fn a_remembered_store_that_cannot_be_read_approves_nothing_and_stops_no_desktop() {
    for damaged in ["", "{}", "{\"text\": \"format = 2\"}"] {
        let pc = Pc::pinned();
        fs::write(pc.dir.path().join("trust.json"), damaged).unwrap();
        assert!(!pc.takes(0));
        let started = pc.start().unwrap();
        let why = started.refused.unwrap();
        assert!(started.policy.serial() == 1 && why.contains("trust.json"), "{why}");
        // The way out that it says.
        fs::remove_file(pc.dir.path().join("trust.json")).unwrap();
        assert!(pc.takes(0) && pc.start().unwrap().refused.is_none());
    }
}

#[test]
fn who_only_looks_sees_the_store_that_counts_and_remembers_nothing() {
    let pc = Pc::pinned();
    pc.lay_trust(Some(&store(6, &[0, 2])), &[0]);
    let machine = pc.dir.path().join("machine.toml");
    let looking = PolicyStore::for_looking(pc.store.file(), &machine, pc.dir.path());
    assert_eq!(looking.load().unwrap().trust.refused.unwrap().serial, 5);
    let before = fs::read(pc.dir.path().join("trust.json")).unwrap();
    pc.lay_trust(Some(&store(6, &[0, 2])), &[0, 1]);
    assert_eq!(looking.load().unwrap().trust.changed.unwrap().serial, 6);
    assert_eq!(fs::read(pc.dir.path().join("trust.json")).unwrap(), before);
}
