//! Any text: read, linted, rendered, and if it is a policy, asked and drawn.
#![no_main]

use policy::Policy;
use policy::decide::Paste;
use policy::language::MediaType;
use policy_tools::{Matrix, check, explain_paste};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
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
    assert!(!policy_tools::diff(&policy, &policy).widened);
    assert!(Matrix::of(&policy).html().ends_with("</html>\n"));
});
