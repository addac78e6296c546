//! Who has signed a bundle, what is in it, and what is refused of it.

use super::*;

// Shows: K-2.2.2, K-5.1.2, K-5.1.3.
#[test]
fn what_is_not_signed_by_enough_officers_for_images_is_not_installed() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    let refused = || pc.no(&["install", &bundle]);
    assert!(
        refused().contains("2 officers have to sign it, and no signature holds"),
        "{}",
        refused()
    );
    assert!(pc.sign(&bundle, "kim").status.success());
    assert!(pc.sign(&bundle, "park").status.success());
    assert!(
        refused().contains("only kim did; park signed it and may not sign a guest image"),
        "{}",
        refused()
    );
    assert!(refused().contains("`bulkhead images sign`"), "{}", refused());
    assert!(pc.list().is_empty());
    // Officers of a store of before, who may sign policies alone, and a PC without one.
    let store = fs::read_to_string(pc.path("trust.toml")).unwrap();
    let key = store.lines().find(|line| line.starts_with("key")).unwrap();
    fs::write(
        pc.path("trust.toml"),
        format!("format = 1\nthreshold = 1\n[[officer]]\nname = \"kim\"\n{key}\n"),
    )
    .unwrap();
    assert!(refused().contains("lets nobody sign a guest image"), "{}", refused());
    fs::remove_file(pc.path("trust.toml")).unwrap();
    assert!(refused().contains("images are taken signed only"), "{}", refused());
    fs::write(pc.path("trust.toml"), &store).unwrap();
    assert!(pc.sign(&bundle, "lee").status.success());
    pc.yes(&["install", &bundle]);
    // An officer was withdrawn since.
    let trust = |words: &[&str]| {
        let changed =
            command(&[&["trust", words[0], &pc.path("trust.toml")], &words[1..]].concat());
        let changed = { changed }.output().unwrap();
        assert!(changed.status.success(), "{}", said(&changed));
    };
    let choi = pc.path("choi");
    assert!(bulkhead(&["keygen", &choi, "--name", "choi", "--no-passphrase"]).status.success());
    trust(&["add", &format!("{choi}.pub"), "--may-sign", "image"]);
    trust(&["remove", "lee"]);
    assert!(pc.no(&["activate", "clinical"]).contains("only kim did"));
    assert!(pc.no(&["verify"]).contains("only kim did"));
}

// Shows: K-5.1.2.
#[test]
fn what_is_damaged_cut_off_or_no_bundle_is_refused_and_nothing_is_left_of_it() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    let whole = fs::read(&bundle).unwrap();
    let is_refused = |content: &[u8], says: &str| {
        fs::write(&bundle, content).unwrap();
        let why = pc.no(&["install", &bundle]);
        assert!(why.contains(says), "{says}: {why}");
        assert!(pc.list().is_empty());
        assert!(!fs::exists(pc.path("images/clinical/.arriving")).unwrap());
    };
    is_refused(b"", "it is not a bundle");
    is_refused(b"separation policy", "it is not a bundle");
    is_refused(&whole[..whole.len() - 1], "copy the bundle again");
    is_refused(&whole[..20_000.min(whole.len()) / 2], "copy the bundle again");
    is_refused(&[&whole[..], b"more"].concat(), "4 bytes follow its end");
    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).rposition(|it| it == from.as_bytes()).unwrap();
        let mut other = whole.clone();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        other
    };
    is_refused(&changed("disk 1", "disk X"), "disk1 is not what was signed");
    is_refused(&changed("a kernel", "A kernel"), "kernel is not what was signed");
    is_refused(
        &changed("serial = 1", "serial = 9"),
        "the text was changed after kim and lee signed it",
    );
    is_refused(
        &changed("purpose = \"image\"", "purpose = \"trust\""),
        "this bundle is a trust store, and not a guest image",
    );
    is_refused(&changed("part = \"initrd\"", "part = \"kernel\""), "an image has one kernel");
    is_refused(&changed("name = \"clinical\"", "name = \"../etc/x\""), "cannot name an image");
    // Nothing that stands in its place is waited for.
    fs::remove_file(&bundle).unwrap();
    mkfifo(bundle.as_str(), Mode::S_IRWXU).unwrap();
    for words in [["install", &bundle], ["check", &bundle], ["sign", &bundle]] {
        let extra: &[&str] = match words[0] {
            "install" => &[],
            "check" => &["--trust", &pc.path("trust.toml")],
            _ => &["--key", &pc.path("kim")],
        };
        let output = match words[0] {
            "install" => pc.images(&words),
            _ => command(&[&["images"], &words[..], extra].concat()).output().unwrap(),
        };
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            said(&output).contains("it is a named pipe and not a regular file"),
            "{}",
            said(&output)
        );
    }
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, &whole).unwrap();
    pc.yes(&["install", &bundle]);
}

#[test]
fn an_officer_signs_what_she_was_shown_and_not_what_took_its_place() {
    let pc = Pc::new();
    let (bundle, other) = (pc.pack(1, 1, "disk"), pc.pack(2, 1, "another"));
    let whole = fs::read(&other).unwrap();
    fs::write(pc.path("passphrase"), "four words of rain\n").unwrap();
    let key = pc.path("choi");
    let given = ["--passphrase-file", &pc.path("passphrase")];
    let made = bulkhead(&[&["keygen", &key, "--name", "choi"], &given[..]].concat());
    assert!(made.status.success(), "{}", said(&made));
    let mut sign = command(&["images", "sign", &bundle, "--key", &key, "--passphrase-fd", "0"]);
    sign.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = sign.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let shown: Vec<String> = lines.by_ref().map(Result::unwrap).take(5).collect();
    let says = [
        "image clinical, serial 1, floor 1: kernel, initrd, disk1, 5 kB",
        "command line: quiet",
        "root hash: none; each start reads disk1 whole",
        "needs: nothing",
    ];
    assert_eq!(shown[..4], says);
    assert!(shown[4].starts_with("manifest: SHA-256 "), "{shown:?}");
    // While she types.
    fs::rename(&other, &bundle).unwrap();
    child.stdin.take().unwrap().write_all(b"four words of rain\n").unwrap();
    let why: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{why:?}");
    assert!(why.concat().contains("changed or replaced since it was looked at"), "{why:?}");
    assert_eq!(fs::read(&bundle).unwrap(), whole);
}

#[test]
fn a_bundle_is_shown_and_read_before_anybody_has_signed_it() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    let check = |words: &[&str]| {
        command(&[&["images", "check", &bundle, "--trust", &pc.path("trust.toml")], words].concat())
            .output()
            .unwrap()
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(1));
    for says in
        ["command line: quiet\n", "manifest: SHA-256 ", "it is whole\n", "no signature holds"]
    {
        assert!(said(&output).contains(says), "{says}: {}", said(&output));
    }
    let read = json(&check(&["--json"]));
    assert_eq!((&read["whole"], &read["cmdline"]), (&Value::from(true), &Value::from("quiet")));
    let end = fs::metadata(&bundle).unwrap().len() - 1;
    fs::OpenOptions::new().write(true).open(&bundle).unwrap().write_all_at(b"X", end).unwrap();
    let output = check(&[]);
    assert!(said(&output).contains("disk1 is not the one that was signed"), "{}", said(&output));
    assert!(!said(&output).contains("it is whole"), "{}", said(&output));
}

#[test]
fn a_file_that_is_not_there_or_is_no_kernel_is_said_with_what_to_do() {
    let pc = Pc::new();
    fs::create_dir(pc.path("images")).unwrap();
    let why = pc.no(&["install", &pc.path("gone.bundle")]);
    assert!(why.contains("it is not there") && why.contains("mounted"), "{why}");
    assert!(notes(&pc)[0]["why"].as_str().unwrap().starts_with("install: "));
    fs::write(pc.path("vmlinuz"), "a text").unwrap();
    let pack = |more: &[&str]| {
        let words = ["images", "pack", &pc.path("x.bundle"), "--name", "x", "--serial", "1"];
        let output = command(&[&words[..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        said(&output)
    };
    let why = pack(&["--kernel", &pc.path("vmlinuz")]);
    assert!(why.contains("is not a kernel that a domain can start from"), "{why}");
    assert!(pack(&["--kernel", &pc.path("gone")]).contains("correct its name"));
    let why = pack(&["--kernel", &pc.path("vmlinuz"), "--cmdline-file", &pc.path("gone")]);
    assert!(why.contains("--cmdline-file"), "{why}");
}

#[test]
fn who_signs_learns_whose_signature_does_not_fit_and_is_dropped() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    assert!(pc.sign(&bundle, "kim").status.success());
    let mut bytes = fs::read(&bundle).unwrap();
    let word = b"signature = \"";
    let at = bytes.windows(word.len()).position(|it| it == word).unwrap() + word.len();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&bundle, bytes).unwrap();
    let said = said(&pc.sign(&bundle, "lee"));
    let key = fs::read_to_string(pc.path("kim.pub")).unwrap();
    let key = key.split('"').find(|word| word.starts_with("ed25519:")).unwrap();
    assert!(said.contains(&format!("the signature by {key} does not fit the bundle")), "{said}");
    assert!(said.contains("holds 1 signature;"), "{said}");
}
