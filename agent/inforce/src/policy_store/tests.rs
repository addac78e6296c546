//! What comes into force, and what stays.

mod trust;

use std::fs;

use policy::SERIAL_MAX;
use policy::signature::SecretKey;
use zeroize::Zeroizing;

use super::*;

struct Pc {
    dir: tempfile::TempDir,
    store: PolicyStore,
}

fn policy(serial: u64, note: &str) -> String {
    let text = policy_tools::STARTER.replace("serial = 1", &format!("serial = {serial}"));
    assert!(text.contains(&format!("serial = {serial}")));
    format!("{text}\n# {note}\n")
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([number; 32]))
}

fn signed(text: &str, keys: &[u8]) -> Option<String> {
    let mut signatures = Signatures::<PolicyText>::default();
    keys.iter().for_each(|number| signatures.sign(text, &key(*number)));
    Some(signatures.text())
}

impl Pc {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, machine) = (dir.path().join("policy.toml"), dir.path().join("machine.toml"));
        let store = PolicyStore::new(&file, &machine, Some(dir.path()));
        Self { dir, store }
    }

    fn trusting(threshold: usize) -> Self {
        let this = Self::new();
        let mut text = format!("format = 1\nthreshold = {threshold}\n");
        for number in 0..2 {
            text += &format!(
                "[[officer]]\nname = \"officer {number}\"\nkey = \"{}\"\n",
                key(number).public()
            );
        }
        fs::write(this.dir.path().join("trust.toml"), text).unwrap();
        this
    }

    fn lay(&self, text: &str, signatures: Option<String>) {
        fs::write(self.store.file(), text).unwrap();
        match signatures {
            Some(signatures) => {
                fs::write(signature_file(self.store.file()), signatures).unwrap();
            }
            None => durable::remove(&signature_file(self.store.file())).unwrap(),
        }
    }

    /// Reads the policy as the agent does at its start.
    fn start(&self) -> Result<InForce, FilesError> {
        let mut in_force = self.store.load()?;
        self.store.remember(&mut in_force.unsaved).unwrap();
        assert!(in_force.unsaved.is_empty());
        Ok(in_force)
    }

    fn apply(&self, text: &str, signatures: Option<String>) -> Result<InForce, Refusal> {
        let (trust, candidate) = self.store.consider(text.to_owned(), signatures);
        if let Some(trust) = trust {
            self.store.remember_trust(&trust).unwrap();
        }
        let candidate = candidate?;
        self.store.commit(monitor::testing::permit(candidate, 1))
    }
}

#[test]
fn a_pc_without_a_trust_store_takes_a_policy_unsigned_and_says_so() {
    let pc = Pc::new();
    pc.lay(&policy(1, "a"), None);
    let in_force = pc.start().unwrap();
    assert!(in_force.signers.is_empty() && in_force.refused.is_none());
    pc.lay(&policy(2, "b"), None);
    assert!(pc.start().unwrap().refused.is_none());
}

#[test]
fn two_policies_never_have_one_serial_whether_they_are_signed_or_not() {
    for trusting in [false, true] {
        let pc = if trusting { Pc::trusting(1) } else { Pc::new() };
        let laid = |text: &str| pc.lay(text, trusting.then(|| signed(text, &[0])).flatten());
        let (first, other) = (policy(3, "a"), policy(3, "b"));
        laid(&first);
        pc.start().unwrap();
        laid(&other);
        let why = pc.start().unwrap().refused.unwrap();
        assert!(why.contains("give this one a serial above 3"), "{why}");
        assert_eq!(why.contains("have it signed"), trusting, "{why}");
        let refused = pc.apply(&other, signed(&other, &[0]));
        assert!(matches!(refused, Err(Refusal::SerialTaken { serial: 3, .. })), "{refused:?}");
        // The same text is no other policy, whoever signs it once more.
        laid(&first);
        assert_eq!(pc.start().unwrap().refused, None);
        let again = pc.apply(&first, signed(&first, &[0, 1])).unwrap();
        assert_eq!((again.policy.serial(), again.signers.len()), (3, if trusting { 2 } else { 0 }));
    }
}

// Shows: K-5.1.3.
#[test]
fn a_policy_needs_as_many_officers_as_the_trust_store_says() {
    let pc = Pc::trusting(2);
    let text = policy(1, "a");
    pc.lay(&text, signed(&text, &[0]));
    let error = pc.start().unwrap_err();
    assert!(explain(&error).contains("only officer 0 did"), "{}", explain(&error));
    pc.lay(&text, signed(&text, &[0, 1]));
    assert_eq!(pc.start().unwrap().signers, ["officer 0", "officer 1"]);
}

// Shows: K-5.1.4, K-5.2.1, K-5.2.3, I-3.
#[test]
fn a_refused_or_missing_file_leaves_the_last_good_policy_in_force_and_says_why() {
    let pc = Pc::trusting(1);
    let first = policy(5, "a");
    pc.lay(&first, signed(&first, &[0]));
    assert_eq!(pc.start().unwrap().policy.serial(), 5);
    let unsigned = policy(6, "b");
    let old = policy(4, "c");
    let same = policy(5, "d");
    let changed = first.replace("INTERNET", "OUTSIDE");
    assert_ne!(changed, first);
    for (text, signatures, says) in [
        (unsigned.as_str(), None, "no signature holds"),
        (&unsigned, signed("another text", &[0]), "changed after officer 0 signed it"),
        (&unsigned, signed(&unsigned, &[9]), "not in the trust store"),
        (&changed, signed(&first, &[0]), "changed after officer 0 signed it"),
        (&old, signed(&old, &[0]), "serial above 5"),
        (&same, signed(&same, &[0]), "a serial above 5 and have it signed"),
        ("format = 1\n", signed("format = 1\n", &[0]), "serial"),
        (&unsigned, Some("nonsense".to_owned()), "signatures cannot be read"),
    ] {
        pc.lay(text, signatures);
        let in_force = pc.start().unwrap();
        assert_eq!(in_force.policy.serial(), 5);
        let why = in_force.refused.unwrap();
        assert!(why.contains(says), "{why} does not say {says}");
    }
    fs::remove_file(pc.store.file()).unwrap();
    assert!(pc.start().unwrap().refused.unwrap().contains("policy.toml"));
}

#[test]
fn a_broken_trust_store_approves_nothing_new() {
    let pc = Pc::trusting(1);
    let (first, second) = (policy(1, "a"), policy(2, "b"));
    pc.lay(&first, signed(&first, &[0]));
    pc.start().unwrap();
    fs::write(pc.dir.path().join("trust.toml"), "format = 1\nthreshold = 0\n").unwrap();
    pc.lay(&second, signed(&second, &[0]));
    let in_force = pc.start().unwrap();
    assert_eq!(in_force.policy.serial(), 1);
    assert!(in_force.refused.unwrap().contains("trust store"));
}

#[test]
fn what_is_applied_survives_a_restart_and_what_is_refused_changes_nothing() {
    let pc = Pc::trusting(1);
    let (first, second, third) = (policy(1, "a"), policy(2, "b"), policy(3, "c"));
    pc.lay(&first, signed(&first, &[0]));
    pc.start().unwrap();
    pc.apply(&second, signed(&second, &[1])).unwrap();
    assert_eq!(fs::read_to_string(pc.store.file()).unwrap(), second);
    let in_force = pc.start().unwrap();
    assert_eq!(
        (in_force.policy.serial(), in_force.signers.as_slice()),
        (2, &["officer 1".to_owned()][..])
    );
    assert!(matches!(pc.apply(&third, signed(&second, &[0])), Err(Refusal::NotApproved(_))));
    assert!(matches!(pc.apply(&first, signed(&first, &[0])), Err(Refusal::Older { .. })));
    assert_eq!(fs::read_to_string(pc.store.file()).unwrap(), second);
    assert_eq!(pc.start().unwrap().policy.serial(), 2);
}

// Shows: K-5.1.3.
#[test]
fn what_nobody_trusted_signed_is_not_even_read() {
    let pc = Pc::trusting(1);
    let nonsense = "[".repeat(1000);
    for signatures in [None, signed("another text", &[0]), signed(&nonsense, &[9])] {
        let refused = pc.store.consider(nonsense.clone(), signatures).1;
        assert!(matches!(refused, Err(Refusal::NotApproved(_))), "{refused:?}");
    }
    let refused = pc.store.consider(nonsense.clone(), signed(&nonsense, &[0])).1;
    assert!(matches!(refused, Err(Refusal::Mistakes(_))), "{refused:?}");
}

#[test]
fn a_policy_that_could_not_be_read_back_is_refused() {
    let pc = Pc::new();
    let text = policy(1, &"#".repeat(4 << 20));
    assert!(matches!(pc.apply(&text, None), Err(Refusal::TooLarge)));
    assert!(!pc.store.file().exists());
}

#[test]
fn a_roll_out_that_cannot_be_written_leaves_what_was_in_force() {
    let pc = Pc::trusting(1);
    let (first, second) = (policy(1, "a"), policy(2, "b"));
    pc.lay(&first, signed(&first, &[0]));
    pc.start().unwrap();
    // A directory stands where the new file is to be made.
    fs::create_dir(pc.dir.path().join("policy.toml.new")).unwrap();
    assert!(matches!(pc.apply(&second, signed(&second, &[0])), Err(Refusal::Write { .. })));
    fs::write(signature_file(pc.store.file()), signed(&first, &[0]).unwrap()).unwrap();
    let in_force = pc.start().unwrap();
    assert_eq!((in_force.policy.serial(), in_force.refused), (1, None));
}

#[test]
fn a_first_roll_out_that_cannot_be_written_is_not_remembered() {
    for blocked in ["policy.toml.new", "policy.toml.sig.new"] {
        let pc = Pc::trusting(1);
        let (refused, other) = (policy(7, "a"), policy(2, "b"));
        // A directory stands where the new file is to be made.
        fs::create_dir(pc.dir.path().join(blocked)).unwrap();
        assert!(matches!(pc.apply(&refused, signed(&refused, &[0])), Err(Refusal::Write { .. })));
        assert!(!pc.dir.path().join("policy.json").exists(), "{blocked}");
        pc.lay(&other, signed(&other, &[0]));
        let in_force = pc.start().unwrap();
        assert_eq!((in_force.policy.serial(), in_force.refused), (2, None));
    }
}

#[test]
fn a_pc_with_the_highest_serial_says_the_way_out_and_that_way_leads_out() {
    let pc = Pc::trusting(1);
    let (last, corrected) = (policy(SERIAL_MAX, "a"), policy(2, "b"));
    pc.lay(&last, signed(&last, &[0]));
    assert_eq!(pc.start().unwrap().policy.serial(), SERIAL_MAX);
    let remembered = pc.dir.path().join("policy.json");
    let way = format!(
        "no serial is above it: stop the agent, remove {}, put the corrected policy and its signatures in place, and start it",
        remembered.display()
    );
    for text in [&corrected, &policy(SERIAL_MAX, "c")] {
        let refusal = pc.apply(text, signed(text, &[0])).unwrap_err().to_string();
        assert!(refusal.ends_with(&way), "{refusal}");
        pc.lay(text, signed(text, &[0]));
        let in_force = pc.start().unwrap();
        assert_eq!(in_force.policy.serial(), SERIAL_MAX);
        assert!(in_force.refused.unwrap().ends_with(&way));
    }
    fs::remove_file(remembered).unwrap();
    pc.lay(&corrected, signed(&corrected, &[0]));
    let in_force = pc.start().unwrap();
    assert_eq!((in_force.policy.serial(), in_force.refused), (2, None));
    let next = policy(3, "d");
    assert!(pc.apply(&next, signed(&next, &[0])).is_ok());
}

// Shows: K-5.2.3.
#[test]
fn power_lost_anywhere_in_a_roll_out_leaves_the_old_or_the_new_policy() {
    // The three writes of a roll-out, in order; the power goes after each.
    let (first, second) = (policy(1, "a"), policy(2, "b"));
    for done in 0..=3 {
        let pc = Pc::trusting(1);
        pc.lay(&first, signed(&first, &[0]));
        pc.start().unwrap();
        let after = Pc::trusting(1);
        after.lay(&first, signed(&first, &[0]));
        after.start().unwrap();
        after.apply(&second, signed(&second, &[0])).unwrap();
        for name in ["policy.json", "policy.toml.sig", "policy.toml"].iter().take(done) {
            fs::copy(after.dir.path().join(name), pc.dir.path().join(name)).unwrap();
        }
        let in_force = pc.start().unwrap();
        assert_eq!(in_force.policy.serial(), if done == 0 { 1 } else { 2 }, "after {done} writes");
    }
}
