//! Any content against the built-in detectors and one of an officer's, as every type.
#![no_main]

use std::sync::LazyLock;

use policy::Policy;
use policy::decide::Paste;
use policy::language::MediaType;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let rule = "\n[[detector]]\nname = \"chart-number\"\nregex = '\\bMRN-?\\d{8}\\b'\n\
                [[clipboard]]\nid = \"all\"\nfrom = \"internet\"\nto = \"clinical\"\n\
                types = [\"text/plain\", \"text/html\", \"image/png\", \"file-list\"]\naction = \"allow\"\n\
                inspect = [\"korean-rrn\", \"kr-phone\", \"card-number\", \"chart-number\"]\n";
    Policy::draft("fuzz.toml", &format!("{}{rule}", policy_tools::STARTER)).expect("a policy")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for (_, media_type) in MediaType::WORDS {
        let (from, to, content) = ("internet", "clinical", Some(data));
        let _ = policy_tools::explain_paste(&POLICY, &Paste { from, to, media_type, content, size: None });
    }
});
