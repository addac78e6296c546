use super::*;
use form::diagnostic::Severity;
use policy::language::Network;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;

fn domain_policy(name: &str, network: Network) -> DomainPolicy {
    let (name, label) = (name.to_owned(), name.to_uppercase());
    DomainPolicy {
        discard: name == "internet",
        renew_at: Vec::new(),
        renew_when_idle: None,
        high_priority: name == "clinical",
        name,
        label,
        network,
    }
}

/// Returns the domains of the corpora: `lab` has no network, and only the files that name it meet it.
fn domain_policies(text: &str) -> Vec<DomainPolicy> {
    let mut domain_policies = vec![
        domain_policy("clinical", Network::Passthrough),
        domain_policy("internet", Network::Passthrough),
    ];
    if text.contains("domain.lab") {
        domain_policies.push(domain_policy("lab", Network::None));
    }
    domain_policies
}

fn parse(text: &str) -> Result<Machine, Diagnostics> {
    parse_in(Path::new("/images"), text)
}

fn parse_in(images: &Path, text: &str) -> Result<Machine, Diagnostics> {
    Machine::parse(
        "machine.toml",
        text,
        Context { images, domain_policies: Some(&domain_policies(text)) },
    )
}

fn corpus(kind: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine").join(kind);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn every_good_file_is_taken() {
    let corpus = corpus("good");
    assert!(corpus.len() >= 3);
    for (name, text) in corpus {
        parse(&text).unwrap_or_else(|problems| panic!("{name}:\n{}", problems.render(false)));
    }
}

/// Beside each bad file lies what is said of it: `LINE:COLUMN TEXT: MESSAGE; HELP`, one a line. After a change that is meant,
/// `BLESS=1 cargo test -p bulkhead-config --lib machine` writes it anew; read the difference before committing.
#[test]
fn every_bad_file_is_refused_with_every_problem_at_its_place_and_a_remedy() {
    let corpus = corpus("bad");
    assert!(corpus.len() >= 10);
    let mut wrong = String::new();
    for (name, text) in corpus {
        let problems = parse(&text).expect_err(&name);
        let said: String = problems
            .located(Severity::Error)
            .iter()
            .map(|p| format!("{}:{} `{}`: {}; {}\n", p.line, p.column, p.text, p.message, p.help))
            .collect();
        let expected = name.replace(".toml", ".expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push_str(&format!("--- {expected}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "what is said differs from what is expected:\n{wrong}");
}

fn kernel_of(vm: &VmHardware) -> Option<&str> {
    match &vm.boot {
        Boot::Files { kernel, .. } => kernel.to_str(),
        Boot::Image(_) => None,
    }
}

#[test]
fn a_domain_starts_from_an_image_that_is_named_and_keeps_its_own_disks() {
    let text =
        "format = 1\n[domain.clinical]\nimage = \"clinical\"\ndisks = [{ path = \"home.img\" }]\n";
    let machine = Machine::parse(
        "machine.toml",
        text,
        Context { images: Path::new("/images"), domain_policies: None },
    );
    let machine = machine.unwrap();
    let Kind::Vm(vm) = &machine.domain("clinical").unwrap().kind else { panic!() };
    assert_eq!(vm.boot, Boot::Image("clinical".parse().unwrap()));
    assert_eq!(vm.disks, [Disk { path: "/images/home.img".into(), readonly: false }]);
}

#[test]
fn paths_are_relative_to_the_images_and_defaults_are_modest() {
    let machine = parse(include_str!("../../tests/machine/good/minimal.toml")).unwrap();
    assert_eq!(machine.stop_deadline, STOP_DEADLINE_DEFAULT);
    assert!(!machine.allow_host_network);
    assert_eq!(machine.domain("internet").unwrap().kind, Kind::External);
    let Kind::Vm(vm) = &machine.domain("clinical").unwrap().kind else { panic!() };
    assert_eq!(
        (vm.memory, vm.cpus, kernel_of(vm)),
        (MemorySize::DOMAIN_DEFAULT, 1, Some("/boot/vmlinuz"))
    );
    let everything = parse(include_str!("../../tests/machine/good/everything.toml")).unwrap();
    assert_eq!(machine.audit, audit::Limits::default());
    let kept = everything.audit;
    assert_eq!((kept.keep_for.as_secs(), kept.total_bytes), (731 * 86_400, 1 << 30));
    assert_eq!(kept.when_full, audit::WhenFull::DropOldest);
    assert_eq!(everything.domains[0].name, "clinical", "the order is the policy's");
    let Kind::Vm(vm) = &everything.domains[0].kind else { panic!() };
    assert_eq!(
        vm.boot,
        Boot::Files {
            kernel: "/images/k".into(),
            initrd: Some("/abs/initrd".into()),
            cmdline: "console=ttyS0 -- quiet".to_owned()
        }
    );
}

/// The VMM's command line has the same test.
#[test]
fn sizes_and_addresses_are_taken_as_the_vmm_takes_them() {
    for memory in ["4G", "4GB", "4GiB"] {
        let text = format!(
            "format = 1\n[domain.clinical]\nkernel = \"k\"\nmemory = \"{memory}\"\nnic = \"05:00.0\"\npassthrough = [\"06:00.0\", {{ address = \"07:00.1\" }}]\n"
        );
        let context = Context { images: Path::new("/images"), domain_policies: None };
        let machine = Machine::parse("machine.toml", &text, context).unwrap();
        let Kind::Vm(vm) = &machine.domains[0].kind else { panic!() };
        assert_eq!(vm.memory.bytes(), 4 << 30);
        let addresses: Vec<String> =
            vm.pci_functions().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["0000:05:00.0", "0000:06:00.0", "0000:07:00.1"]);
    }
}

#[test]
fn times_are_taken_as_the_command_line_of_the_vmm_takes_them() {
    for (written, seconds) in
        [("1s", 1), ("30s", 30), ("30 s", 30), ("2m", 120), ("2M", 120), ("600s", 600)]
    {
        let text = format!("format = 1\nstop_deadline = \"{written}\"\n");
        let context = Context { images: Path::new("/images"), domain_policies: None };
        let machine = Machine::parse("machine.toml", &text, context).unwrap();
        assert_eq!(machine.stop_deadline, Duration::from_secs(seconds), "{written}");
    }
}

#[test]
fn one_disk_is_found_under_two_names_a_link_and_a_hard_link() {
    let images = tempfile::tempdir().unwrap();
    let at = |name: &str| images.path().join(name);
    fs::write(at("disk.img"), "x").unwrap();
    symlink("disk.img", at("link.img")).unwrap();
    fs::hard_link(at("disk.img"), at("hard.img")).unwrap();
    fs::create_dir(at("sub")).unwrap();
    symlink(at("sub"), at("other")).unwrap();
    for (one, two) in [
        ("disk.img", "link.img"),
        ("disk.img", "hard.img"),
        ("disk.img", "sub/../disk.img"),
        ("sub/new.img", "other/new.img"),
    ] {
        let text = format!(
            r#"format = 1
            [domain.clinical]
            kernel = "k"
            nic = "0000:00:05.0"
            disks = [ {{ path = "{one}" }} ]
            [domain.lab]
            kernel = "k"
            disks = [ {{ path = "{two}" }} ]
            [domain.internet]
            vmm = "external""#
        );
        let problems = parse_in(images.path(), &text).expect_err(two).to_string();
        assert!(problems.contains("already belongs to clinical"), "{two}: {problems}");
    }
}

#[test]
fn a_base_image_may_serve_several_domains_that_forget_what_they_write() {
    let text = r#"format = 1
        [domain.clinical]
        kernel = "k"
        nic = "0000:00:05.0"
        disks = [ { path = "base.img", readonly = true } ]
        [domain.internet]
        kernel = "k"
        nic = "0000:00:06.0"
        disks = [ { path = "base.img" } ]"#;
    parse(text).unwrap();
    let kept = text.replace("readonly = true", "readonly = false");
    assert!(parse(&kept).unwrap_err().to_string().contains("already belongs to clinical"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall_over(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_cut_or_changed_file_makes_the_parser_fall_over(at in any::<prop::sample::Index>(), with in "\\PC{0,4}") {
        let good = include_str!("../../tests/machine/good/everything.toml");
        let mut at = at.index(good.len());
        while !good.is_char_boundary(at) { at -= 1; }
        let (before, after) = good.split_at(at);
        for text in [format!("{before}{with}{after}"), format!("{before}{with}")] {
            if let Err(problems) = parse(&text) {
                prop_assert!(!problems.is_empty());
                prop_assert!(!problems.render(false).is_empty());
            }
        }
    }
}
