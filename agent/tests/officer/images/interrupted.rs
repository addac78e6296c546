//! Installations that are killed, or find no room.

use super::*;

/// Starts an installation, and waits until some of the disk is there.
fn begun(pc: &Pc, bundle: &str) -> Child {
    let mut install = pc.command(&["install", bundle]);
    let child = install.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (disk, since) = (pc.path("images/clinical/.arriving/disk1"), Instant::now());
    while fs::metadata(&disk).map_or(0, |disk| disk.len()) < 2 << 20 {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn an_installation_that_is_killed_leaves_the_image_in_force_and_is_gone_on_with() {
    let pc = Pc::new();
    pc.yes(&["install", &pc.signed(1, 1)]);
    pc.yes(&["activate", "clinical"]);
    let bundle = pc.pack(2, 1, &"large ".repeat(16 << 20));
    for officer in ["kim", "lee"] {
        assert!(pc.sign(&bundle, officer).status.success());
    }
    let mut child = begun(&pc, &bundle);
    // Meanwhile nobody else installs.
    let busy = pc.no(&["install", &bundle]);
    assert!(busy.contains("another command installs or removes image clinical"), "{busy}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(pc.list(), [(1, "pending".to_owned())]);
    let there = fs::metadata(pc.path("images/clinical/.arriving/disk1")).unwrap().len();
    assert!((2 << 20..96 << 20).contains(&there), "{there}");
    pc.yes(&["install", &bundle]);
    assert_eq!(pc.list(), [(2, "installed".to_owned()), (1, "pending".to_owned())]);
    pc.yes(&["verify"]);
    assert!(!fs::exists(pc.path("images/clinical/.arriving")).unwrap());
}

/// Installs a bundle into a store on a file system with these limits, and lists what is left; `None` where there are no namespaces.
fn on_small_disk(pc: &Pc, bundle: &str, limits: &str) -> Option<Output> {
    let _ = fs::create_dir(pc.path("images"));
    let install = pc.command(&["install", bundle]);
    let words: Vec<_> = std::iter::once(install.get_program()).chain(install.get_args()).collect();
    let mut full = Command::new("unshare");
    full.args(["--mount", "--map-root-user", "sh", "-c"]);
    full.arg(format!("mount -t tmpfs -o {limits} tmpfs \"$0\" && \"$@\"; status=$?; ls -A \"$0/clinical\"; exit $status"));
    let output = full.arg(pc.path("images")).args(words).output().ok()?;
    let none = said(&output).contains("unshare:") || said(&output).contains("mount:");
    (!none).then_some(output)
}

#[test]
fn a_disk_that_is_full_at_any_step_of_an_installation_is_left_as_it_was() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    for (refused, files) in (4..20).enumerate() {
        let limits = format!("size=2g,nr_inodes={files}");
        let Some(output) = on_small_disk(&pc, &bundle, &limits) else { return };
        let said = said(&output);
        if output.status.success() {
            assert!(refused > 4, "{files}: {said}");
            return;
        }
        let left: Vec<_> = said.lines().filter(|line| [".arriving", "1"].contains(line)).collect();
        assert!(left.is_empty(), "{files}: {said}");
    }
    panic!("it is never installed");
}

#[test]
fn a_full_disk_is_told_before_anything_is_copied() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, &"x".repeat(4 << 20));
    for officer in ["kim", "lee"] {
        assert!(pc.sign(&bundle, officer).status.success());
    }
    let Some(output) = on_small_disk(&pc, &bundle, "size=2m") else { return };
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let says = "and 1029 MiB are to come, with 1024 that stay free";
    assert!(said(&output).contains(says), "{}", said(&output));
    assert!(said(&output).contains("nothing was installed"), "{}", said(&output));
    assert!(!said(&output).contains(".arriving"), "{}", said(&output));
}

#[test]
fn a_first_installation_that_was_interrupted_is_listed_with_what_to_do() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    fs::create_dir(pc.path("images")).unwrap();
    // What cannot be noted does not arrive; what was copied stays.
    fs::write(pc.path("images/.notes.json"), "{").unwrap();
    pc.no(&["install", &bundle]);
    let said = pc.yes(&["list"]);
    assert!(said.contains("clinical: a command is at work, or was interrupted"), "{said}");
    assert!(said.contains("images/clinical/.arriving"), "{said}");
    let list = json(&pc.images(&["list", "--json"]));
    assert_eq!(list["interrupted"], Value::from(vec!["clinical"]));
    fs::remove_file(pc.path("images/.notes.json")).unwrap();
    pc.yes(&["install", &bundle]);
    assert!(!pc.yes(&["list"]).contains("interrupted"));
}
