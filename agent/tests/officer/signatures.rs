//! What officers put their names to, and what is seen of a change afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::{artefacts, bulkhead, json, path};

// Shows: K-2.2.1, K-3.3.3, K-5.1.2.
#[test]
fn two_officers_sign_and_a_change_afterwards_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    let (policy, trust) = (file("policy.toml"), file("trust.toml"));
    bulkhead(&["new", &policy]);
    for officer in ["kim", "lee"] {
        let made = bulkhead(&["keygen", &file(officer), "--name", officer, "--no-passphrase"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mode = fs::metadata(file(officer)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    let public = |officer: &str| fs::read_to_string(file(&format!("{officer}.pub"))).unwrap();
    fs::write(&trust, format!("format = 1\nthreshold = 2\n{}{}", public("kim"), public("lee")))
        .unwrap();
    let verify = || bulkhead(&["verify", &policy, "--trust", &trust]);

    assert_eq!(verify().status.code(), Some(1));
    assert!(bulkhead(&["sign", &policy, "--key", &file("kim")]).status.success());
    let one = verify();
    assert_eq!(one.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&one.stderr).contains("only kim did"));
    assert!(bulkhead(&["sign", &policy, "--key", &file("lee")]).status.success());
    let both = verify();
    assert!(both.status.success(), "{}", String::from_utf8_lossy(&both.stderr));
    assert_eq!(String::from_utf8_lossy(&both.stdout), "signed by kim, lee; 2 needed\n");

    let changed = fs::read_to_string(&policy).unwrap() + "# a word\n";
    fs::write(&policy, changed).unwrap();
    let stale = verify();
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("changed after kim and lee signed it"));
    let again = bulkhead(&["sign", &policy, "--key", &file("kim"), "--json"]);
    assert_eq!((&json(&again)["signatures"], &json(&again)["removed"]), (&1.into(), &2.into()));
}

#[test]
fn a_policy_and_a_key_are_taken_from_the_current_folder_by_their_bare_names() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["new", "policy.toml"][..],
        &["keygen", "kim", "--name", "kim", "--no-passphrase"],
        &["sign", "policy.toml", "--key", "kim"],
    ] {
        let program = artefacts::program("bulkhead");
        let done =
            Command::new(program).current_dir(dir.path()).arg("policy").args(arguments).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(dir.path().join("policy.toml.sig").exists());
}

// Shows: K-2.2.1.
#[test]
fn a_key_is_never_replaced_and_a_broken_policy_never_signed() {
    let dir = tempfile::tempdir().unwrap();
    let (key, policy) = (path(dir.path(), "key"), path(dir.path(), "policy.toml"));
    assert!(
        bulkhead(&["keygen", &key, "--name", "Kim Min-ji \"MJ\"", "--no-passphrase"])
            .status
            .success()
    );
    let secret = fs::read(&key).unwrap();
    let again = bulkhead(&["keygen", &key, "--name", "Kim"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("never replaced"));
    assert_eq!(fs::read(&key).unwrap(), secret);
    let nameless = bulkhead(&["keygen", &path(dir.path(), "k2"), "--name", ""]);
    assert_eq!(nameless.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nameless.stderr).contains("--name: write the officer's name"));
    assert!(!dir.path().join("k2").exists());

    fs::write(&policy, "format = 1\nserail = 2\n").unwrap();
    let broken = bulkhead(&["sign", &policy, "--key", &key]);
    assert_eq!(broken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&broken.stderr);
    let last = said.lines().last().unwrap();
    assert!(last.contains("policy.toml: not signed: ") && last.ends_with(" errors"), "{said}");
    assert!(!dir.path().join("policy.toml.sig").exists());
    bulkhead(&["new", &path(dir.path(), "good.toml")]);
    let with_public =
        bulkhead(&["sign", &path(dir.path(), "good.toml"), "--key", &format!("{key}.pub")]);
    assert_eq!(with_public.status.code(), Some(1));
    let said = String::from_utf8_lossy(&with_public.stderr);
    assert!(said.contains("not the .pub file") && !said.contains("chmod"), "{said}");
}

// Shows: K-2.2.1.
#[test]
fn what_check_refuses_is_not_signed_and_what_it_warns_of_is() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, key) = (path(dir.path(), "policy.toml"), path(dir.path(), "kim"));
    let signatures = dir.path().join("policy.toml.sig");
    assert!(bulkhead(&["keygen", &key, "--name", "kim", "--no-passphrase"]).status.success());
    let written = |clinical: &str, internet: &str, more: &str| {
        let domain = |name: &str, number: u8, colour: &str| {
            format!(
                "[[domain]]\nname = \"{name}\"\nlabel = \"{name}\"\ncolour = \"{colour}\"\nhotkey = \"Ctrl+Alt+{number}\"\n\
                 network = \"passthrough\"\npersistence = \"keep\"\npriority = \"high\"\nidle_lock = \"10m\"\n"
            )
        };
        let (clinical, internet) =
            (domain("clinical", 1, clinical), domain("internet", 2, internet));
        fs::write(
            &policy,
            format!("format = 1\nserial = 1\nissuer = \"Office\"\n{clinical}{internet}{more}"),
        )
        .unwrap();
    };
    let expects = "[[expect]]\nclipboard = { from = \"clinical\", to = \"internet\", type = \"text/plain\", bytes = 1 }\n\
                   verdict = \"allow\"\n";
    for (internet, more, says) in [
        ("#b3271e", "", "hard to tell apart"),
        ("#1f4e9c", "egress = []\n", "not enforced by this version"),
        ("#1f4e9c", expects, "expect"),
    ] {
        written("#b3261e", internet, more);
        let checked = bulkhead(&["check", &policy]);
        assert_eq!(checked.status.code(), Some(1), "{}", String::from_utf8_lossy(&checked.stdout));
        let refused = bulkhead(&["sign", &policy, "--key", &key]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!signatures.exists(), "{says}: signed all the same");
    }
    // Green and red are told apart with effort by some: a warning.
    written("#b3261e", "#1f7a3d", "");
    let checked = json(&bulkhead(&["check", &policy, "--json"]));
    assert!(!checked["warnings"].as_array().unwrap().is_empty(), "{checked}");
    let signed = bulkhead(&["sign", &policy, "--key", &key]);
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    assert!(signatures.exists());
}

#[test]
fn an_officer_changes_to_a_new_key_as_the_handbook_says_and_the_policy_is_approved_all_the_time() {
    let handbook =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security-office/policy-handbook.md");
    let handbook = fs::read_to_string(handbook).unwrap();
    let paragraph = handbook.split("**A new key for an officer.**").nth(1).unwrap();
    let paragraph = paragraph.split("If the old key may be").next().unwrap();
    let commands: Vec<&str> =
        paragraph.split('`').skip(1).step_by(2).filter(|code| code.contains(" policy ")).collect();

    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    let (policy, trust) = (file("policy.toml"), file("trust.toml"));
    bulkhead(&["new", &policy]);
    for (key, name) in [("kim", "Kim Min-ji"), ("lee", "Lee")] {
        assert!(
            bulkhead(&["keygen", &file(key), "--name", name, "--no-passphrase"]).status.success()
        );
        assert!(bulkhead(&["sign", &policy, "--key", &file(key)]).status.success());
    }
    let public = |key: &str| fs::read_to_string(file(&format!("{key}.pub"))).unwrap();
    let trusting = |keys: [&str; 2]| {
        let officers: String = keys.map(public).concat();
        fs::write(&trust, format!("format = 1\nthreshold = 2\n{officers}")).unwrap();
    };
    let approved = || bulkhead(&["verify", &policy, "--trust", &trust]).status.success();
    trusting(["kim", "lee"]);
    assert!(approved());
    let program = artefacts::program("bulkhead").display().to_string();
    let mut carried_out = Vec::new();
    for command in &commands {
        // What is in force on a PC is the other tests' concern.
        if command.contains(" apply ") {
            continue;
        }
        let mut here = command.replace("/media/key/", "").replacen("bulkhead", &program, 1);
        if command.contains(" keygen ") {
            here += " --no-passphrase";
        }
        let done = Command::new("sh").args(["-c", &here]).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(approved(), "{command}");
        carried_out.extend(command.split_whitespace().nth(2));
    }
    assert_eq!(carried_out, ["keygen", "sign", "verify"]);
    // Both at once is refused, and it is said what to do instead.
    fs::write(
        &trust,
        format!("format = 1\nthreshold = 2\n{}{}{}", public("kim"), public("kim-2"), public("lee")),
    )
    .unwrap();
    let twice = bulkhead(&["verify", &policy, "--trust", &trust]);
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("in the place of the old one"), "{said}");
    trusting(["kim-2", "lee"]);
    assert!(approved(), "the new key counts, and what was signed before still does");
    fs::remove_file(file("policy.toml.sig")).unwrap();
    for key in ["kim", "lee"] {
        assert!(bulkhead(&["sign", &policy, "--key", &file(key)]).status.success());
    }
    assert!(!approved(), "the old key still counts");
}
