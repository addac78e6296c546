//! Setup on PCs of files, by persons who follow a script, with a disk that fills and programs that fail when a test says so.

mod proposing;
mod undoing;
mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use control::setup_report::{SetupReport, SetupResult};
use handover::fake::FakePc;
use zeroize::Zeroizing;

use crate::dialogue::{Dialogue, Question, Unanswered};
use crate::effects::{Attributes, Effects, ThisPc};
use crate::{Caller, Options, Pc, run};

const POLICY: &str = include_str!("../../examples/policy.toml");
/// Everything that would be asked on a PC with two NICs.
const ANSWERS: &str = "format = 1\nenable = true\n[domain.clinical]\nnic = { interface = \"enp0s5\" }\n[roles]\nit = [\"kim\"]\n";
const ONE: &str = "52:54:00:12:34:05";
const TWO: &str = "52:54:00:12:34:06";

/// A PC with Debian and the package on it.
struct Ward {
    fake: FakePc,
}

impl Ward {
    /// Returns a PC without NICs.
    fn bare() -> Self {
        let fake = FakePc::new();
        let ward = Self { fake };
        let cpus: String = (0..4)
            .map(|n| format!("processor\t: {n}\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n\n"))
            .collect();
        ward.write("proc/cpuinfo", &cpus);
        ward.write("proc/meminfo", "MemTotal:        8048576 kB\n");
        ward.write("sys/firmware/acpi/tables/DMAR", "");
        ward.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000::/home/kim:/bin/sh\n");
        ward.write("etc/group", "root:x:0:\nkim:x:1000:\n");
        ward.write("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n");
        ward.write("boot/grub/grub.cfg", "linux /vmlinuz\n### END /etc/grub.d/41_custom ###\n");
        ward.write("etc/bulkhead/policy.toml", POLICY);
        ward.write("etc/bulkhead/machine.toml", "# an example\nformat = 1\n\n# [seat]\n");
        ward.write("usr/lib/modules-load.d/bulkhead.conf", "vfio\n");
        ward.write("usr/lib/systemd/system/bulkhead-agent.service", "[Unit]\n");
        ward.folder("etc/systemd/system/multi-user.target.wants");
        ward.folder("etc/systemd/system/sysinit.target.wants");
        ward.folder("var/lib/bulkhead/images");
        ward.folder("run");
        let screen = ward.fake.add("0000:00:02.0", 0x03_0000, Some("i915"), None);
        ward.fake.add_card(screen, "card0", "connected");
        ward
    }

    /// Makes a stock PC with two of one model, and an IOMMU that firmware offers and the kernel does not use.
    fn stock() -> Self {
        let ward = Self::bare();
        ward.nic("0000:00:05.0", "enp0s5", ONE, None);
        ward.nic("0000:00:06.0", "enp0s6", TWO, None);
        ward
    }

    fn nic(&self, address: &str, name: &str, mac: &str, group: Option<u32>) {
        let address = self.fake.add(address, 0x02_0000, Some("e1000e"), group);
        self.fake.add_interface(address, name, mac);
    }

    fn at(&self, below: &str) -> PathBuf {
        self.fake.dir.path().join(below)
    }

    fn folder(&self, below: &str) {
        fs::create_dir_all(self.at(below)).unwrap();
    }

    fn write(&self, below: &str, text: &str) {
        fs::create_dir_all(self.at(below).parent().unwrap()).unwrap();
        fs::write(self.at(below), text).unwrap();
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.at(below)).unwrap()
    }

    fn answers(&self, text: &str) -> Options {
        self.write("answers.toml", text);
        Options { answers: Some(self.at("answers.toml")), yes: true, ..self.asking() }
    }

    fn asking(&self) -> Options {
        Options {
            machine: self.at("etc/bulkhead/machine.toml"),
            policy: self.at("etc/bulkhead/policy.toml"),
            images: self.at("var/lib/bulkhead/images"),
            state: self.at("var/lib/bulkhead"),
            ..Options::default()
        }
    }

    fn undoing(&self) -> Options {
        Options { undo: true, yes: true, ..self.asking() }
    }

    fn run(&self, options: &Options) -> SetupReport {
        self.run_with(options, &mut Person::default(), &mut self.hands())
    }

    fn run_with(&self, options: &Options, person: &mut Person, hands: &mut Hands) -> SetupReport {
        self.run_by(&Caller { is_root: true, ssh_connection: None }, options, person, hands)
    }

    fn run_by(
        &self,
        caller: &Caller,
        options: &Options,
        person: &mut Person,
        hands: &mut Hands,
    ) -> SetupReport {
        run(&self.pc(), caller, options, person, hands)
    }

    fn pc(&self) -> Pc {
        Pc { root: self.fake.dir.path().to_owned(), sysfs: self.fake.sysfs() }
    }

    fn hands(&self) -> Hands {
        Hands { root: self.fake.dir.path().to_owned(), ..Hands::default() }
    }

    /// Returns everything that setup could have changed: files with their content, links, folders.
    fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.at("etc"), self.at("boot"), self.at("var")];
        while let Some(path) = left.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let what = if metadata.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                "folder".to_owned()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                let attributes = Attributes::of(&metadata);
                format!("{:o} {}", attributes.mode, fs::read_to_string(&path).unwrap())
            };
            found.insert(path, what);
        }
        found
    }
}

/// Somebody who answers by a script, and nobody when it is at its end.
#[derive(Default)]
struct Person {
    chooses: Vec<usize>,
    agrees: Option<bool>,
    /// At the end of the script somebody is there still, and what they write is no answer.
    mumbles: bool,
    asked: Vec<Question>,
    shown: String,
}

impl Person {
    fn silence(&self) -> Unanswered {
        if self.mumbles { Unanswered::NotUnderstood } else { Unanswered::Nobody }
    }
}

impl Dialogue for Person {
    fn show(&mut self, text: &str) {
        self.shown.push_str(text);
    }

    fn choose(&mut self, question: &Question) -> Result<usize, Unanswered> {
        self.asked.push(question.clone());
        (!self.chooses.is_empty()).then(|| self.chooses.remove(0)).ok_or(self.silence())
    }

    fn confirm(&mut self, _: &str) -> Result<bool, Unanswered> {
        self.agrees.ok_or(self.silence())
    }
}

/// How a step goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fault {
    /// The power goes after it.
    #[default]
    After,
    /// The power goes while a file is written, or before anything else is done.
    Between,
    /// The disk is full, for this and whatever is written after it.
    Full,
}

/// What setup does to the PC of files; programs of the distribution do what they do to its files.
#[derive(Default)]
struct Hands {
    root: PathBuf,
    /// The step that goes wrong, from 1, and how.
    fault: Option<(usize, Fault)>,
    steps: usize,
    is_dead: bool,
    is_full: bool,
    ran: Vec<String>,
    /// Nobody sits at a terminal.
    is_unwatched: bool,
    /// Files are for all to read, as on a stick with FAT.
    ignores_rights: bool,
    shown_once: String,
}

impl Hands {
    fn step(
        &mut self,
        writes: Option<&Path>,
        effect: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let dead = || Err(io::Error::other("the power is gone"));
        if self.is_dead {
            return dead();
        }
        self.steps += 1;
        let fault = self.fault.filter(|(at, _)| *at == self.steps).map(|(_, fault)| fault);
        self.is_full |= fault == Some(Fault::Full);
        if self.is_full && writes.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.is_dead = matches!(fault, Some(Fault::After | Fault::Between));
        match fault {
            Some(Fault::Between) => {
                if let Some(path) = writes {
                    fs::write(base::durable::fresh(path), "half of it").unwrap();
                }
                return dead();
            }
            Some(Fault::After | Fault::Full) | None => {}
        }
        effect(self)?;
        if self.is_dead { dead() } else { Ok(()) }
    }

    fn edit(&self, below: &str, change: impl FnOnce(String) -> String) {
        let path = self.root.join(below);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, change(text)).unwrap();
    }

    fn program(&mut self, program: &str, arguments: &[&str]) -> io::Result<()> {
        self.ran.push(format!("{program} {}", arguments.join(" ")));
        let wanted = crate::change::WANTED.map(|wanted| self.root.join(wanted));
        match (program, arguments) {
            ("groupadd", ["--system", name]) => {
                self.edit("etc/group", |text| format!("{text}{name}:x:990:\n"));
            }
            ("groupdel", [name]) => self.edit("etc/group", |text| {
                let others = text.lines().filter(|line| !line.starts_with(&format!("{name}:")));
                others.map(|line| format!("{line}\n")).collect()
            }),
            ("gpasswd", ["--add", user, group]) => self.edit("etc/group", |text| {
                text.replace(&format!("{group}:x:990:\n"), &format!("{group}:x:990:{user}\n"))
            }),
            ("gpasswd", ["--delete", user, group]) => self.edit("etc/group", |text| {
                text.replace(&format!("{group}:x:990:{user}\n"), &format!("{group}:x:990:\n"))
            }),
            ("systemctl", ["enable", crate::change::SERVICE]) => {
                for link in wanted {
                    let _ = fs::remove_file(&link);
                    symlink("/usr/lib/systemd/system/bulkhead-agent.service", link)?;
                }
            }
            ("systemctl", ["disable", crate::change::SERVICE]) => {
                for link in wanted {
                    let _ = fs::remove_file(link);
                }
            }
            ("update-grub", []) => {
                let part = fs::read_to_string(self.root.join("etc/default/grub.d/bulkhead.cfg"));
                let words = part.unwrap_or_default();
                let word =
                    ["intel_iommu=on", "amd_iommu=on"].into_iter().find(|w| words.contains(w));
                let word = word.map(|word| format!(" {word}")).unwrap_or_default();
                fs::write(
                    self.root.join("boot/grub/grub.cfg"),
                    format!("linux /vmlinuz{word}\n### END /etc/grub.d/41_custom ###\n"),
                )?;
            }
            _ => return volume::program(self, program, arguments),
        }
        Ok(())
    }
}

impl Effects for Hands {
    fn replace(&mut self, path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
        self.step(Some(path), |hands| {
            let mode = if hands.ignores_rights { 0o755 } else { attributes.mode };
            ThisPc.replace(path, content, Attributes { mode, ..attributes })
        })
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step(None, |_| ThisPc.remove(path))
    }
    fn make_folder(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.step(None, |_| ThisPc.make_folder(path, mode))
    }
    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(None, |_| ThisPc.remove_folder(path))
    }
    fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<()> {
        self.step(None, |hands| hands.program(program, arguments))
    }
    fn output(&mut self, program: &str, arguments: &[&str]) -> io::Result<Zeroizing<String>> {
        let mut said = String::new();
        self.step(None, |hands| {
            said = volume::output(hands, program, arguments);
            Ok(())
        })?;
        Ok(Zeroizing::new(said))
    }
    fn has_terminal(&mut self) -> bool {
        !self.is_unwatched
    }
    fn show_once(&mut self, text: &str) -> io::Result<()> {
        self.step(None, |hands| {
            hands.shown_once.push_str(text);
            Ok(())
        })
    }
}

/// Asserts that a run ended so, and says these words.
fn expect(report: &SetupReport, result: SetupResult, words: &[&str]) {
    let all = format!("{}\n{}", report.message, report.described());
    assert_eq!(report.result, result, "{all}");
    for word in words {
        assert!(all.contains(word), "it does not say `{word}`: {all}");
    }
}
