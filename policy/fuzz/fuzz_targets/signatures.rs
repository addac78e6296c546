//! Any text as signature file, trust store, and key; what is read approves nothing that was not signed, for no purpose, and what is written of
//! a trust store is read as the same.
#![no_main]

use policy::signature::{
    ImageManifest, PolicyText, ProgramManifest, PublicKey, SecretKey, Signable, Signatures,
    TrustDraft, TrustStore, TrustText, public_key,
};

fn approves_nothing<S: Signable + PartialEq>(text: &str, trust: Option<&TrustStore>) {
    let Ok(signatures) = Signatures::<S>::parse("a.sig", text) else { return };
    let again = Signatures::parse("a.sig", &signatures.text()).expect("reads back");
    assert_eq!(again, signatures);
    if let Some(trust) = trust {
        assert!(trust.approve("a text that nobody signed", &signatures).is_err());
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
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
});
