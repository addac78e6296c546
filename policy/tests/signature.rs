//! Who stands behind a policy: what is approved, and what is not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use ed25519_dalek::{Signer, SigningKey};
use policy::signature::{PolicyText, PublicKey, SecretKey, SignatureBytes, TrustStore};
use proptest::prelude::*;
use zeroize::Zeroizing;

/// The signatures of a policy, which most of this is about.
type Signatures = policy::signature::Signatures<PolicyText>;

const STARTER: &str = include_str!("../tools/src/starter.toml");
const OFFICERS: [&str; 3] = ["Kim", "Lee", "Park"];

fn key(number: u8) -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([number; 32]))
}

/// Makes a PC that trusts the first of [`OFFICERS`], keys 0, 1 and 2.
fn trust(threshold: usize, officers: u8) -> TrustStore {
    let mut text = format!("format = 1\nthreshold = {threshold}\n");
    for (number, name) in (0..officers).zip(OFFICERS) {
        text += &format!("[[officer]]\nname = \"{name}\"\nkey = \"{}\"\n", key(number).public());
    }
    TrustStore::parse("trust.toml", &text).unwrap()
}

fn signed(text: &str, keys: &[u8]) -> Signatures {
    let mut signatures = Signatures::default();
    for number in keys {
        signatures.sign(text, &key(*number));
    }
    signatures
}

#[test]
fn a_policy_that_enough_trusted_officers_signed_is_approved() {
    let approval = trust(2, 3).approve(STARTER, &signed(STARTER, &[2, 0])).unwrap();
    assert_eq!(approval.signers(), ["Kim", "Park"]);
    assert_eq!(trust(1, 1).approve("", &signed("", &[0])).unwrap().signers(), ["Kim"]);
}

#[test]
fn one_officer_never_counts_as_two() {
    let refusal = trust(2, 3).approve(STARTER, &signed(STARTER, &[1, 1])).unwrap_err();
    assert_eq!((refusal.threshold, refusal.signers.as_slice()), (Some(2), &["Lee".to_owned()][..]));
    // Nor with the same signature pasted in twice.
    let once = signed(STARTER, &[1]).text();
    let twice = format!("{once}{}", &once[once.find("[[signature]]").unwrap()..]);
    let twice = Signatures::parse("policy.toml.sig", &twice).unwrap();
    assert_eq!(twice.count(), 2);
    trust(2, 3).approve(STARTER, &twice).unwrap_err();
}

#[test]
fn a_refusal_says_who_signed_what_and_what_to_do() {
    let mut signatures = signed("an older text", &[1]);
    signatures.sign(STARTER, &key(0));
    signatures.sign(STARTER, &key(9));
    let refusal = trust(2, 2).approve(STARTER, &signatures).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "2 officers have to sign it, and only Kim did; the text was changed after Lee signed it, or the signature is damaged; 1 by keys that are not \
         in the trust store: have it signed with `bulkhead policy sign`"
    );
    let none = trust(1, 1).approve(STARTER, &Signatures::default()).unwrap_err();
    assert!(none.to_string().starts_with("1 officer has to sign it, and no signature holds"));
}

// Shows: K-2.2.2.
#[test]
fn a_signature_made_for_another_purpose_is_none() {
    let raw = SigningKey::from_bytes(&[0; 32]).sign(STARTER.as_bytes()).to_bytes();
    let digits: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        "format = 1\n[[signature]]\nkey = \"{}\"\nsignature = \"{digits}\"\n",
        key(0).public()
    );
    let signatures = Signatures::parse("policy.toml.sig", &text).unwrap();
    trust(1, 1).approve(STARTER, &signatures).unwrap_err();
}

#[test]
fn signing_again_replaces_ones_own_signature_and_keeps_the_others() {
    let mut signatures = signed("old", &[0, 1]);
    signatures.sign("new", &key(0));
    assert_eq!(signatures.count(), 2);
    assert_eq!(signatures.clone().fitting("new").count(), 1);
    assert_eq!(signatures.fitting("old").count(), 1);
}

#[test]
fn keys_and_signatures_read_back_as_they_were_written_and_secrets_are_not_shown() {
    let secret = key(7);
    let text = secret.text();
    assert_eq!(text.capacity(), text.len(), "a text that grew leaves copies of the key behind");
    let again = SecretKey::parse(&text).unwrap();
    assert_eq!(again.public(), secret.public());
    assert_eq!(secret.public().to_string().parse::<PublicKey>(), Ok(secret.public()));
    let digits = secret.text().trim().rsplit(':').next().unwrap().to_owned();
    assert!(!format!("{secret:?}").contains(&digits));
    let error = SecretKey::parse(&format!("ed25519-secret:{}", &digits[1..])).unwrap_err();
    assert!(!error.to_string().contains(&digits[1..]));
    let signatures = signed(STARTER, &[0, 1, 2]);
    assert_eq!(Signatures::parse("policy.toml.sig", &signatures.text()).unwrap(), signatures);
}

#[test]
fn a_trust_store_that_would_trust_nobody_or_one_officer_twice_is_refused() {
    let kim = format!("[[officer]]\nname = \"Kim\"\nkey = \"{}\"\n", key(0).public());
    let named =
        |name: &str| format!("[[officer]]\nname = \"{name}\"\nkey = \"{}\"\n", key(1).public());
    let cases: [(&str, &str); 10] = [
        (&format!("format = 1\nthreshold = 2\n{kim}{}", named("Kim")), "\"Kim\" is here already"),
        (&format!("format = 1\nthreshold = 2\n{kim}{}", named("KIM")), "look alike"),
        ("format = 1\nthreshold = 1\n", "no officer"),
        (
            &format!("format = 1\nthreshold = 0\n{kim}"),
            "how many officers must sign is out of range",
        ),
        (
            &format!("format = 1\nthreshold = 2\n{kim}"),
            "how many officers must sign is out of range",
        ),
        (&format!("format = 1\nthreshold = 1\n{kim}{kim}"), "one officer would count as two"),
        (&format!("format = 3\nthreshold = 1\n{kim}"), "newer Bulkhead"),
        (&format!("format = 1\nthreshold = 1\n{kim}role = 1\n"), "no key `role`"),
        ("format = 1\nthreshold = 1\n[[officer]]\nname = \"\"\nkey = \"x\"\n", "not a name"),
        // The point of order one: everything is signed by it.
        (
            "format = 1\nthreshold = 1\n[[officer]]\nname = \"K\"\nkey = \"ed25519:\
             0100000000000000000000000000000000000000000000000000000000000000\"\n",
            "nobody made",
        ),
    ];
    for (text, says) in cases {
        let found = TrustStore::parse("trust.toml", text).unwrap_err();
        assert!(found.render(false).contains(says), "{text}\n{}", found.render(false));
    }
}

#[test]
fn a_secret_key_in_any_file_is_named_as_one_and_never_shown() {
    let secret = key(7).text().trim().to_owned();
    let digits = secret.rsplit(':').next().unwrap();
    let pem = key(7).encrypted("four words of rain", &Zeroizing::new([1; 32])).unwrap();
    let inside = pem.lines().find(|line| line.starts_with("MI")).unwrap();
    let kim = "[[officer]]\nname = \"Kim\"\n";
    for pasted in [
        format!("{kim}{secret}\n"),
        format!("{kim}key = \"{secret}\"\n"),
        format!("{kim}key = {secret}\n"),
        format!("{kim}ed25519-secret = \"{digits}\"\n"),
        format!("{kim}{} = 1\n", secret.to_uppercase()),
        format!("{kim}key = \"\"\"{}\"\"\"\n", pem.as_str()),
        format!("{kim}{}", pem.as_str()),
        format!("# {secret}\n{kim}key = \"{}\"\n", key(0).public()),
    ] {
        let text = format!("format = 1\nthreshold = 1\n{pasted}");
        for found in [
            TrustStore::parse("trust.toml", &text).unwrap_err(),
            Signatures::parse("policy.toml.sig", &text).unwrap_err(),
            policy::Policy::parse("policy.toml", &text).unwrap_err(),
        ] {
            let said =
                [found.render(false).to_string(), found.to_string(), format!("{found:?}")].concat();
            let shown = said.to_lowercase();
            assert!(!shown.contains(&digits[..8]) && !said.contains(inside), "{pasted}: {said}");
            assert!(found.to_string().contains("this is a secret key"), "{found}");
            assert_eq!(found.iter().count(), 1, "{found}");
        }
    }
    // What looks for keys is none.
    let detector = "[[detector]]\nname = \"keys\"\nregex = 'ed25519-secret:[0-9a-f]{64}|-----BEGIN PRIVATE KEY-----'\n";
    policy::Policy::parse("policy.toml", &format!("{STARTER}\n{detector}")).unwrap();
}

#[test]
fn a_key_under_a_passphrase_is_not_said_to_be_of_use_to_whoever_has_read_it() {
    let guarded = key(7).encrypted("four words of rain", &Zeroizing::new([1; 32])).unwrap();
    let said = |text: &str| policy::Policy::parse("kim", text).unwrap_err().to_string();
    let alone = said(&guarded);
    assert!(alone.contains("under a passphrase") && !alone.contains("can use it"), "{alone}");
    let both = said(&format!("{}{}", guarded.as_str(), key(7).text().as_str()));
    assert!(both.contains("whoever has read this file can use it"), "{both}");
}

#[test]
fn a_policy_and_a_trust_store_are_not_taken_for_each_other() {
    let found = TrustStore::parse("policy.toml", STARTER).unwrap_err();
    assert_eq!(found.iter().count(), 1, "{found}");
    assert!(found.to_string().contains("not a trust store"), "{found}");
    let officer = format!("[[officer]]\nname = \"Kim\"\nkey = \"{}\"\n", key(0).public());
    for text in [format!("format = 1\nthreshold = 1\n{officer}"), officer] {
        let found = policy::Policy::parse("trust.toml", &text).unwrap_err();
        assert_eq!(found.iter().count(), 1, "{found}");
        assert!(found.to_string().contains("not a policy"), "{found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Shows: K-2.1.1, K-3.1.2, K-5.2.1.
    #[test]
    fn any_changed_bit_of_text_or_signature_ends_the_approval(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let trust = trust(1, 1);
        let signatures = signed(STARTER, &[0]);
        let mut text = STARTER.as_bytes().to_vec();
        let index = at.index(text.len());
        text[index] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(text) {
            prop_assert!(trust.approve(&text, &signatures).is_err());
        }
        let written = signatures.text();
        let digits = written.rsplit('"').nth(1).unwrap();
        prop_assert!(digits.parse::<SignatureBytes>().is_ok());
        let index = at.index(digits.len());
        let digit = digits.as_bytes()[index];
        let other = if digit == b'0' { '1' } else { '0' };
        let mut changed = digits.to_owned();
        changed.replace_range(index..=index, &other.to_string());
        let changed = written.replace(digits, &changed);
        let changed = Signatures::parse("policy.toml.sig", &changed).unwrap();
        prop_assert!(trust.approve(STARTER, &changed).is_err());
    }

    #[test]
    fn arbitrary_text_is_read_to_the_end(
        words in prop::collection::vec(prop::sample::select(vec![
            "[[", "]]", "signature", "officer", "key", "=", "\n", "\"", "ed25519:", "00", "ff", "é", "threshold", "1", "format", "name", "{", "}",
        ]), 0..60)
    ) {
        let text = words.concat();
        let refused = [Signatures::parse("a", &text).err(), TrustStore::parse("a", &text).err()];
        for found in refused.into_iter().flatten() {
            prop_assert!(!found.render(false).is_empty());
        }
        let _ = SecretKey::parse(&text);
        let _ = text.parse::<PublicKey>();
    }
}
