//! Shows the main job in plain words and pictures: `scripts/demo`.
#![allow(clippy::indexing_slicing, reason = "serde_json values are indexed by key")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::agent::{Agent, machine_file};
use tests::isolation::{self, Try};
use tests::seat::Person;
use tests::ward::{Addresses, CLINICAL_NIC, INTERNET_NIC, Ward};
use tests::{Failure, Outcome, desktops, ensure};

const USAGE: &str = "usage: scripts/demo [--interactive] [--desktops]\n  --interactive   leave the PC on and offer its screen, keyboard and mouse over VNC on 127.0.0.1:5917\n  --desktops      the full desktops in place of the small ones: build them first with\n                  scripts/build-images desktops; emulated twice over they take ten minutes to come up";
/// Where `--interactive` offers the screen: VNC display 17.
const VNC: &str = "127.0.0.1:17";
/// How long something may take to be seen.
const SOON: Duration = Duration::from_secs(20);
/// Until a desktop's agent knows of what was copied there.
const COPIED: Duration = Duration::from_secs(3);
/// Until the agent's words are there.
const WORDS: Duration = Duration::from_secs(1);
/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(6);
/// Time for a desktop to draw what was typed.
const DRAWN: Duration = Duration::from_secs(3);

const GREEN: u32 = 0x1b_7f_3b;
const RED: u32 = 0xb3_26_1e;
const GREY: u32 = 0x28_28_28;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut interactive, mut full) = (false, false);
    for word in words {
        match word.as_str() {
            "--interactive" => interactive = true,
            "--desktops" => full = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return;
            }
            _ => {
                eprintln!("{USAGE}");
                std::process::exit(2);
            }
        }
    }
    let show = || Demo::new(interactive, full).and_then(|demo| demo.show());
    // An emulated PC stands still now and then, the processors of its own (docs/design/decisions/0007-two-simulated-processors.md).
    let shown = show().or_else(|Failure(error)| {
        if !error.starts_with(tests::wardpc::NO_ANSWER) {
            return Err(Failure(error));
        }
        println!(
            "\nThe emulated PC itself answers no more. Once more from the beginning, on another:\n"
        );
        show()
    });
    if let Err(Failure(error)) = shown {
        eprintln!("\nThis does not hold: {error}");
        std::process::exit(1);
    }
}

struct Demo {
    started: Instant,
    interactive: bool,
    full: bool,
    ward: Ward,
    album: PathBuf,
}

impl Demo {
    fn new(interactive: bool, full: bool) -> Outcome<Self> {
        let started = Instant::now();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let album = root.join("target/demo");
        fs::create_dir_all(&album)?;
        println!(
            "[    0 s] A ward PC is switched on: emulated, with virtualisation, an IOMMU, two NICs, screen,"
        );
        println!("          keyboard and mouse.");
        let extra = if interactive { vec!["-vnc".to_owned(), VNC.to_owned()] } else { vec![] };
        Ok(Self {
            started,
            interactive,
            full,
            ward: Ward::start_with(Addresses::Ordinary, &extra)?,
            album,
        })
    }

    fn say(&self, what: &str) {
        println!("[{:5.0} s] {what}", self.started.elapsed().as_secs_f64());
    }

    fn show(&self) -> Outcome {
        if !self.interactive && !self.full {
            self.networks()?;
        }
        self.seat()
    }

    /// Tries who reaches whom over the networks, and prints it.
    fn networks(&self) -> Outcome {
        let pc = &self.ward.pc;
        self.say("It is up. bulkhead-agent starts: it takes both NICs from the host and starts two guests,");
        self.say("each an unmodified Debian kernel in bulkhead-vmm.");
        let agent = Agent::start(pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
        let sides = isolation::sides(&self.ward, &agent)?;
        for side in &sides {
            let nic = side.nic_in_words();
            self.say(&format!(
                "The {} guest is up. Its NIC is the PC's {}: {nic}.",
                side.name, side.nic
            ));
        }
        self.say("Who reaches whom, tried from inside both guests:");
        println!();
        let tries = isolation::try_all(&sides, &|tried: &Try| println!("    {tried}"))?;
        println!();
        let wrong = tries.iter().filter(|tried| !tried.holds()).count();
        ensure!(wrong == 0, "{wrong} of {} tries came out wrong", tries.len());
        let interfaces = pc.sh("ls /sys/class/net")?;
        ensure!(
            interfaces.split_whitespace().all(|name| name == "lo"),
            "the host has {interfaces}"
        );
        self.say("The host itself has no network: loopback is its only interface.");
        agent.stop()?;
        for nic in [CLINICAL_NIC, INTERNET_NIC] {
            let driver = pc.sh(&format!("readlink /sys/bus/pci/devices/{nic}/driver || true"))?;
            ensure!(!driver.contains("vfio-pci"), "{nic} was not given back: {driver}");
        }
        self.say("Both guests are shut down, and the host has its NICs back.");
        self.say(&format!("All {} tries came out as they have to.", tries.len()));
        println!();
        Ok(())
    }

    /// Shows two desktops on one screen.
    fn seat(&self) -> Outcome {
        let pc = &self.ward.pc;
        pc.sh("rm -rf /tmp/state")?;
        let agent = if self.full {
            self.say("The clinical desktop is packed, signed and installed as an image, which takes two minutes.");
            let machine = desktops::full_machine_file(pc, CLINICAL_NIC, INTERNET_NIC)?;
            self.say("Two full Debian desktops start. Emulated twice over, they take ten minutes until their browsers are drawn.");
            let agent = desktops::start_full(pc, &machine)?;
            desktops::comes_up(pc)?;
            self.say("Both are drawn, and the clinical one has told the agent so: its image stays in force.");
            agent
        } else {
            self.say("Now with a screen: two small Debian desktops (X, a terminal). Emulated twice over, they take a");
            self.say("minute to come up.");
            let machine = desktops::machine_file(CLINICAL_NIC, INTERNET_NIC);
            desktops::start(pc, &machine, desktops::RULES)?
        };
        let mut person = Person::at(pc)?;
        let mut album = Album { dir: self.album.clone(), pages: Vec::new() };
        person.see("the clinical banner", SOON, |picture| picture.banner_colour() == GREEN)?;
        person.point(16000, 20000)?;
        person.types(&["e", "c", "h", "o", "spc", "w", "a", "r", "d", "spc", "7", "ret"])?;
        std::thread::sleep(DRAWN);
        album.take(&mut person, "clinical", "The clinical desktop. What is typed goes there; the green banner with disc and label is drawn by the agent, where no guest can draw.")?;
        self.say(
            "The clinical desktop is in front; something was typed there. Ctrl+Alt+2 is pressed.",
        );

        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, |picture| picture.banner_colour() == RED)?;
        person.types(&["e", "c", "h", "o", "spc", "n", "e", "w", "s", "ret"])?;
        std::thread::sleep(DRAWN);
        album.take(&mut person, "internet", "The Internet desktop after Ctrl+Alt+2: another colour, icon, pattern and label. Nothing of what was typed into the clinical desktop is here.")?;
        if self.full {
            self.say("The Internet desktop is in front.");
        } else {
            self.clipboard(&mut person, &mut album)?;
        }
        self.say("The screen is locked: Ctrl+Alt+L.");
        person.chord(&["ctrl", "alt", "l"])?;
        person.see("the lock", SOON, |picture| picture.banner_colour() == GREY)?;
        album.take(
            &mut person,
            "locked",
            "Locked: both desktops are hidden, and what is typed goes nowhere.",
        )?;
        person.chord(&["ctrl", "alt", "l"])?;
        person.see("the Internet desktop again", SOON, |picture| picture.banner_colour() == RED)?;
        person.chord(&["ctrl", "alt", "1"])?;
        person
            .see("the clinical desktop again", SOON, |picture| picture.banner_colour() == GREEN)?;
        album.take(
            &mut person,
            "clinical-again",
            "Back on the clinical desktop with Ctrl+Alt+1: just as it was left.",
        )?;
        self.say("Unlocked, and back on the clinical desktop.");

        self.say("The Internet domain's VMM is killed.");
        let pid = agent.status()?["domains"][1]["pid"].as_u64().unwrap_or(0);
        let before = person.look()?;
        pc.sh(&format!("kill -9 {pid}"))?;
        person.see("the banner's word", SOON, |picture| picture.banner() != before.banner())?;
        album.take(&mut person, "fault", "The Internet domain's VMM was killed: the banner says so, the clinical desktop goes on.")?;
        self.say(
            "The banner says so, and the clinical desktop goes on. What `bulkhead status` says:",
        );
        println!("\n{}", indent(&agent.bulkhead(&["status"])?.stdout));
        let page = album.bind()?;
        self.say(&format!("Pictures: {}", page.display()));
        if self.interactive {
            self.stay(&agent)?;
        }
        agent.stop()
    }

    /// Copies from the Internet into the clinical desktop, which a rule allows, and back, which none does. Begins and ends with the
    /// Internet desktop in front.
    fn clipboard(&self, person: &mut Person<'_>, album: &mut Album) -> Outcome {
        let copies = |person: &mut Person<'_>, text: &str| {
            person.enters(&format!("printf '{text}' | xclip -selection clipboard\n"))?;
            std::thread::sleep(COPIED);
            person.chord(&["ctrl", "alt", "c"])?;
            std::thread::sleep(WORDS);
            Ok::<(), Failure>(())
        };
        self.say("The Internet desktop is in front. A text is copied there, and Ctrl+Alt+C is pressed; then Ctrl+Alt+1, Ctrl+Alt+V.");
        copies(person, "ibuprofen 400 mg, max 3 a day")?;
        album.take(person, "copied", "Ctrl+Alt+C on the Internet desktop: the agent has taken what is in its clipboard. The clinical desktop knows nothing of it.")?;
        std::thread::sleep(NOTICE);
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner", SOON, |picture| picture.banner_colour() == GREEN)?;
        person.chord(&["ctrl", "alt", "v"])?;
        std::thread::sleep(WORDS);
        person.enters("xclip -o -selection clipboard -t UTF8_STRING\n")?;
        std::thread::sleep(DRAWN);
        album.take(person, "pasted", "Ctrl+Alt+V on the clinical desktop: a rule of the policy allows it, the audit log has it, and its programs can paste it.")?;
        std::thread::sleep(NOTICE);
        self.say("Back the other way no rule allows anything: a chart number is copied on the clinical desktop, and Ctrl+Alt+V pressed on the Internet desktop.");
        copies(person, "chart 20261123")?;
        std::thread::sleep(NOTICE);
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, |picture| picture.banner_colour() == RED)?;
        person.chord(&["ctrl", "alt", "v"])?;
        std::thread::sleep(WORDS);
        album.take(
            person,
            "denied",
            "Denied, and why, and whom to ask. Nothing was offered to the Internet desktop.",
        )?;
        std::thread::sleep(NOTICE);
        Ok(())
    }

    /// Leaves the PC to whoever sits down at it.
    fn stay(&self, agent: &Agent<'_>) -> Outcome {
        println!(
            "\nThe ward PC is yours: connect a VNC viewer to {VNC} (port 5917), as in `vncviewer {VNC}`."
        );
        println!(
            "  Ctrl+Alt+1 clinical   Ctrl+Alt+2 Internet   Ctrl+Alt+L lock and unlock   or click in the banner"
        );
        println!("Press Enter here to switch it off.");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        println!("\n{}", indent(&agent.bulkhead(&["status"])?.stdout));
        Ok(())
    }
}

/// Pictures and what they show.
struct Album {
    dir: PathBuf,
    pages: Vec<(String, String)>,
}

impl Album {
    fn take(&mut self, person: &mut Person<'_>, name: &str, shows: &str) -> Outcome {
        let file = format!("{}-{name}.png", self.pages.len() + 1);
        person.photograph(&self.dir.join(&file))?;
        self.pages.push((file, shows.to_owned()));
        Ok(())
    }

    /// Writes one page with all of them.
    fn bind(&self) -> Outcome<PathBuf> {
        let figures: String = self
            .pages
            .iter()
            .map(|(file, shows)| {
                format!("<figure><img src=\"{file}\" alt=\"\"><figcaption>{shows}</figcaption></figure>\n")
            })
            .collect();
        let page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Bulkhead: the seat</title>\n\
             <style>body{{font-family:sans-serif;max-width:64rem;margin:2rem auto}}img{{width:100%;border:1px solid #888}}\
             figure{{margin:2rem 0}}figcaption{{padding:.5rem 0}}</style>\n\
             <h1>Two desktops on one screen</h1>\n<p>Taken from the simulated ward PC's screen by scripts/demo.</p>\n{figures}</html>\n"
        );
        let file = self.dir.join("index.html");
        fs::write(&file, page)?;
        Ok(file)
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
