//! Who may sign what, and what the doctor says of it.

use inforce::policy_store::PolicyStore;
use policy::signature::SecretKey;
use zeroize::Zeroizing;

use super::*;

/// An `[[officer]]` with a key of this number, and the words in `may_sign`.
fn officer(number: u8, may_sign: &str) -> String {
    let key = SecretKey::from_random(&Zeroizing::new([number; 32])).public();
    format!("[[officer]]\nname = \"officer {number}\"\nkey = \"{key}\"\nmay_sign = [{may_sign}]\n")
}

/// Writes a trust store with these thresholds and officers.
fn lay(dir: &Path, thresholds: &str, officers: &[String]) {
    let text = format!("format = 2\nserial = 3\n[threshold]\n{thresholds}{}", officers.concat());
    fs::write(dir.join("trust.toml"), text).unwrap();
}

#[test]
fn a_key_that_may_sign_everything_and_a_program_that_one_officer_signs_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let inputs = inputs(dir.path());
    let look = || software::input_files(&inputs).1;
    fs::write(at("policy.toml"), policy_tools::STARTER).unwrap();
    assert!(look().iter().all(|found| found.check != "trust-store"), "there is none");
    let all = "\"policy\", \"image\", \"program\", \"trust\"";
    lay(
        dir.path(),
        "policy = 1\nimage = 1\nprogram = 1\ntrust = 2\n",
        &[officer(1, all), officer(2, "\"trust\"")],
    );
    let found = look();
    let warned: Vec<&Finding> = found.iter().filter(|it| it.check == "trust-store").collect();
    assert_eq!(warned.len(), 2, "{found:?}");
    for (warned, says) in
        warned.iter().zip(["officer 1 may sign everything", "threshold of `program` is 1"])
    {
        assert!(warned.level == Level::Warn && warned.message.contains(says), "{warned:?}");
        assert!(warned.remedy.as_ref().unwrap().contains("bulkhead trust"), "{warned:?}");
    }
    let both = [officer(1, "\"policy\", \"trust\""), officer(2, "\"policy\", \"trust\"")];
    lay(dir.path(), "policy = 2\ntrust = 2\n", &both);
    let is = |level: Level, says: &str| {
        let findings = look();
        let found = finding(&findings, "trust-store");
        assert!(found.level == level && found.message.contains(says), "{found:?}");
    };
    is(Level::Ok, "serial 3; policy 2 of 2, trust 2 of 2");
    // What the agent remembers counts, and the file does not.
    let memory = serde_json::json!({ "text": fs::read_to_string(at("trust.toml")).unwrap() });
    fs::create_dir(at("state")).unwrap();
    fs::write(at("state/trust.json"), memory.to_string()).unwrap();
    is(Level::Ok, "serial 3");
    lay(dir.path(), "policy = 1\ntrust = 2\n", &both);
    is(Level::Fail, "(serial 3) counts");
    expect(&look(), "trust-store", Level::Fail, &["trust.toml.sig"]);
}

#[test]
fn who_may_not_read_what_the_pc_remembers_is_told_that_the_file_may_not_count() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let machine = at("machine.toml");
    lay(dir.path(), "policy = 1\n", &[officer(1, "\"policy\"")]);
    fs::create_dir(at("state")).unwrap();
    mode(dir.path(), 0o755);
    mode(&at("trust.toml"), 0o644);
    mode(&at("state"), 0o000);
    // A thread that is no root's where the test is; elsewhere the mode is enough.
    let look = || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        let store = PolicyStore::for_looking(&at("policy.toml"), &machine, &at("state"));
        crate::trust::examine(&store, &machine)
    };
    let found = std::thread::scope(|scope| scope.spawn(look).join().unwrap());
    mode(&at("state"), 0o700);
    assert!(found.iter().all(|it| it.level == Level::Warn), "it is not said to count: {found:?}");
    let warned = found.iter().find(|it| it.message.contains("cannot be read")).unwrap();
    assert!(warned.remedy.as_ref().unwrap().contains("as root"), "{warned:?}");
}
