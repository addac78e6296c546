//! The corpora: policies with the report each must get, word for word.
//!
//! `corpus/good` is accepted without a word; the handbook's examples are among them, and the handbook shows them as they are.
//! `corpus/warn` is accepted with warnings, `corpus/bad` is refused; beside each stands its report. After a change that
//! is meant, `BLESS=1 cargo test -p bulkhead-policy-tools --test corpus` writes the reports anew; read the difference before committing.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::path::{Path, PathBuf};

use policy_tools::{Report, STARTER, check, first_policy};

fn corpus(kind: &str) -> Vec<(PathBuf, Report)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    let report = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let report = check(&name, &fs::read_to_string(&path).unwrap());
        (path, report)
    };
    files.into_iter().map(report).collect()
}

/// Holds each report against the one beside the policy.
fn hold_against_the_file_beside(reports: &[(PathBuf, Report)]) {
    let mut wrong = Vec::new();
    for (path, report) in reports {
        let beside = path.with_extension("report");
        let rendered = report.render(false).to_string();
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, rendered).unwrap();
        } else if fs::read_to_string(&beside).unwrap_or_default() != rendered {
            wrong.push(format!("{} is now\n{rendered}", beside.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_policies_are_accepted_without_a_word() {
    for (path, report) in corpus("good") {
        assert!(
            report.ok && report.warnings.is_empty(),
            "{}\n{}",
            path.display(),
            report.render(false)
        );
    }
}

#[test]
fn doubtful_policies_are_accepted_with_the_warnings_beside_them() {
    let reports = corpus("warn");
    for (path, report) in &reports {
        assert!(
            report.ok && !report.warnings.is_empty(),
            "{}\n{}",
            path.display(),
            report.render(false)
        );
    }
    hold_against_the_file_beside(&reports);
}

#[test]
fn bad_policies_are_refused_with_the_errors_beside_them() {
    let reports = corpus("bad");
    for (path, report) in &reports {
        assert!(!report.ok, "{}", path.display());
    }
    hold_against_the_file_beside(&reports);
}

#[test]
fn the_starter_policy_follows_the_one_that_pcs_are_delivered_with() {
    let delivered = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../agent/examples/policy.toml");
    let delivered = fs::read_to_string(delivered).unwrap();
    let serial = |text: &str| policy::Policy::parse("policy.toml", text).unwrap().serial();
    assert!(serial(&first_policy()) > serial(&delivered));
    assert!(
        check("starter.toml", &first_policy()).render(false).ends_with("no errors, no warnings\n")
    );
}

#[test]
fn the_starter_policy_is_fit_to_be_signed_with_everything_commented_in_or_out() {
    assert!(check("starter.toml", STARTER).render(false).ends_with("no errors, no warnings\n"));
    let uncommented: Vec<&str> = STARTER
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rule)
                if rule.starts_with("[[")
                    || rule.split_once(" = ").is_some_and(|(key, _)| {
                        key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                    }) =>
            {
                rule
            }
            _ => line,
        })
        .collect();
    let text =
        uncommented.join("\n").replace("[\"korean-rrn\"]", "[\"korean-rrn\", \"chart-number\"]");
    assert_ne!(text, STARTER);
    let report = check("starter.toml", &text);
    assert!(report.ok && report.warnings.is_empty(), "{}", report.render(false));
}
