//! A policy that is being written: started, checked, compared, and shown as a table.

use std::fs;

use crate::{bulkhead, json, path};

#[test]
fn a_new_policy_is_fit_and_never_takes_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    assert!(bulkhead(&["new", &file]).status.success());
    let written = fs::read(&file).unwrap();
    assert_eq!(bulkhead(&["new"]).stdout, written);
    let checked = bulkhead(&["check", &file, "--json"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    fs::write(&file, "precious").unwrap();
    let again = bulkhead(&["new", &file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("name another file"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn check_for_an_older_version_ends_with_1_for_what_that_version_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    bulkhead(&["new", &file]);
    assert!(bulkhead(&["check", &file, "--for-version", "0.1.0"]).status.success());
    let section = "\n[break_glass]\nreasons = [\"system down\"]\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + section).unwrap();
    assert!(bulkhead(&["check", &file]).status.success());
    let refused = bulkhead(&["check", &file, "--for-version", "0.1.0"]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stdout);
    assert!(
        words.contains("Bulkhead 0.1.0 does not know the key `reasons` of [break_glass]"),
        "{words}"
    );
    assert!(words.contains("fit for this version; refused by 0.1.0: 1 error"), "{words}");
    for unknown in ["999.0.0", "1", "latest"] {
        let misuse = bulkhead(&["check", &file, "--for-version", unknown]);
        assert_eq!(misuse.status.code(), Some(2), "{unknown}");
    }
}

#[test]
fn a_policy_that_widens_ends_with_1_and_one_that_narrows_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let (narrow, wide) = (path(dir.path(), "narrow.toml"), path(dir.path(), "wide.toml"));
    bulkhead(&["new", &narrow]);
    let rule = "\n[[clipboard]]\nid = \"everything-out\"\nfrom = \"clinical\"\nto = \"internet\"\n\
                types = [\"text/html\"]\naction = \"allow\"\n";
    fs::write(&wide, fs::read_to_string(&narrow).unwrap() + rule).unwrap();

    let same = bulkhead(&["diff", &narrow, &narrow, "--json"]);
    assert_eq!(same.status.code(), Some(0));
    assert_eq!(json(&same)["flows"].as_array().map(Vec::len), Some(0));
    let widened = bulkhead(&["diff", &narrow, &wide]);
    assert_eq!(widened.status.code(), Some(1), "{}", String::from_utf8_lossy(&widened.stderr));
    assert!(String::from_utf8_lossy(&widened.stdout).contains("everything-out"));
    assert_eq!(json(&bulkhead(&["diff", &narrow, &wide, "--json"]))["widened"], true);
    let narrowed = bulkhead(&["diff", &wide, &narrow, "--json"]);
    assert_eq!((narrowed.status.code(), &json(&narrowed)["widened"]), (Some(0), &false.into()));
}

#[test]
fn a_mistake_in_either_policy_is_shown_and_nothing_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (path(dir.path(), "good.toml"), path(dir.path(), "bad.toml"));
    bulkhead(&["new", &good]);
    fs::write(&bad, "format = 1\nserail = 2\n").unwrap();
    for arguments in [[&good, &bad], [&bad, &good]] {
        let output = bulkhead(&["diff", arguments[0], arguments[1]]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("serail"));
    }
}

#[test]
fn the_matrix_is_a_table_for_people_machines_and_printers() {
    let dir = tempfile::tempdir().unwrap();
    let (file, page) = (path(dir.path(), "policy.toml"), path(dir.path(), "matrix.html"));
    bulkhead(&["new", &file]);
    let table = bulkhead(&["matrix", &file]);
    assert!(table.status.success());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("CLINICAL") && table.contains("INTERNET"), "{table}");
    assert!(json(&bulkhead(&["matrix", &file, "--json"])).is_object());
    assert!(bulkhead(&["matrix", &file, "--html", &page]).status.success());
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"));
    let nowhere = bulkhead(&["matrix", &file, "--html", "/no/such/folder/matrix.html"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn the_page_of_a_matrix_replaces_such_a_page_and_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, page) = (path(dir.path(), "policy.toml"), path(dir.path(), "matrix.html"));
    bulkhead(&["new", &file]);
    let written = || bulkhead(&["matrix", &file, "--html", &page]);
    assert!(written().status.success());
    let whole = fs::read_to_string(&page).unwrap();
    fs::write(&page, format!("{whole}<!-- of an older policy -->")).unwrap();
    assert!(written().status.success());
    assert_eq!(fs::read_to_string(&page).unwrap(), whole);

    let policy = fs::read_to_string(&file).unwrap();
    let other = path(dir.path(), "other.html");
    fs::write(&other, "<!DOCTYPE html>\n<html>mine</html>\n").unwrap();
    std::os::unix::fs::symlink(&file, dir.path().join("link")).unwrap();
    let folder = dir.path().display().to_string();
    for target in [&file, &other, &path(dir.path(), "link"), &folder] {
        let refused = bulkhead(&["matrix", &file, "--html", target]);
        assert_eq!(refused.status.code(), Some(1), "{target}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("name another"), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), policy);
    assert_eq!(fs::read_to_string(&other).unwrap(), "<!DOCTYPE html>\n<html>mine</html>\n");
    let printed = bulkhead(&["matrix", &file, "--html", "/dev/stdout"]);
    assert!(printed.stdout.starts_with(whole.as_bytes()), "{printed:?}");
}
