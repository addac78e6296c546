//! An officer's key: made, and kept under a passphrase.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::{artefacts, bulkhead, json, path};

// Shows: K-2.2.1.
#[test]
fn a_key_is_kept_under_a_passphrase_that_a_file_or_a_descriptor_gives() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    bulkhead(&["new", &file("policy.toml")]);
    fs::write(file("right"), "four words of rain\nnot this line\n").unwrap();
    fs::write(file("wrong"), "four words of snow\n").unwrap();
    fs::write(file("short"), "rain\n").unwrap();
    let made = |passphrase: &str, key: &str| {
        bulkhead(&[
            "keygen",
            &file(key),
            "--name",
            "Kim",
            "--passphrase-file",
            &file(passphrase),
            "--json",
        ])
    };
    for (passphrase, says) in
        [("short", "shorter than 8"), ("nothing", "cannot read the passphrase")]
    {
        let refused = made(passphrase, "kim");
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stdout).contains(says), "{refused:?}");
        assert!(!Path::new(&file("kim")).exists() && !Path::new(&file("kim.pub")).exists());
    }
    let kim = made("right", "kim");
    assert_eq!((kim.status.code(), &json(&kim)["encrypted"]), (Some(0), &true.into()));
    let secret = fs::read_to_string(file("kim")).unwrap();
    assert!(secret.contains("\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{secret}");
    assert_eq!(fs::metadata(file("kim")).unwrap().permissions().mode() & 0o777, 0o600);

    let sign = |more: &[&str]| {
        bulkhead(&[&["sign", &file("policy.toml"), "--key", &file("kim")][..], more].concat())
    };
    for (more, says) in [
        (vec![], "--passphrase-file or --passphrase-fd"),
        (vec!["--passphrase-file".to_owned(), file("wrong")], "the passphrase is not this key's"),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let refused = sign(&more);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(says), "{refused:?}");
        assert!(!Path::new(&file("policy.toml.sig")).exists());
    }
    assert!(sign(&["--passphrase-file", &file("right")]).status.success());
    // From a descriptor: here the standard input.
    let by_descriptor = Command::new(artefacts::program("bulkhead"))
        .args([
            "policy",
            "sign",
            &file("policy.toml"),
            "--key",
            &file("kim"),
            "--passphrase-fd",
            "0",
        ])
        .stdin(fs::File::open(file("right")).unwrap())
        .output()
        .unwrap();
    assert!(by_descriptor.status.success(), "{by_descriptor:?}");
    fs::write(
        file("trust.toml"),
        format!("format = 1\nthreshold = 1\n{}", fs::read_to_string(file("kim.pub")).unwrap()),
    )
    .unwrap();
    assert!(
        bulkhead(&["verify", &file("policy.toml"), "--trust", &file("trust.toml")])
            .status
            .success()
    );
}

// Shows: K-2.2.1.
#[test]
fn keygen_leaves_nothing_behind_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let key = path(dir.path(), "kim");
    fs::write(format!("{key}.pub"), "somebody else's").unwrap();
    let refused = bulkhead(&["keygen", &key, "--name", "Kim", "--no-passphrase"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("kim.pub: it is there already"),
        "{refused:?}"
    );
    assert!(!Path::new(&key).exists(), "a secret key whose public half nobody has");
    assert_eq!(fs::read_to_string(format!("{key}.pub")).unwrap(), "somebody else's");
    // The longest name there is: no file can be called `.pub` after it.
    let long = path(dir.path(), &"k".repeat(253));
    let refused = bulkhead(&["keygen", &long, "--name", "Kim", "--no-passphrase"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!Path::new(&long).exists(), "a secret key whose public half nobody has");
    let unwritable =
        bulkhead(&["keygen", "/no/such/folder/kim", "--name", "Kim", "--no-passphrase"]);
    assert_eq!(unwritable.status.code(), Some(1));
}

// Shows: K-2.2.1.
#[test]
fn a_passphrase_is_put_on_a_key_changed_and_taken_off_and_the_key_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    bulkhead(&["new", &file("policy.toml")]);
    for (name, passphrase) in
        [("one", "four words of rain"), ("two", "four words of snow"), ("short", "rain")]
    {
        fs::write(file(name), format!("{passphrase}\n")).unwrap();
    }
    assert!(
        bulkhead(&["keygen", &file("kim"), "--name", "Kim", "--no-passphrase"]).status.success()
    );
    let public = fs::read_to_string(file("kim.pub")).unwrap();
    fs::write(file("trust.toml"), format!("format = 1\nthreshold = 1\n{public}")).unwrap();
    let change = |options: &[(&str, &str)]| {
        let mut arguments = vec!["passphrase".to_owned(), file("kim"), "--json".to_owned()];
        for (option, value) in options {
            arguments.push(format!("--{option}"));
            arguments.extend((!value.is_empty()).then(|| file(value)));
        }
        bulkhead(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let signs = |passphrase: &[&str]| {
        let _ = fs::remove_file(file("policy.toml.sig"));
        let (policy, key, trust) = (file("policy.toml"), file("kim"), file("trust.toml"));
        bulkhead(&[&["sign", &policy, "--key", &key][..], passphrase].concat()).status.success()
            && bulkhead(&["verify", &policy, "--trust", &trust]).status.success()
    };
    let (one, two) = (file("one"), file("two"));
    let (with_one, with_two) = (["--passphrase-file", &one], ["--passphrase-file", &two]);
    let put_on = change(&[("new-passphrase-file", "one")]);
    assert_eq!((put_on.status.code(), &json(&put_on)["encrypted"]), (Some(0), &true.into()));
    assert!(signs(&with_one) && !signs(&[]));
    let changed = change(&[("passphrase-file", "one"), ("new-passphrase-file", "two")]);
    assert_eq!((changed.status.code(), &json(&changed)["encrypted"]), (Some(0), &true.into()));
    assert!(signs(&with_two) && !signs(&with_one));

    // Refused, the file is as it was, and nothing lies beside it.
    let before = fs::read(file("kim")).unwrap();
    for (options, says) in [
        (
            &[("passphrase-file", "one"), ("new-passphrase-file", "two")][..],
            "the passphrase is not this key's",
        ),
        (&[("passphrase-file", "two"), ("new-passphrase-file", "short")], "shorter than 8"),
        (
            &[("passphrase-file", "two"), ("new-passphrase-file", "nothing")],
            "cannot read the passphrase",
        ),
        (&[("passphrase-file", "two")], "--new-passphrase-file"),
        (&[("no-passphrase", "")], "--passphrase-file"),
    ] {
        let refused = change(options);
        let said = json(&refused)["error"].to_string();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(fs::read(file("kim")).unwrap(), before, "{says}");
        assert!(!Path::new(&file("kim.new")).exists(), "{says}");
    }
    // Another key that happens to be called so is nobody's to overwrite.
    fs::write(file("kim.new"), "precious").unwrap();
    let refused = change(&[("passphrase-file", "two"), ("no-passphrase", "")]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read_to_string(file("kim.new")).unwrap(), "precious");
    fs::remove_file(file("kim.new")).unwrap();

    let taken_off = change(&[("passphrase-file", "two"), ("no-passphrase", "")]);
    assert_eq!((taken_off.status.code(), &json(&taken_off)["encrypted"]), (Some(0), &false.into()));
    assert!(signs(&[]));
    assert_eq!(fs::metadata(file("kim")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Path::new(&file("kim.new")).exists());
    assert_eq!(fs::read_to_string(file("kim.pub")).unwrap(), public);
}

#[test]
fn a_damaged_key_that_is_no_half_of_its_public_one_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    bulkhead(&["new", &file("policy.toml")]);
    assert!(
        bulkhead(&["keygen", &file("kim"), "--name", "Kim", "--no-passphrase"]).status.success()
    );
    let sign = || bulkhead(&["sign", &file("policy.toml"), "--key", &file("kim")]);
    let whole = fs::read_to_string(file("kim")).unwrap();
    let other = if whole.trim_end().ends_with('0') { '1' } else { '0' };
    let mut damaged = whole.trim_end().to_owned();
    damaged.pop();
    damaged.push(other);
    fs::write(file("kim"), damaged).unwrap();
    let refused = sign();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("is not the other half of") && said.contains("kim.pub"), "{said}");
    assert!(!Path::new(&file("policy.toml.sig")).exists());
    fs::write(file("kim"), &whole).unwrap();
    let signed = sign();
    assert!(signed.status.success(), "{signed:?}");
    assert!(String::from_utf8_lossy(&signed.stdout).contains("holds 1 signature\n"));
}

#[test]
fn nobody_gets_a_key_without_a_passphrase_who_does_not_ask_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = path(dir.path(), "kim");
    let refused = bulkhead(&["keygen", &key, "--name", "Kim"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--passphrase-file") && said.contains("--no-passphrase"), "{said}");
    assert!(!Path::new(&key).exists() && !Path::new(&format!("{key}.pub")).exists());
}

#[test]
fn a_secret_key_is_not_written_to_where_public_ones_are_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kim.pub", "kim.PUB"] {
        let file = path(dir.path(), name);
        let refused = bulkhead(&["keygen", &file, "--name", "Kim", "--no-passphrase"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("name it without"),
            "{refused:?}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_secret_key_given_where_a_file_or_another_word_belongs_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    bulkhead(&["new", &file]);
    let digits = "78c57ac6".repeat(8);
    let secret = format!("ed25519-secret:{digits}");
    for arguments in [
        &["sign", &file, "--key", &secret][..],
        &["sign", &file, "--key", &secret, "--json"],
        &["check", &secret],
        &["check", &file, &secret],
        &["check", &file, "--for-version", &secret],
        &["keygen", &path(dir.path(), "kim"), "--name", &secret, "--no-passphrase"],
    ] {
        let refused = bulkhead(arguments);
        assert!(!refused.status.success());
        let said = [refused.stdout, refused.stderr].concat();
        assert!(!String::from_utf8_lossy(&said).contains("78c5"), "{arguments:?}");
    }
}
