//! Updates on a PC whose dpkg and agent are a few lines, with real bundles, signatures and a real store.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use images::digest::Digest;
use images::writing;
use policy::signature::SecretKey;
use tempfile::TempDir;

use super::*;
use crate::manifest::{ApprovedBundle, Bundle, Manifest, Member, Package};
use crate::pack::Signing;
use crate::record::{Admission, AdmissionRefusal, InstalledPackage};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_random(&[seed; 32].into())
}

/// Kim and Lee sign programs, and both must; Park signs images and policies.
fn trust() -> TrustStore {
    let officer = |name: &str, seed, may: &str| {
        let key = key(seed).public();
        format!("[[officer]]\nname = \"{name}\"\nkey = \"{key}\"\nmay_sign = [{may}]\n")
    };
    let all = [
        officer("kim", 1, "\"program\""),
        officer("lee", 2, "\"program\""),
        officer("park", 3, "\"image\", \"policy\""),
    ];
    let text = format!(
        "format = 2\nserial = 1\n{}[threshold]\nprogram = 2\nimage = 1\npolicy = 1\n",
        all.concat()
    );
    TrustStore::parse("trust.toml", &text).unwrap()
}

/// A PC, whose dpkg takes a file that says `bulkhead VERSION`.
struct FakePc {
    trust: TrustStore,
    /// What dpkg has; `None` while it is half installed.
    has: Option<String>,
    /// Versions that dpkg does not install.
    breaks_dpkg: Vec<&'static str>,
    /// Versions whose agent does not come up.
    bad: Vec<&'static str>,
    /// Somebody else has packages installed.
    dpkg_is_busy: bool,
    /// The agent does not run.
    no_agent: bool,
    /// How often dpkg finds the disk full.
    full: u32,
    /// What the agent said when it was asked what works.
    worked: Option<WorkingState>,
    /// Packages whose configuration was interrupted: by somebody else, or as theirs are triggers that ours pulls.
    unfinished: Vec<String>,
    /// What was held against a new version's answer, each time.
    held: Vec<Option<WorkingState>>,
    /// Calls until the power goes: once before what is asked is done, once after.
    power: Option<usize>,
    said: Vec<String>,
}

impl FakePc {
    fn tick(&mut self) {
        if let Some(left) = &mut self.power {
            assert_ne!(*left, 0, "the power is gone");
            *left -= 1;
        }
    }

    fn version_now(&self) -> Result<String, String> {
        self.has.clone().ok_or_else(|| "it is half installed".to_owned())
    }
}

impl Pc for FakePc {
    fn trust(&mut self) -> Result<TrustStore, String> {
        self.tick();
        Ok(self.trust.clone())
    }

    fn take_dpkg(&mut self) -> Result<(), String> {
        self.tick();
        if self.dpkg_is_busy { Err("somebody else is at work".to_owned()) } else { Ok(()) }
    }

    fn unfinished(&mut self) -> Result<Vec<String>, String> {
        self.tick();
        Ok(self.unfinished.clone())
    }

    fn settle(&mut self, before: &[String]) {
        self.tick();
        self.unfinished.retain(|package| before.contains(package));
    }

    fn install(&mut self, package: &File) -> Result<(), NotInstalled> {
        self.tick();
        if self.full > 0 {
            self.full -= 1;
            self.has = None;
            return Err(NotInstalled::Passing("No space left on device".to_owned()));
        }
        self.has = None;
        self.tick();
        assert!(package.write_at(b"x", 0).is_err(), "somebody could change it");
        let mut bytes = vec![0; usize::try_from(package.metadata().unwrap().len()).unwrap()];
        package.read_exact_at(&mut bytes, 0).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let version = text.strip_prefix("bulkhead ").unwrap().to_owned();
        if self.breaks_dpkg.iter().any(|bad| *bad == version) {
            return Err(NotInstalled::Lasting("its script fails".to_owned()));
        }
        self.has = Some(version);
        self.unfinished.push("man-db:all".to_owned());
        self.tick();
        // One that was half configured when it is triggered stays so.
        if self.unfinished.iter().filter(|package| *package == "man-db:all").count() == 1 {
            self.unfinished.retain(|package| package != "man-db:all");
        }
        self.unfinished.dedup();
        Ok(())
    }

    fn version(&mut self) -> Result<PackageVersion, String> {
        self.tick();
        self.version_now().map(|version| version.parse().unwrap())
    }

    fn works(&mut self) -> Option<WorkingState> {
        self.tick();
        self.worked.clone()
    }

    fn prove(&mut self, worked: Option<&WorkingState>) -> Proof {
        self.tick();
        self.held.push(worked.cloned());
        let version = self.version_now().unwrap();
        let proof = if self.no_agent {
            Proof::Waits("no agent runs".to_owned())
        } else if self.bad.iter().any(|bad| *bad == version) {
            Proof::Fails("its agent ended 3 times before it was ready".to_owned())
        } else {
            Proof::Works
        };
        self.tick();
        proof
    }

    fn say(&mut self, words: &str) {
        self.said.push(words.to_owned());
    }
}

struct Ward {
    dir: TempDir,
    store: Store,
    pc: FakePc,
}

impl Ward {
    /// A PC that has 1.0, by dpkg alone.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("program"));
        let pc = FakePc {
            trust: trust(),
            has: Some("1.0".to_owned()),
            breaks_dpkg: Vec::new(),
            bad: Vec::new(),
            dpkg_is_busy: false,
            no_agent: false,
            full: 0,
            worked: Some(WorkingState { audit: true, ..WorkingState::default() }),
            unfinished: vec!["vim:amd64".to_owned()],
            held: Vec::new(),
            power: None,
            said: Vec::new(),
        };
        Self { dir, store, pc }
    }

    /// One that has 1.0 by the bundle 1, as it is kept there.
    fn with_a_way_back() -> Self {
        let ward = Self::new();
        assert_eq!(ward.offer(1, 1, "1.0", false), Ok(Admission::IsThere));
        ward
    }

    fn bundle(&self, serial: u64, floor: u64, version: &str) -> PathBuf {
        let package = self.dir.path().join("deb");
        let text = format!("bulkhead {version}");
        fs::write(&package, &text).unwrap();
        let member = Member { part: Package, size: text.len() as u64, sha256: Digest::of(b"") };
        let manifest = Manifest {
            serial,
            floor,
            version: version.parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
            package: member,
        };
        let out = self.dir.path().join(format!("{serial}-{version}.bundle"));
        let _ = fs::remove_file(&out);
        let files = [(package.clone(), File::open(&package).unwrap())];
        writing::write(manifest, &files, Some(&key(1)), &out, |_| ()).unwrap();
        Signing::open(&out).unwrap().sign(&key(2)).unwrap();
        out
    }

    fn approved(&self, serial: u64, floor: u64, version: &str) -> ApprovedBundle {
        let bundle = Bundle::open(&self.bundle(serial, floor, version)).unwrap();
        bundle.approve(&self.pc.trust).unwrap()
    }

    /// Offers a bundle, as `bulkhead program install` does.
    fn offer(
        &self,
        serial: u64,
        floor: u64,
        version: &str,
        no_way_back: bool,
    ) -> Result<Admission, AdmissionRefusal> {
        let approved = self.approved(serial, floor, version);
        let has = self.pc.has.clone().unwrap();
        let has = InstalledPackage {
            offered_is_older: version < has.as_str(),
            offered_is_this: version == has,
            version: has.parse().unwrap(),
        };
        crate::install::take(
            &self.store,
            &approved,
            &self.pc.trust,
            &has,
            crate::install::InstallRequest { uid: 0, no_way_back },
        )
        .map(|taken| taken.admission)
        .map_err(|error| match error {
            StoreError::NotAdmitted(why) => why,
            other => panic!("{other}"),
        })
    }

    fn run(&mut self) -> Option<LastUpdate> {
        match run(&self.store, &mut self.pc).unwrap() {
            UpdateState::Ended(last) => last,
            waits @ UpdateState::Waits { .. } => panic!("{waits:?}"),
        }
    }

    /// Runs it where it cannot come to its end; returns why.
    fn waits(&mut self) -> String {
        match run(&self.store, &mut self.pc) {
            Ok(UpdateState::Waits { why, .. }) => why,
            Ok(ended @ UpdateState::Ended(_)) => panic!("{ended:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.record().pending.map(|pending| pending.stage)
    }

    fn record(&self) -> Record {
        self.store.record().unwrap()
    }

    fn in_force(&self) -> Option<u64> {
        self.record().in_force.map(|kept| kept.serial)
    }

    fn bundles(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.contains(".bundle")).collect();
        names.sort();
        names
    }

    fn noted(&self) -> String {
        fs::read_to_string(self.store.folder().join(".notes.json")).unwrap()
    }
}

fn ended(last: Option<LastUpdate>) -> (u64, Outcome) {
    let last = last.unwrap();
    (last.serial, last.outcome)
}

#[test]
fn an_update_that_works_is_in_force_and_what_was_before_is_kept_for_who_wants_it_back() {
    let mut ward = Ward::with_a_way_back();
    assert!(matches!(ward.offer(2, 1, "2.0", false), Ok(Admission::Update { back: Some(_) })));
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
    assert_eq!((ward.pc.has.as_deref(), ward.in_force()), (Some("2.0"), Some(2)));
    assert_eq!(ward.bundles(), ["1.bundle", "2.bundle"]);
    assert!(ward.noted().contains("\"in-force\""), "{}", ward.noted());
    // By hand, and then there is nothing before it.
    crate::install::roll_back(&ward.store, 1000).unwrap();
    assert_eq!(ended(ward.run()), (1, Outcome::InForce));
    assert_eq!(
        (ward.pc.has.as_deref(), ward.bundles()),
        (Some("1.0"), vec!["1.bundle".to_owned()])
    );
    let refused = crate::install::roll_back(&ward.store, 1000).unwrap_err();
    assert!(refused.to_string().contains("no package before"), "{refused}");
    // The same one again, though it is not newer than the newest; and one after it.
    ward.offer(2, 1, "2.0", false).unwrap();
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
    ward.offer(3, 1, "3.0", false).unwrap();
    ward.run();
    assert_eq!(ward.bundles(), ["2.bundle", "3.bundle"]);
}

#[test]
fn one_whose_agent_does_not_come_up_or_that_dpkg_does_not_install_goes_back_by_itself() {
    for dpkg in [false, true] {
        let mut ward = Ward::with_a_way_back();
        ward.offer(2, 1, "2.0", false).unwrap();
        if dpkg { &mut ward.pc.breaks_dpkg } else { &mut ward.pc.bad }.push("2.0");
        let last = ward.run();
        let why = last.clone().unwrap().why.unwrap();
        assert!(why.contains(if dpkg { "script fails" } else { "ended 3 times" }), "{why}");
        assert_eq!(ended(last), (2, Outcome::Returned));
        assert_eq!((ward.pc.has.as_deref(), ward.in_force()), (Some("1.0"), Some(1)));
        assert_eq!(ward.bundles(), ["1.bundle"]);
        assert!(ward.noted().contains("\"returned\"") && ward.noted().contains("\"back\": 1"));
        // A mended one.
        ward.offer(3, 1, "2.1", false).unwrap();
        assert_eq!(ended(ward.run()), (3, Outcome::InForce));
    }
}

#[test]
fn after_a_power_cut_at_any_moment_the_same_comes_of_it() {
    for (bad, version, in_force) in [(vec![], "2.0", 2), (vec!["2.0"], "1.0", 1)] {
        for after in 0.. {
            let mut ward = Ward::with_a_way_back();
            ward.offer(2, 1, "2.0", false).unwrap();
            ward.pc.bad = bad.clone();
            ward.pc.power = Some(after);
            let cut = catch_unwind(AssertUnwindSafe(|| ward.run())).is_err();
            ward.pc.power = None;
            ward.run();
            assert_eq!(ward.pc.has.as_deref(), Some(version), "after {after} steps");
            assert_eq!(ward.in_force(), Some(in_force), "after {after} steps");
            assert_eq!(ward.pc.unfinished, ["vim:amd64"], "somebody else's, after {after} steps");
            assert_eq!(ward.record().pending, None);
            if !cut {
                assert!(after > 8, "{after} steps in all");
                break;
            }
        }
    }
}

#[test]
fn without_a_way_back_nothing_is_installed_unless_that_is_said_and_then_it_stays_as_it_is() {
    let mut ward = Ward::new();
    let refused = ward.offer(2, 1, "2.0", false).unwrap_err();
    assert!(refused.to_string().contains("say --no-way-back"), "{refused}");
    assert_eq!(ward.record(), Record::default());
    assert!(ward.bundles().is_empty());
    ward.offer(2, 1, "2.0", true).unwrap();
    ward.pc.bad.push("2.0");
    assert_eq!(ended(ward.run()), (2, Outcome::Stuck));
    assert_eq!((ward.pc.has.as_deref(), ward.in_force()), (Some("2.0"), None));
    // A floor that forbids the one before.
    let ward = Ward::with_a_way_back();
    let refused = ward.offer(2, 2, "2.0", false).unwrap_err();
    assert_eq!(refused, AdmissionRefusal::FloorForbidsBack { floor: 2, serial: 1 });
    assert_eq!(ward.offer(2, 2, "2.0", true), Ok(Admission::Update { back: None }));
}

#[test]
fn what_is_older_below_the_floor_or_another_of_the_same_serial_is_refused_and_nothing_changes() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(5, 1, "2.0", false).unwrap();
    ward.run();
    // It is the floor of what was installed that counts, also where it went back.
    ward.offer(7, 5, "3.0", false).unwrap();
    ward.pc.bad.push("3.0");
    assert_eq!(ended(ward.run()), (7, Outcome::Returned));
    let before = ward.record();
    for (offer, says) in [
        ((4, 1, "2.5"), "serial 4 is older than 7"),
        ((7, 1, "3.1"), "serial 7 was another bundle's"),
    ] {
        let refused = ward.offer(offer.0, offer.1, offer.2, false).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let low = KeptPackage { serial: 4, ..before.in_force.clone().unwrap() };
    let without_newest = Record { newest: None, ..before.clone() };
    let has = InstalledPackage {
        version: "2.0".parse().unwrap(),
        offered_is_older: false,
        offered_is_this: false,
    };
    let refused = without_newest.admit(&low, &has, false).unwrap_err();
    assert_eq!(refused, AdmissionRefusal::BelowFloor { serial: 4, floor: 5 });
    assert_eq!(ward.record(), before);
    assert_eq!(ward.pc.has.as_deref(), Some("2.0"));
}

#[test]
fn an_older_version_comes_only_where_officers_gave_it_a_newer_serial_than_what_is_there_has() {
    // What is there came by no bundle.
    let ward = Ward::new();
    let refused = ward.offer(9, 1, "0.9", true).unwrap_err();
    assert!(refused.to_string().contains("0.9 is older than 1.0"), "{refused}");
    let mut ward = Ward::with_a_way_back();
    // Somebody installed another by hand since.
    ward.pc.has = Some("1.5".to_owned());
    let refused = ward.offer(2, 1, "1.2", true).unwrap_err();
    assert!(refused.to_string().contains("by no bundle"), "{refused}");
    assert!(matches!(ward.offer(2, 1, "1.6", false), Err(AdmissionRefusal::NoWayBack(_))));
    ward.pc.has = Some("1.0".to_owned());
    ward.offer(2, 1, "0.9", false).unwrap();
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
    assert_eq!(ward.pc.has.as_deref(), Some("0.9"));
}

mod hindered;
mod waiting;
