//! What a key may sign: one purpose never counts for another, and a trust store changes by those who may change it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

mod text;

use policy::SERIAL_MAX;
use policy::signature::{
    ImageManifest, NoSuccessor, Officer, PolicyText, ProgramManifest, Purpose, SecretKey, Signable,
    Signatures, TrustDraft, TrustStore, TrustText,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

const NAMES: [&str; 4] = ["Kim", "Lee", "Park", "Choi"];

fn key(number: u8) -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([number; 32]))
}

/// Makes an `[[officer]]` of number `number` in [`NAMES`], with the words in `may_sign`.
fn officer(number: u8, may_sign: &str) -> String {
    format!(
        "[[officer]]\nname = \"{}\"\nkey = \"{}\"\nmay_sign = [{may_sign}]\n",
        NAMES[usize::from(number)],
        key(number).public()
    )
}

fn parsed(text: &str) -> TrustStore {
    TrustStore::parse("trust.toml", text).unwrap()
}

fn refused(text: &str) -> String {
    let found = TrustStore::parse("trust.toml", text).unwrap_err();
    assert!(!found.render(false).is_empty());
    // A line for each mistake, with what to do.
    found.to_string()
}

fn signed<S: Signable>(text: &str, keys: &[u8]) -> Signatures<S> {
    let mut signatures = Signatures::default();
    keys.iter().for_each(|number| signatures.sign(text, &key(*number)));
    signatures
}

/// Returns the same signatures, said to be for something else.
fn passed_off<S: Signable, T: Signable>(signatures: &Signatures<S>) -> Signatures<T> {
    let text = signatures.text();
    let bare = text.replace(&format!("purpose = \"{}\"\n", S::PURPOSE), "");
    let said = bare.replace("format = 1\n", &format!("format = 1\npurpose = \"{}\"\n", T::PURPOSE));
    Signatures::parse("a.sig", &said).unwrap()
}

const EVERYTHING: &str = "\"policy\", \"image\", \"program\", \"trust\"";

fn everything() -> TrustStore {
    let text =
        "format = 2\nserial = 1\n[threshold]\npolicy = 1\nimage = 1\nprogram = 1\ntrust = 1\n";
    parsed(&format!("{text}{}", officer(0, EVERYTHING)))
}

// Shows: K-2.2.2.
#[test]
fn a_signature_for_one_purpose_counts_for_no_other_though_the_key_may_sign_both() {
    fn only<S: Signable, T: Signable>(store: &TrustStore) {
        let text = "format = 1\n";
        let made = signed::<S>(text, &[0]);
        assert_eq!(store.approve(text, &made).unwrap().signers(), ["Kim"]);
        let refusal = store.approve(text, &passed_off::<S, T>(&made)).unwrap_err();
        assert_eq!(
            (refusal.purpose, refusal.stale.as_slice()),
            (T::PURPOSE, &["Kim".to_owned()][..])
        );
        // Nor if the text is what the other purpose's message begins with.
        let prefix = "Bulkhead separation policy, signature format 1\0";
        let inside = format!("{prefix}{text}");
        let made = signed::<S>(&inside, &[0]);
        store.approve(text, &passed_off::<S, T>(&made)).unwrap_err();
    }
    fn with_each<S: Signable>(store: &TrustStore) {
        if S::PURPOSE != Purpose::Policy {
            only::<S, PolicyText>(store);
        }
        if S::PURPOSE != Purpose::Image {
            only::<S, ImageManifest>(store);
        }
        if S::PURPOSE != Purpose::Program {
            only::<S, ProgramManifest>(store);
        }
        if S::PURPOSE != Purpose::Trust {
            only::<S, TrustText>(store);
        }
    }
    let store = everything();
    with_each::<PolicyText>(&store);
    with_each::<ImageManifest>(&store);
    with_each::<ProgramManifest>(&store);
    with_each::<TrustText>(&store);
}

// Shows: K-2.2.2.
#[test]
fn a_key_signs_what_the_trust_store_says_and_nothing_else() {
    let store = parsed(&format!(
        "format = 2\nserial = 1\n[threshold]\npolicy = 1\nimage = 1\n{}{}",
        officer(0, "\"policy\""),
        officer(1, "\"image\"")
    ));
    assert!(store.approve("x", &signed::<PolicyText>("x", &[0])).is_ok());
    assert!(store.approve("x", &signed::<ImageManifest>("x", &[1])).is_ok());
    let refusal = store.approve("x", &signed::<PolicyText>("x", &[1])).unwrap_err();
    assert_eq!(refusal.not_theirs, ["Lee"]);
    assert_eq!(
        refusal.to_string(),
        "1 officer has to sign it, and no signature holds; Lee signed it and may not sign a policy by the trust store: \
         have it signed with `bulkhead policy sign`"
    );
    // What nobody may sign is approved with no signature and with all of them.
    for keys in [&[][..], &[0, 1]] {
        let refusal = store.approve("x", &signed::<ProgramManifest>("x", keys)).unwrap_err();
        assert_eq!((refusal.threshold, refusal.signers.len()), (None, 0));
        assert!(refusal.to_string().contains("lets nobody sign a program"), "{refusal}");
        assert!(refusal.to_string().ends_with("where somebody may sign for `trust`"), "{refusal}");
        // The remedy gives and takes away nothing else.
        for officer in store.officers() {
            let may: Vec<String> = officer.may_sign.iter().map(ToString::to_string).collect();
            let command = format!(
                "KEY.pub --may-sign {},program --replace` with the .pub file of {}",
                may.join(","),
                officer.name
            );
            assert!(refusal.to_string().contains(&command), "{command}: {refusal}");
        }
    }
}

// Shows: K-5.1.3.
#[test]
fn each_purpose_has_a_threshold_of_its_own() {
    let store = parsed(&format!(
        "format = 2\nserial = 1\n[threshold]\npolicy = 1\ntrust = 2\n{}{}",
        officer(0, "\"trust\", \"policy\""),
        officer(1, "\"policy\", \"trust\"")
    ));
    assert!(store.approve("x", &signed::<PolicyText>("x", &[1])).is_ok());
    let refusal = store.approve("x", &signed::<TrustText>("x", &[1])).unwrap_err();
    assert_eq!((refusal.threshold, refusal.signers.as_slice()), (Some(2), &["Lee".to_owned()][..]));
    assert!(refusal.to_string().ends_with("`bulkhead trust sign`"), "{refusal}");
    assert_eq!(store.approve("x", &signed::<TrustText>("x", &[1, 0])).unwrap().signers().len(), 2);
}

// Shows: K-2.2.2.
#[test]
fn an_old_trust_store_is_read_for_policies_only() {
    let old = format!(
        "format = 1\nthreshold = 1\n[[officer]]\nname = \"Kim\"\nkey = \"{}\"\n",
        key(0).public()
    );
    let store = parsed(&old);
    assert_eq!((store.serial(), store.signs_changes()), (None, false));
    assert_eq!(store.officers()[0].may_sign, [Purpose::Policy]);
    assert!(store.approve("x", &signed::<PolicyText>("x", &[0])).is_ok());
    assert!(store.approve("x", &signed::<ImageManifest>("x", &[0])).is_err());
    assert!(store.approve("x", &signed::<ProgramManifest>("x", &[0])).is_err());
    assert!(store.approve("x", &signed::<TrustText>("x", &[0])).is_err());
    assert_eq!(store.weaknesses(), []);
    // What the newer format says cannot be said in the old one.
    for (text, says) in [
        (old.replace("threshold", "serial = 3\nthreshold"), "format 1 has no `serial`"),
        (format!("{old}may_sign = [\"program\"]\n"), "format 1 has no `may_sign`"),
        (
            old.replace("threshold = 1\n", "threshold = { policy = 1 }\n"),
            "format 1 has no `[threshold]`",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(says) && found.contains("write `format = 2`"), "{found}");
    }
}

#[test]
fn a_signature_file_says_what_it_is_for_and_a_policys_is_as_it_was() {
    let policy = signed::<PolicyText>("x", &[0]).text();
    assert!(policy.starts_with(
        "# Made by `bulkhead policy sign`. Do not edit.\nformat = 1\n\n[[signature]]\n"
    ));
    let trust = signed::<TrustText>("x", &[0]).text();
    assert!(trust.contains("format = 1\npurpose = \"trust\"\n"), "{trust}");
    for (found, says) in [
        (
            Signatures::<PolicyText>::parse("a.sig", &trust).unwrap_err(),
            "these are signatures of a trust store, and a policy is",
        ),
        (
            Signatures::<ImageManifest>::parse("a.sig", &trust).unwrap_err(),
            "these are signatures of a trust store, and a guest image is",
        ),
        (Signatures::<TrustText>::parse("a.sig", &policy).unwrap_err(), "has no `purpose`"),
    ] {
        assert!(found.to_string().contains(says), "{found}");
    }
    let said = policy.replace("format = 1\n", "format = 1\npurpose = \"policy\"\n");
    assert_eq!(Signatures::parse("a.sig", &said).unwrap(), signed::<PolicyText>("x", &[0]));
}

/// Makes the store in force: Kim and Lee change the store, both; `also` may sign policies.
fn in_force(serial: u64, trusted: [u8; 2], also: Option<u8>) -> String {
    let may = "\"policy\", \"trust\"";
    format!(
        "format = 2\nserial = {serial}\n[threshold]\npolicy = 1\ntrust = 2\n{}{}{}",
        officer(trusted[0], may),
        officer(trusted[1], may),
        also.map(|number| officer(number, "\"policy\"")).unwrap_or_default()
    )
}

// Shows: K-5.1.2, K-5.1.3.
#[test]
fn a_trust_store_follows_another_if_its_officers_and_those_before_signed_it_and_its_serial_is_higher()
 {
    let now = parsed(&in_force(4, [0, 1], None));
    let follows = |text: &str, keys: &[u8]| now.succeed("next", text, &signed(text, keys));
    let next = in_force(5, [0, 1], Some(2));
    let (store, approval) = follows(&next, &[0, 1]).unwrap();
    assert_eq!((store.serial(), approval.signers().len()), (Some(5), 2));
    // By one alone, by a stranger, by one who signs policies, by nobody.
    for keys in [&[0][..], &[0, 2], &[2, 3], &[]] {
        let refused = follows(&next, keys);
        assert!(matches!(refused, Err(NoSuccessor::NotApproved(_))), "{keys:?}: {refused:?}");
    }
    // Signatures of a policy with the same text.
    let as_policy = signed::<PolicyText>(&next, &[0, 1]);
    now.succeed("next", &next, &passed_off(&as_policy)).unwrap_err();
    // Older ones, and another with the same serial.
    for serial in [1, 3, 4] {
        let old = in_force(serial, [0, 1], Some(2));
        let refused = follows(&old, &[0, 1]);
        assert!(matches!(refused, Err(NoSuccessor::Older { newest: 4, .. })), "{refused:?}");
    }
    // The old format has no serial, so that it could be any.
    let old = format!(
        "format = 1\nthreshold = 1\n[[officer]]\nname = \"Kim\"\nkey = \"{}\"\n",
        key(0).public()
    );
    assert!(matches!(follows(&old, &[0, 1]), Err(NoSuccessor::NoSerial(4))));
    // Those who are to change it from now on show that they have their keys.
    let handed_on = in_force(5, [1, 2], None);
    assert!(matches!(follows(&handed_on, &[0, 1]), Err(NoSuccessor::NotItsOwn(_))));
    assert!(follows(&handed_on, &[0, 1, 2]).is_ok());
    // None could follow the last serial; where changes are not signed, none has to.
    let last = in_force(SERIAL_MAX, [0, 1], None);
    assert!(matches!(follows(&last, &[0, 1]), Err(NoSuccessor::Last)));
    assert!(follows(&in_force(SERIAL_MAX - 1, [0, 1], None), &[0, 1]).is_ok());
    let given_up = format!(
        "format = 2\nserial = {SERIAL_MAX}\n[threshold]\npolicy = 1\n{}",
        officer(0, "\"policy\"")
    );
    assert!(follows(&given_up, &[0, 1]).is_ok());
    // What is signed and has a mistake, and what nobody signed is not read.
    assert!(matches!(follows("format = 2\n", &[0, 1]), Err(NoSuccessor::Mistakes(_))));
    assert!(matches!(follows("[[[", &[0]), Err(NoSuccessor::NotApproved(_))));
}

/// Makes any store that may be: each officer with a set of purposes, and thresholds within what those allow.
fn stores() -> impl Strategy<Value = TrustDraft> {
    let sets = prop::collection::vec(1..16_u8, 1..=4);
    let names = prop::collection::vec("[a-zA-Z가-힣 \"\\\\]{1,12}", 4);
    (sets, names, any::<[prop::sample::Index; 4]>(), 1..1_000_000_u64).prop_map(
        |(sets, names, at, serial)| {
            let officers: Vec<Officer> = (0_u8..)
                .zip(sets)
                .zip(names)
                .map(|((number, set), name)| Officer {
                    // Numbered, so that no two look alike.
                    name: format!("{number} {name}"),
                    key: key(number).public(),
                    may_sign: (0..4)
                        .filter(|bit| set & 1 << bit != 0)
                        .map(|bit| Purpose::ALL[bit])
                        .collect(),
                })
                .collect();
            let thresholds = Purpose::ALL.into_iter().zip(at).filter_map(|(purpose, at)| {
                let may = officers.iter().filter(|it| it.may_sign.contains(&purpose)).count();
                (may > 0).then(|| (purpose, 1 + at.index(may)))
            });
            TrustDraft { serial, thresholds: thresholds.collect(), officers }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // Shows: K-2.2.2, K-5.1.3.
    #[test]
    fn a_text_is_approved_by_as_many_as_the_purpose_asks_for_of_those_who_may_and_by_nobody_else(
        draft in stores(),
        by in 0..16_u8,
        text in "[a-z\\n ]{0,40}",
    ) {
        fn holds<S: Signable>(store: &TrustStore, text: &str, keys: &[u8]) -> Result<(), TestCaseError> {
            let signatures = signed::<S>(text, keys);
            let may: Vec<&Officer> = store.officers_for(S::PURPOSE).collect();
            let signers = may.iter().filter(|it| keys.iter().any(|number| key(*number).public() == it.key)).count();
            let enough = store.threshold(S::PURPOSE).is_some_and(|threshold| signers >= threshold);
            let approved = store.approve(text, &signatures);
            prop_assert_eq!(approved.is_ok(), enough, "{}", S::PURPOSE);
            if let Ok(approval) = approved {
                prop_assert_eq!(approval.signers().len(), signers);
            }
            Ok(())
        }
        let Ok(store) = TrustStore::parse("trust.toml", &draft.text()) else { return Ok(()) };
        let keys: Vec<u8> = (0..4).filter(|number| by & 1 << number != 0).collect();
        holds::<PolicyText>(&store, &text, &keys)?;
        holds::<ImageManifest>(&store, &text, &keys)?;
        holds::<ProgramManifest>(&store, &text, &keys)?;
        holds::<TrustText>(&store, &text, &keys)?;
    }
}
