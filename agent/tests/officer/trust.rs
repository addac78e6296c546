//! Who may sign what: the trust store as officers write, sign and check it.

use std::fs;
use std::process::{Command, Output};

use crate::{artefacts, bulkhead, json, path};

fn trust(arguments: &[&str]) -> Output {
    Command::new(artefacts::program("bulkhead")).arg("trust").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Makes a folder with a policy, and the keys of these officers.
fn office(officers: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    bulkhead(&["new", &path(dir.path(), "policy.toml")]);
    for name in officers {
        let key = path(dir.path(), name);
        assert!(bulkhead(&["keygen", &key, "--name", name, "--no-passphrase"]).status.success());
    }
    dir
}

// Shows: K-2.2.1, K-5.1.2, K-5.1.3.
#[test]
fn officers_make_a_trust_store_change_it_and_sign_the_change() {
    let dir = office(&["kim", "lee", "park"]);
    let file = |name: &str| path(dir.path(), name);
    let (store, before) = (file("trust.toml"), file("before.toml"));
    let begun = trust(&["add", &store, &file("kim.pub"), "--may-sign", "policy,trust"]);
    assert!(begun.status.success(), "{begun:?}");
    assert!(said(&begun).contains("the threshold of `trust` is 1"), "{}", said(&begun));
    assert!(trust(&["add", &store, &file("lee.pub"), "--may-sign", "trust"]).status.success());
    let done = trust(&["threshold", &store, "trust=2"]);
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        format!(
            "wrote {store}\nthreshold: trust from 1 to 2\nserial 3\npolicy   1 of 1: kim\nimage    nobody\nprogram  nobody\ntrust    2 of 2: kim, lee\n"
        )
    );

    let key_of = |name: &str| {
        let text = fs::read_to_string(file(&format!("{name}.pub"))).unwrap();
        text.split('"').nth(3).unwrap().to_owned()
    };
    let added = format!("added: kim, who may sign policy, trust, with the key {}", key_of("kim"));
    assert!(said(&begun).contains(&added), "{}", said(&begun));
    let shown = said(&trust(&["show", &store]));
    for name in ["kim", "lee"] {
        assert!(shown.contains(&format!("{}  {name}\n", key_of(name))), "{shown}");
    }

    // What one may sign counts for nothing else.
    let (policy, key) = (file("policy.toml"), file("lee"));
    assert!(bulkhead(&["sign", &policy, "--key", &key]).status.success());
    let refused = bulkhead(&["verify", &policy, "--trust", &store]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("lee signed it and may not sign a policy"), "{refused:?}");
    assert!(bulkhead(&["sign", &policy, "--key", &file("kim")]).status.success());
    assert!(bulkhead(&["verify", &policy, "--trust", &store]).status.success());

    // A change that both sign.
    fs::copy(&store, &before).unwrap();
    assert!(trust(&["add", &store, &file("park.pub")]).status.success());
    let verify = || trust(&["verify", &store, "--trust", &before]);
    // What differs is said to who looks, and to who signs, whether they may or not.
    let added = format!("added: park, who may sign policy, with the key {}", key_of("park"));
    let copy = file("copy.toml");
    fs::copy(&store, &copy).unwrap();
    let stranger = trust(&["sign", &copy, "--trust", &before, "--key", &file("park")]);
    assert!(stranger.status.success());
    let warned = format!("{} is no key that may sign for `trust`", key_of("park"));
    for says in [&added, &warned] {
        assert!(said(&stranger).contains(says), "{}", said(&stranger));
    }
    assert!(said(&verify()).contains(&added), "{}", said(&verify()));
    assert!(said(&verify()).contains("by the trust store in force, 2 officers have to sign it"));
    for (key, says) in
        [("kim", "only kim did"), ("lee", "signed by kim, lee; it may follow with serial 4")]
    {
        assert!(trust(&["sign", &store, "--key", &file(key)]).status.success());
        assert!(said(&verify()).contains(says), "{}", said(&verify()));
    }
    let shown = json(&trust(&["show", &store, "--json"]));
    assert_eq!((&shown["serial"], &shown["threshold"]["trust"]), (&4.into(), &2.into()));
    assert_eq!(shown["officers"][2]["may_sign"], serde_json::json!(["policy"]));
    // Signed, and older than what is there.
    let older = trust(&["verify", &before, "--trust", &store]);
    assert!(older.status.code() == Some(1), "{older:?}");
    // Changed after it was signed.
    assert!(trust(&["remove", &store, "park"]).status.success());
    assert!(said(&verify()).contains("changed after kim and lee signed it"), "{}", said(&verify()));
    let again = trust(&["sign", &store, "--key", &file("kim"), "--json"]);
    assert_eq!((&json(&again)["signatures"], &json(&again)["removed"]), (&1.into(), &2.into()));
}

// Shows: K-2.2.2.
#[test]
fn signatures_of_a_trust_store_are_none_of_a_policy_and_the_other_way_round() {
    let dir = office(&["kim"]);
    let file = |name: &str| path(dir.path(), name);
    let store = file("trust.toml");
    assert!(
        trust(&["add", &store, &file("kim.pub"), "--may-sign", "policy,trust"]).status.success()
    );
    assert!(trust(&["sign", &store, "--key", &file("kim")]).status.success());
    fs::copy(file("trust.toml.sig"), file("policy.toml.sig")).unwrap();
    let refused = bulkhead(&["verify", &file("policy.toml"), "--trust", &store]);
    assert!(said(&refused).contains("these are signatures of a trust store"), "{}", said(&refused));
    fs::remove_file(file("policy.toml.sig")).unwrap();
    assert!(bulkhead(&["sign", &file("policy.toml"), "--key", &file("kim")]).status.success());
    fs::copy(file("policy.toml.sig"), file("trust.toml.sig")).unwrap();
    let refused = trust(&["verify", &store, "--trust", &store]);
    assert!(said(&refused).contains("has no `purpose`"), "{}", said(&refused));
}

#[test]
fn a_trust_store_that_is_compared_with_itself_is_told_whether_enough_officers_signed_it() {
    let dir = office(&["kim", "lee"]);
    let file = |name: &str| path(dir.path(), name);
    let store = file("trust.toml");
    for key in ["kim.pub", "lee.pub"] {
        assert!(trust(&["add", &store, &file(key), "--may-sign", "policy,trust"]).status.success());
    }
    assert!(trust(&["threshold", &store, "trust=2"]).status.success());
    let verify = || trust(&["verify", &store, "--trust", &store]);
    for (key, says) in [
        ("kim", "only kim did"),
        ("lee", "(kim, lee), which says nothing of the store that a PC goes by"),
    ] {
        let signed = trust(&["sign", &store, "--trust", &store, "--key", &file(key)]);
        assert!(signed.status.success(), "{signed:?}");
        let same = format!("{store} has the same officers and thresholds as {store}");
        assert!(said(&signed).contains(&same), "{}", said(&signed));
        let status = if key == "lee" { 0 } else { 1 };
        assert_eq!(verify().status.code(), Some(status), "{}", said(&verify()));
        assert!(said(&verify()).contains(says), "{}", said(&verify()));
    }
}

#[test]
fn an_old_trust_store_is_shown_verified_by_and_written_anew_for_policies_only() {
    let dir = office(&["kim", "lee"]);
    let file = |name: &str| path(dir.path(), name);
    let store = file("trust.toml");
    let public = fs::read_to_string(file("kim.pub")).unwrap();
    fs::write(&store, format!("format = 1\nthreshold = 1\n{public}")).unwrap();
    assert!(said(&trust(&["show", &store])).contains("format 1: for policies only"));
    let unsigned = trust(&["sign", &store, "--key", &file("kim")]);
    assert!(unsigned.status.code() == Some(1) && said(&unsigned).contains("`bulkhead trust add`"));
    assert!(
        said(&trust(&["verify", &store, "--trust", &store])).contains("asks for no signatures")
    );
    assert!(trust(&["add", &store, &file("lee.pub"), "--may-sign", "trust"]).status.success());
    let shown = json(&trust(&["show", &store, "--json"]));
    assert_eq!(shown["officers"][0]["may_sign"], serde_json::json!(["policy"]));
    assert_eq!((&shown["serial"], &shown["threshold"]["policy"]), (&1.into(), &1.into()));
}

#[test]
fn what_would_be_no_trust_store_is_not_written_and_what_to_do_is_said() {
    let dir = office(&["kim", "lee"]);
    let file = |name: &str| path(dir.path(), name);
    let store = file("trust.toml");
    let (kim, lee) = (file("kim.pub"), file("lee.pub"));
    let only_trust = trust(&["add", &store, &kim, "--may-sign", "trust"]);
    assert!(said(&only_trust).contains("no officer may sign a policy"), "{only_trust:?}");
    assert!(!dir.path().join("trust.toml").exists());
    assert!(trust(&["add", &store, &kim]).status.success());
    assert!(trust(&["add", &store, &lee, "--may-sign", "policy,program"]).status.success());
    assert!(said(&trust(&["show", &store])).contains("program  1 of 1: lee"));
    assert!(trust(&["threshold", &store, "policy=2"]).status.success());
    let before = fs::read_to_string(&store).unwrap();
    let secret = file("kim");
    for (arguments, status, says) in [
        (&["add", &store, &kim][..], 1, "give --replace"),
        (&["add", &store, &secret], 1, "this is a secret key"),
        (&["add", &store, &lee, "--may-sign", "polcy"], 2, "is nothing that an officer may sign"),
        (&["remove", &store, "lee"], 1, "policy=1"),
        (&["remove", &store, "park"], 1, "there are kim, lee"),
        (
            &["threshold", &store, "policy=3"],
            1,
            "only 2 officers may sign `policy`: let another sign for it first",
        ),
        (&["threshold", &store, "program=3"], 1, "only 1 officer may sign `program`: let others"),
        (&["threshold", &store, "policy=0"], 1, "out of range"),
        (&["threshold", &store, "image=1"], 1, "no officer may sign a guest image"),
        (&["threshold", &store, "policy"], 2, "such as policy=2"),
        (&["threshold", &store, "policy=two"], 2, "is no number of officers"),
    ] {
        let refused = trust(arguments);
        assert_eq!(refused.status.code(), Some(status), "{arguments:?}: {}", said(&refused));
        assert!(said(&refused).contains(says), "{arguments:?}: {}", said(&refused));
        assert_eq!(fs::read_to_string(&store).unwrap(), before, "{arguments:?}");
    }
    // Two officers in one file would be two votes of whoever handed it in.
    let two = file("two.pub");
    let both = fs::read_to_string(&kim).unwrap() + &fs::read_to_string(&lee).unwrap();
    fs::write(&two, both.replace("\"kim\"", "\"choi\"").replace("\"lee\"", "\"park\"")).unwrap();
    let refused = trust(&["add", &store, &two]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("a public key file is of one officer"), "{}", said(&refused));
    assert_eq!(fs::read_to_string(&store).unwrap(), before);
    // A new key, and nothing else of what they may.
    let new = path(dir.path(), "new");
    assert!(bulkhead(&["keygen", &new, "--name", "lee", "--no-passphrase"]).status.success());
    let before = json(&trust(&["show", &store, "--json"]));
    let replaced = trust(&["add", &store, &format!("{new}.pub"), "--replace"]);
    assert!(replaced.status.success());
    let shown = json(&trust(&["show", &store, "--json"]));
    assert_eq!(shown["officers"][1]["may_sign"], serde_json::json!(["policy", "program"]));
    assert!(
        fs::read_to_string(format!("{new}.pub"))
            .unwrap()
            .contains(shown["officers"][1]["key"].as_str().unwrap())
    );
    let [old, new_key] =
        [&before, &shown].map(|store| store["officers"][1]["key"].as_str().unwrap());
    let says = format!("another key: lee had {old} and has {new_key}");
    assert!(said(&replaced).contains(&says), "{}", said(&replaced));
    let fewer = trust(&["add", &store, &format!("{new}.pub"), "--replace", "--may-sign", "policy"]);
    assert!(fewer.status.success() && !fs::read_to_string(&store).unwrap().contains("program"));
}

#[test]
fn a_trust_store_that_nobody_could_ever_change_is_neither_signed_nor_good() {
    let dir = office(&["kim"]);
    let file = |name: &str| path(dir.path(), name);
    let (store, before) = (file("trust.toml"), file("before.toml"));
    assert!(
        trust(&["add", &store, &file("kim.pub"), "--may-sign", "policy,trust"]).status.success()
    );
    fs::copy(&store, &before).unwrap();
    let with = |serial: u64| {
        let text = fs::read_to_string(&before).unwrap();
        fs::write(&store, text.replace("serial = 1", &format!("serial = {serial}"))).unwrap();
    };
    with(9_223_372_036_854_775_807);
    for arguments in
        [&["sign", &store, "--key", &file("kim")][..], &["verify", &store, "--trust", &before]]
    {
        let refused = trust(arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(said(&refused).contains("above which there is none"), "{}", said(&refused));
    }
    assert!(!dir.path().join("trust.toml.sig").exists());
    with(9_223_372_036_854_775_806);
    let signed = trust(&["sign", &store, "--key", &file("kim")]);
    assert!(signed.status.success(), "{signed:?}");
    assert!(said(&signed).contains("only one trust store can follow"), "{}", said(&signed));
}
