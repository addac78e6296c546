//! What a trust store and a public key file say: mistakes in them, weak settings, what differs from another.

use policy::signature::public_key;

use super::*;

#[test]
fn a_trust_store_with_a_mistake_is_refused_with_what_to_write() {
    let (kim, lee) = (officer(0, "\"policy\""), officer(1, "\"policy\", \"trust\""));
    let store = |head: &str| format!("format = 2\n{head}{kim}{lee}");
    for (text, says, remedy) in [
        (store("serial = 1\n"), "has no `threshold`", "write [threshold]"),
        (store("serial = 1\nthreshold = 2\n"), "expected a table", "write [threshold]"),
        (store("[threshold]\npolicy = 1\ntrust = 1\n"), "has no `serial`", "serial = 1"),
        (
            store("serial = 0\n[threshold]\npolicy = 1\ntrust = 1\n"),
            "the serial is out of range",
            "from 1",
        ),
        (
            store("serial = 1\n[threshold]\npolicy = 1\n"),
            "[threshold] has no `trust`",
            "such as `trust = 1`",
        ),
        (
            store("serial = 1\n[threshold]\npolicy = 0\ntrust = 1\n"),
            "how many officers must sign is out of range",
            "from 1 to 2",
        ),
        (
            store("serial = 1\n[threshold]\npolicy = 3\ntrust = 1\n"),
            "how many officers must sign is out of range",
            "from 1 to 2",
        ),
        (
            store("serial = 1\n[threshold]\npolicy = 2\ntrust = 2\n"),
            "how many officers must sign is out of range",
            "from 1 to 1",
        ),
        (
            store("serial = 1\n[threshold]\npolicy = 1\ntrust = 1\nprogram = 1\n"),
            "no officer may sign a program",
            "write \"program\" into",
        ),
        (
            store("serial = 1\n[threshold]\npolcy = 1\npolicy = 1\ntrust = 1\n"),
            "[threshold] has no key `polcy`",
            "did you mean `policy`?",
        ),
        (
            store("serail = 1\n[threshold]\npolicy = 1\ntrust = 1\n"),
            "has no key `serail`",
            "did you mean `serial`?",
        ),
        (
            format!("format = 2\nserial = 1\n[threshold]\npolicy = 1\n{}", officer(0, "\"polcy\"")),
            "\"polcy\" is not something that an officer may sign",
            "did you mean \"policy\"?",
        ),
        (
            format!("format = 2\nserial = 1\n[threshold]\npolicy = 1\n{}", officer(0, "")),
            "may sign nothing",
            "or remove the officer",
        ),
        (
            format!(
                "format = 2\nserial = 1\n[threshold]\npolicy = 1\n{}",
                officer(0, "\"policy\", \"policy\"")
            ),
            "\"policy\" is here already",
            "remove one of the two",
        ),
        (
            format!("format = 2\nserial = 1\n[threshold]\ntrust = 1\n{}", officer(0, "\"trust\"")),
            "no officer may sign a policy",
            "write \"policy\" into",
        ),
        (
            "format = 2\nserial = 1\n[threshold]\n".to_owned(),
            "has no officer",
            "add an [[officer]]",
        ),
        (
            format!(
                "format = 2\nserial = 1\n[threshold]\npolicy = 1\n{}",
                kim.replace("may_sign", "may_sing")
            ),
            "has no key `may_sing`",
            "did you mean `may_sign`?",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(says) && found.contains(remedy), "{text}\n{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
    // A key whose purposes are not said may sign nothing: the file is refused.
    let without = kim.replace("may_sign = [\"policy\"]\n", "");
    let found = refused(&format!("format = 2\nserial = 1\n[threshold]\npolicy = 1\n{without}"));
    assert!(found.contains("has no `may_sign`") && found.contains("[\"policy\"]"), "{found}");
}

#[test]
fn weak_settings_are_said_with_what_to_do() {
    let said = |store: &TrustStore| -> Vec<String> {
        store.weaknesses().iter().map(ToString::to_string).collect()
    };
    let all = said(&everything());
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].contains("the key of Kim may sign everything"), "{all:?}");
    assert!(all[0].contains("a name of its own such as `Kim (program)`"), "{all:?}");
    assert!(
        all[1].contains("the threshold of `program` is 1") && all[1].contains("program=2"),
        "{all:?}"
    );
    assert!(all[2].contains("the threshold of `trust` is 1"), "{all:?}");
    let unsigned = parsed(&format!(
        "format = 2\nserial = 1\n[threshold]\npolicy = 1\n{}",
        officer(0, "\"policy\"")
    ));
    assert!(said(&unsigned).concat().contains("nobody signs changes of the trust store"));
    // The command can be copied: an officer's name is no file's name, and may have spaces.
    assert!(!all.concat().contains("Kim.pub"), "{all:?}");
    let remedy = "FILE KEY.pub --may-sign policy,trust --replace` with the .pub file of Kim";
    assert!(said(&unsigned).concat().contains(remedy), "{:?}", said(&unsigned));
    assert!(all[0].contains("FILE KEY.pub --may-sign policy,trust,image --replace`"), "{all:?}");
    let lower = parsed(&format!(
        "format = 2\nserial = 1\n[threshold]\npolicy = 3\ntrust = 2\n{}{}{}",
        officer(0, "\"policy\", \"trust\""),
        officer(1, "\"policy\", \"trust\""),
        officer(2, "\"policy\"")
    ));
    assert!(said(&lower).concat().contains("`policy` asks for 3 officers, and the 2 that `trust`"));
    assert_eq!(said(&parsed(&in_force(1, [0, 1], None))), Vec::<String>::new());
    for (left, says) in [
        (0, Some("no trust store can follow")),
        (1, Some("only one trust store can follow")),
        (99_999, Some("only 99999 trust stores can follow")),
        (100_000, None),
    ] {
        let found = said(&parsed(&in_force(SERIAL_MAX - left, [0, 1], None)));
        assert_eq!(found.iter().any(|it| it.contains("can follow this one")), says.is_some());
        assert!(says.is_none_or(|says| found.concat().contains(says)), "{found:?}");
    }
}

#[test]
fn what_differs_from_one_trust_store_to_another_is_said_officer_by_officer() {
    let (before, after) = (
        TrustDraft::from(&parsed(&in_force(1, [0, 1], Some(2)))),
        TrustDraft::from(&parsed(&in_force(2, [0, 3], None))),
    );
    assert!(before.differences(&before).is_empty());
    let mut exchanged = after.clone();
    exchanged.officers[0].key = key(9).public();
    exchanged.officers[0].may_sign = vec![Purpose::Trust];
    exchanged.thresholds.insert(Purpose::Trust, 1);
    let said = before.differences(&exchanged).iter().map(ToString::to_string).collect::<Vec<_>>();
    let [old, new, added] = [0, 9, 3].map(|number| key(number).public());
    let (kim, other) = (&before.officers[0].name, &after.officers[1].name);
    assert_eq!(said[0], format!("another key: {kim} had {old} and has {new}"));
    assert_eq!(said[1], format!("may sign: {kim} could sign policy, trust and may trust"));
    assert_eq!(
        said[2],
        format!("added: {other}, who may sign policy, trust, with the key {added}")
    );
    assert!(said[3].starts_with("removed: ") && said[4].starts_with("removed: "), "{said:?}");
    assert_eq!((said[5].as_str(), said.len()), ("threshold: trust from 2 to 1", 6));
}

#[test]
fn a_public_key_file_says_who_and_the_trust_store_what_they_may_sign() {
    let file = format!("[[officer]]\nname = \"Kim\"\nkey = \"{}\"\n", key(0).public());
    assert_eq!(public_key("kim.pub", &file).unwrap(), ("Kim".to_owned(), key(0).public()));
    for (text, says) in [
        (format!("{file}may_sign = [\"program\"]\n"), "no key `may_sign`"),
        (format!("{file}{file}"), "one officer would count as two"),
        (
            format!(
                "{file}{}",
                file.replace("Kim", "Lee")
                    .replace(&key(0).public().to_string(), &key(1).public().to_string())
            ),
            "a public key file is of one officer",
        ),
        ("format = 1\n".to_owned(), "not an officer's public key"),
        (key(0).text().to_string(), "this is a secret key"),
    ] {
        let found = public_key("kim.pub", &text).unwrap_err().to_string();
        assert!(found.contains(says), "{found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_of_a_trust_store_is_read_as_the_same(draft in stores()) {
        match TrustStore::parse("trust.toml", &draft.text()) {
            Ok(store) => prop_assert_eq!(TrustDraft::from(&store), draft),
            // The one thing that may be wrong with it.
            Err(found) => {
                prop_assert!(!draft.thresholds.contains_key(&Purpose::Policy), "{}", found);
                prop_assert!(found.to_string().contains("no officer may sign a policy"), "{}", found);
            }
        }
    }

    #[test]
    fn any_text_that_looks_like_a_trust_store_is_read_to_the_end(
        words in prop::collection::vec(prop::sample::select(vec![
            "[[officer]]", "[threshold]", "[[", "]]", "\n", "format = 2\n", "format = 1\n", "serial", "threshold", "policy", "trust", "may_sign",
            "=", "1", "2", "[", "]", "\"", ",", "{", "}", "name", "key", "ed25519:", "00", "é",
        ]), 0..60)
    ) {
        let text = words.concat();
        let refused = [
            TrustStore::parse("a", &text).err(),
            public_key("a", &text).err(),
            Signatures::<TrustText>::parse("a", &text).err(),
        ];
        for found in refused.into_iter().flatten() {
            prop_assert!(!found.render(false).is_empty());
        }
    }
}
