//! Who may sign what, and what the doctor says of it.

use policy::signature::SecretKey;
use zeroize::Zeroizing;

use super::*;

#[test]
fn a_key_that_may_sign_everything_and_a_program_that_one_officer_signs_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let inputs = InputFiles {
        machine: at("machine.toml"),
        policy: at("policy.toml"),
        images: at("images"),
        state: at("state"),
        runtime: at("run"),
        vmm: None,
    };
    let look = || software::input_files(&inputs).1;
    fs::write(at("policy.toml"), policy_tools::STARTER).unwrap();
    assert!(look().iter().all(|found| found.check != "trust-store"), "there is none");
    let officer = |number: u8, may_sign: &str| {
        let key = SecretKey::from_random(&Zeroizing::new([number; 32])).public();
        format!(
            "[[officer]]\nname = \"officer {number}\"\nkey = \"{key}\"\nmay_sign = [{may_sign}]\n"
        )
    };
    let lay = |head: &str, officers: &[String]| {
        let text = format!("format = 2\nserial = 3\n[threshold]\n{head}{}", officers.concat());
        fs::write(at("trust.toml"), text).unwrap();
    };
    let all = "\"policy\", \"image\", \"program\", \"trust\"";
    lay(
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
    lay("policy = 2\ntrust = 2\n", &both);
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
    lay("policy = 1\ntrust = 2\n", &both);
    is(Level::Fail, "(serial 3) counts");
    expect(&look(), "trust-store", Level::Fail, &["trust.toml.sig"]);
}
