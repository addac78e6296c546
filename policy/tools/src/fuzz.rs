//! What policy/fuzz calls: whatever an officer's file or what is copied holds, it is read to its end, and what is said of it holds.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target stops where it has found something"
)]

use std::sync::LazyLock;

use policy::Policy;
use policy::decide::Paste;
use policy::language::MediaType;
use policy::signature::{
    ImageManifest, PolicyText, ProgramManifest, PublicKey, SecretKey, Signable, Signatures,
    TrustDraft, TrustStore, TrustText, public_key,
};

use crate::{Matrix, STARTER, check, diff, explain_paste};

/// Reads any text as a policy, lints and renders it, and if it is one, asks it and draws it.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let report = check("fuzz.toml", text);
    assert_eq!(report.ok, report.errors.is_empty());
    assert!(!report.render(false).is_empty());
    let Ok(policy) = Policy::draft("fuzz.toml", text) else { return };
    let names: Vec<&str> = policy.domains().iter().map(|domain| domain.name.as_str()).collect();
    for from in &names {
        for to in &names {
            let media_type = MediaType::TextPlain;
            let content = Some(data);
            let _ = explain_paste(&policy, &Paste { from, to, media_type, content, size: None });
        }
    }
    assert!(!diff(&policy, &policy).widened);
    assert!(Matrix::of(&policy).html().ends_with("</html>\n"));
}

/// Searches any content, as every type, with the built-in detectors and one of an officer's.
pub fn detectors(data: &[u8]) {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        let rule = "\n[[detector]]\nname = \"chart-number\"\nregex = '\\bMRN-?\\d{8}\\b'\n\
                    [[clipboard]]\nid = \"all\"\nfrom = \"internet\"\nto = \"clinical\"\n\
                    types = [\"text/plain\", \"text/html\", \"image/png\", \"file-list\"]\naction = \"allow\"\n\
                    inspect = [\"korean-rrn\", \"kr-phone\", \"card-number\", \"chart-number\"]\n";
        Policy::draft("fuzz.toml", &format!("{STARTER}{rule}")).expect("a policy")
    });
    for (_, media_type) in MediaType::WORDS {
        let (from, to, content) = ("internet", "clinical", Some(data));
        let _ = explain_paste(&POLICY, &Paste { from, to, media_type, content, size: None });
    }
}

/// Reads any text as signature file, trust store, and key; what is read approves nothing that was not signed, for no purpose, and what is
/// written of a trust store is read as the same.
pub fn signatures(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = text.parse::<PublicKey>();
    let _ = SecretKey::parse(text);
    let _ = public_key("kim.pub", text);
    let trust = TrustStore::parse("trust.toml", text);
    if let Err(found) = &trust {
        assert!(!found.render(false).is_empty());
    }
    let trust = trust.ok();
    if let Some(trust) = &trust {
        let _ = trust.weaknesses();
        assert!(trust.succeed("trust.toml", text, &Signatures::<TrustText>::default()).is_err());
        let draft = TrustDraft { serial: trust.serial().unwrap_or(1), ..TrustDraft::from(trust) };
        let again = TrustStore::parse("trust.toml", &draft.text()).expect("reads back");
        assert_eq!(TrustDraft::from(&again), draft);
    }
    approves_nothing::<PolicyText>(text, trust.as_ref());
    approves_nothing::<ImageManifest>(text, trust.as_ref());
    approves_nothing::<ProgramManifest>(text, trust.as_ref());
    approves_nothing::<TrustText>(text, trust.as_ref());
}

fn approves_nothing<S: Signable + PartialEq>(text: &str, trust: Option<&TrustStore>) {
    let Ok(signatures) = Signatures::<S>::parse("a.sig", text) else { return };
    let again = Signatures::parse("a.sig", &signatures.text()).expect("reads back");
    assert!(again == signatures, "what is written of signatures is read as the same");
    if let Some(trust) = trust {
        assert!(trust.approve("a text that nobody signed", &signatures).is_err());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn what_the_fuzz_targets_begin_with_is_read_without_a_finding() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let run = fuzzinput::corpus::run(
            &fuzz,
            &[
                ("detectors", super::detectors),
                ("policy", super::policy),
                ("signatures", super::signatures),
            ],
        );
        run.unwrap();
    }
}
