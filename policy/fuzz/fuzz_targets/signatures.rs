//! Any text as signature file, trust store, and key; what is read approves nothing that was not signed.
#![no_main]

use policy::signature::{PublicKey, SecretKey, Signatures, TrustStore};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = text.parse::<PublicKey>();
    let _ = SecretKey::parse(text);
    let trust = TrustStore::parse("trust.toml", text);
    if let Err(found) = &trust {
        assert!(!found.render(false).is_empty());
    }
    if let Ok(signatures) = Signatures::parse("policy.toml.sig", text) {
        let again = Signatures::parse("policy.toml.sig", &signatures.text()).expect("reads back");
        assert_eq!(again, signatures);
        if let Ok(trust) = trust {
            assert!(trust.approve("a text that nobody signed", &signatures).is_err());
        }
    }
});
