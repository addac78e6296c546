//! The table of what this version enforces: it holds every key of the language, and every tool goes by it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use policy::decide::Decision;
use policy::enforcement::{GAPS, Gap, LANGUAGE, MARK};
use policy::language::MediaType;
use policy::request::{ClipboardRequest, Context, Request};
use policy_tools::{Matrix, STARTER, check, diff, explain};
use support::{draft, keys_of_the_language};

#[test]
fn every_key_of_the_language_is_in_the_table_and_nothing_else_is() {
    let table: BTreeSet<String> = LANGUAGE.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(table.len(), LANGUAGE.len(), "a key stands there twice");
    // A table is in it by its keys.
    let leaf = |path: &&String| !table.iter().any(|other| other.starts_with(&format!("{path}.")));
    let keys: BTreeSet<String> = keys_of_the_language().iter().filter(leaf).cloned().collect();
    assert!(keys.len() > 50, "{keys:?}");
    assert_eq!(table, keys);
    for gap in GAPS {
        let known = |path: &str| path == gap.key || path.starts_with(&format!("{}.", gap.key));
        assert!(LANGUAGE.iter().any(|key| known(key.path)), "{}", gap.key);
    }
}

const CLINICAL: &str = "format = 1\nserial = 1\nissuer = \"Office\"\n\
    [[domain]]\nname = \"clinical\"\nlabel = \"CLINICAL\"\ncolour = \"#1f4e9c\"\nhotkey = \"Ctrl+Alt+1\"\n\
    persistence = \"keep\"\npriority = \"high\"\nidle_lock = \"10m\"\n";
const INTERNET: &str = "[[domain]]\nname = \"internet\"\nlabel = \"INTERNET\"\ncolour = \"#b3261e\"\n\
    hotkey = \"Ctrl+Alt+2\"\nnetwork = \"passthrough\"\npersistence = \"discard\"\n";
const PLACES: &str =
    "egress = [ { to = \"10.10.0.0/16\", port = 443, proto = \"tcp\", purpose = \"HTTPS\" } ]\n";

/// Makes a policy that says what a gap is about, and the same without it.
fn saying(gap: &Gap) -> (String, String) {
    let (network, plain) =
        ("network = \"passthrough\"\n", format!("{CLINICAL}network = \"passthrough\"\n{INTERNET}"));
    let rule = |kind: &str, body: &str| {
        format!(
            "{plain}[[{kind}]]\nid = \"a-rule\"\nto = \"clinical\"\naction = \"allow\"\n{body}\n"
        )
    };
    match (gap.key, gap.value) {
        ("domain.egress", Some("nowhere")) => {
            (format!("{CLINICAL}{network}egress = []\n{INTERNET}"), plain)
        }
        ("domain.egress", None) => (format!("{CLINICAL}{network}{PLACES}{INTERNET}"), plain),
        ("domain.network", Some(word)) => (
            format!("{CLINICAL}network = \"{word}\"\n{INTERNET}"),
            format!("{CLINICAL}network = \"none\"\n{INTERNET}"),
        ),
        ("clipboard.types", Some(word)) => {
            let types = |word| {
                rule(
                    "clipboard",
                    &format!(
                        "from = \"internet\"\ntypes = [\"{word}\"]\ninspect = [\"korean-rrn\"]"
                    ),
                )
            };
            (types(word), types("text/plain"))
        }
        ("usb.match.class", Some(word)) => {
            let class = |word| rule("usb", &format!("match = {{ class = \"{word}\" }}"));
            (class(word), class("smart-card"))
        }
        other => panic!("write a policy that says {other:?}"),
    }
}

#[test]
fn what_nothing_enforces_is_warned_of_by_check_and_marked_by_matrix_and_diff() {
    for gap in GAPS {
        let (says, without) = saying(gap);
        let report = check("policy.toml", &says);
        let found: Vec<&str> = report
            .errors
            .iter()
            .chain(&report.warnings)
            .filter(|found| found.message.contains(MARK))
            .map(|found| found.help.as_str())
            .collect();
        assert_eq!(found, [gap.remedy], "{}", report.render(false));
        assert!(check("policy.toml", &without).render(false).ends_with("no errors, no warnings\n"));

        let (policy, other) = (draft(&says), draft(&without));
        let (matrix, plain) = (Matrix::of(&policy), Matrix::of(&other));
        assert_eq!(matrix.not_enforced.len(), 1, "{says}");
        for (page, plain) in
            [(matrix.to_string(), plain.to_string()), (matrix.html(), plain.html())]
        {
            // At the thing itself, and where all of it is listed.
            assert!(page.matches(MARK).count() >= 2 && page.contains(gap.instead), "{page}");
            assert!(!plain.contains(MARK), "{plain}");
        }
        let shown = diff(&other, &policy).to_string();
        assert!(shown.contains(MARK), "{shown}");
        assert!(!diff(&other, &other).to_string().contains(MARK));
    }
}

#[test]
fn a_network_that_reaches_everything_is_never_called_nowhere() {
    let nowhere = format!("{CLINICAL}network = \"passthrough\"\negress = []\n{INTERNET}");
    let page = Matrix::of(&draft(&nowhere)).to_string();
    assert!(
        page.contains("CLINICAL: network passthrough, connects to anywhere on its network"),
        "{page}"
    );
    let report = check("policy.toml", &nowhere);
    assert!(!report.ok, "who believes it is worse off than who has no such line");
    let none = format!("{CLINICAL}network = \"none\"\n{INTERNET}");
    let page = Matrix::of(&draft(&none)).to_string();
    assert!(page.contains("CLINICAL: network none, connects to nowhere"), "{page}");
}

#[test]
fn a_rule_that_denies_is_kept_whatever_it_names() {
    let (says, _) = saying(GAPS.iter().find(|gap| gap.value == Some("text/html")).unwrap());
    assert_eq!(draft(&says).unenforced().len(), 1);
    let denies = says.replace("action = \"allow\"", "action = \"deny\"").replace("inspect", "#");
    assert!(draft(&denies).unenforced().is_empty());
}

#[test]
fn explain_says_of_an_allowed_type_that_it_is_not_carried() {
    let gap = GAPS.iter().find(|gap| gap.value == Some("text/html")).unwrap();
    let policy = draft(&saying(gap).0);
    let request = |media_type| {
        let (from, to) = ("internet", "clinical");
        Request::Clipboard(ClipboardRequest { from, to, media_type, bytes: 10 })
    };
    let explained = explain(&policy, &request(MediaType::TextHtml), &Context::default());
    assert_eq!(
        (explained.verdict, explained.limits),
        (Decision::Allow, vec![gap.instead.to_owned()])
    );
    let denied = explain(&policy, &request(MediaType::TextPlain), &Context::default());
    assert!(denied.limits.is_empty());
}

#[test]
fn a_new_policy_says_nothing_that_is_not_enforced_without_saying_so() {
    assert!(draft(STARTER).unenforced().is_empty());
    for gap in GAPS {
        let word = match (gap.key, gap.value) {
            ("domain.egress", _) => "egress",
            (_, value) => value.unwrap(),
        };
        for line in STARTER.lines().filter(|line| line.contains(word)) {
            assert!(line.contains(MARK), "{word}: {line}");
        }
    }
}
