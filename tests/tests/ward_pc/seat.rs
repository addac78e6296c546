//! The seat: keys pressed and the screen read as a person would, probes in both guests writing down what they see.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::Agent;
use tests::guest::Probe;
use tests::runner::Test;
use tests::seat::{Colour, Person, Picture};
use tests::ward::Ward;
use tests::{Failure, Outcome, ensure};

pub(crate) const TESTS: &[Test<Ward>] = &[
    // Shows: C-3.
    ("a_hotkey_switches_both_ways_and_only_the_front_desktop_is_typed_into", switching),
    // Shows: K-6.1.1.
    (
        "keyboards_come_and_go_in_mid_chord_and_a_pinned_scanner_types_into_its_domain_only",
        keyboards,
    ),
    ("the_banner_stays_right_whatever_a_guest_paints", banner),
    // Shows: I-5.
    ("a_hung_guest_or_a_dead_vmm_holds_up_no_switch_and_the_banner_says_so", faults),
    // Shows: I-4, K-4.1.2.
    ("while_locked_by_chord_or_idleness_nothing_is_shown_and_nothing_reaches_a_guest", lock),
    // Shows: K-3.1.1, K-3.2.1.
    ("a_vmm_that_was_taken_over_says_what_it_likes_and_changes_nothing_elsewhere", rogue),
    ("without_screen_or_keyboard_the_guests_run_and_every_word_says_what_to_do", missing),
    ("a_monitor_of_another_size_resizes_both_guests_and_one_that_is_gone_comes_back", resize),
];

/// Both domains without a network: they start sooner.
pub(crate) const MACHINE: &str = r#"format = 1

[seat]
backend = "kms"

[domain.clinical]
memory = "256M"
cpus = 1
kernel = "/share/vmlinuz"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=clinical.log"
ports = ["org.bulkhead.probe"]

[domain.internet]
memory = "256M"
cpus = 1
kernel = "/share/vmlinuz"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=internet.log"
ports = ["org.bulkhead.probe"]
"#;

/// The policy of these tests.
pub(crate) fn policy() -> String {
    tests::agent::POLICY
        .replace("\"passthrough\"", "\"none\"")
        .replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
}

const GREEN: Colour = 0x1b_7f_3b;
const RED: Colour = 0xb3_26_1e;
const SOON: Duration = Duration::from_secs(10);

/// An agent with its seat, both guests up.
fn start(ward: &Ward) -> Outcome<Agent<'_>> {
    let agent = Agent::launch_with(&ward.pc, MACHINE, &policy(), &[])?;
    for domain in ["clinical", "internet"] {
        if let Err(Failure(error)) = agent.probe(domain).wait_ready() {
            return Err(Failure(format!("{error}\n{}", agent.logs())));
        }
    }
    Ok(agent)
}

/// The keys and buttons a guest saw since the last time: code and value.
fn keys(probe: &Probe<'_>) -> Outcome<Vec<(u64, i64)>> {
    let answer = probe.ask(json!({"op": "input"}))?;
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    let keys = events.iter().filter(|event| event[0] == 1 && event[2] != 2);
    Ok(keys.map(|event| (event[1].as_u64().unwrap_or(0), event[2].as_i64().unwrap_or(0))).collect())
}

/// Fails unless a guest saw these keys, and no others, since it was last asked.
fn saw(probe: &Probe<'_>, who: &str, pressed: &[(u64, i64)]) -> Outcome {
    let until = Instant::now() + SOON;
    let mut seen = keys(probe)?;
    while seen.len() < pressed.len() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        seen.extend(keys(probe)?);
    }
    ensure!(seen == pressed, "{who} saw {seen:?}, pressed was {pressed:?}");
    Ok(())
}

/// Down and up.
fn typed(code: u64) -> [(u64, i64); 2] {
    [(code, 1), (code, 0)]
}

fn in_front(colour: Colour) -> impl Fn(&Picture) -> bool {
    move |picture| picture.banner_colour() == colour
}

fn switching(ward: &Ward) -> Outcome {
    with_seat(ward, |_, person, [clinical, internet]| {
        ward.pc.progress("typing into the clinical desktop");
        person.types(&["a"])?;
        saw(&clinical, "clinical", &typed(30))?;

        ward.pc.progress("a key held across the switch");
        person.key("b", true)?;
        saw(&clinical, "clinical", &[(48, 1)])?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        person.key("b", false)?;
        person.types(&["c"])?;
        saw(&internet, "internet", &typed(46))?;
        saw(&clinical, "clinical", &[(48, 0)])?;
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner again", SOON, in_front(GREEN))?;
        person.chord(&["ctrl", "d"])?;
        saw(&clinical, "clinical", &[(29, 1), (32, 1), (32, 0), (29, 0)])?;
        saw(&internet, "internet", &[])?;

        ward.pc.progress("a click goes to the front, a click on the banner to nobody");
        person.point(16000, 16000)?;
        person.click()?;
        saw(&clinical, "clinical", &typed(0x110))?;
        let picture = person.look()?;
        let tab = tab_of(&picture, RED).ok_or("no tab of the Internet domain in the banner")?;
        person.point(tab, 300)?;
        person.click()?;
        person.see("the Internet banner after a click", SOON, in_front(RED))?;
        saw(&clinical, "clinical", &[])?;
        saw(&internet, "internet", &[])
    })
}

/// Where, from 0 to 32767, the tab of this colour is in a banner of another.
fn tab_of(picture: &Picture, colour: Colour) -> Option<u32> {
    let columns: Vec<usize> =
        (0..picture.width).filter(|x| picture.mostly(*x, 3, 1, 18) == colour).collect();
    let middle = *columns.get(columns.len() / 2)?;
    u32::try_from(middle * 32767 / picture.width).ok()
}

/// Runs a test with an agent and a person at its seat; a failure shows the agent's log.
fn with_seat(
    ward: &Ward,
    test: impl FnOnce(&Agent<'_>, &mut Person<'_>, [Probe<'_>; 2]) -> Outcome,
) -> Outcome {
    let agent = start(ward)?;
    let mut person = Person::at(&ward.pc)?;
    let probes = [agent.probe("clinical"), agent.probe("internet")];
    let result = (|| {
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        for probe in &probes {
            keys(probe)?;
        }
        test(&agent, &mut person, probes)
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}

const CTRL: u16 = 29;
const ALT: u16 = 56;
const HANGUL: u16 = 122;

fn keyboards(ward: &Ward) -> Outcome {
    let scanner = ("wristband scanner", 0x05e0, 0x1200);
    let pinned = format!(
        "{}\n[[input]]\nid = \"wristband-scanner\"\nmatch = {{ vendor = 0x05e0, product = 0x1200 }}\nto = \"clinical\"\n",
        policy()
    );
    let press = |name: &str, code: u16, down: bool| ward.pc.press(name, code, down);
    let types = |name: &str, code: u16| {
        press(name, code, true)?;
        press(name, code, false)
    };
    with_seat(ward, |agent, person, [clinical, internet]| {
        let count = |agent: &Agent<'_>| -> Outcome<u64> {
            Ok(agent.status()?["seat"]["keyboards"].as_u64().unwrap_or(0))
        };
        let before = count(agent)?;
        ensure!(before > 0, "no keyboard: {}", agent.status()?["seat"]);
        ward.pc.progress("a second keyboard is plugged in; the Korean/English key goes through");
        ward.pc.plug_keyboard("second", 0x1234, 1)?;
        wait_for("one more keyboard", || Ok(count(agent)? == before + 1))?;
        types("second", HANGUL)?;
        saw(&clinical, "clinical", &typed(HANGUL.into()))?;

        ward.pc.progress("it is pulled in the middle of a chord and plugged in again");
        for code in [30, CTRL, ALT] {
            press("second", code, true)?;
        }
        saw(&clinical, "clinical", &[(30, 1)])?;
        ward.pc.pull_keyboard("second")?;
        saw(&clinical, "clinical", &[(30, 0)])?;
        person.types(&["2"])?;
        saw(&clinical, "clinical", &typed(3))?;
        ward.pc.plug_keyboard("second", 0x1234, 1)?;
        wait_for("one more keyboard", || Ok(count(agent)? == before + 1))?;
        types("second", HANGUL)?;
        saw(&clinical, "clinical", &typed(HANGUL.into()))?;

        ward.pc.progress("a scanner tied to clinical types there, whatever is in front");
        ward.pc.sh(&format!(
            "cat > /tmp/etc/pinned.toml <<'END'\n{}END",
            pinned.replace("serial = 1", "serial = 2")
        ))?;
        let applied = agent.bulkhead(&["policy", "apply", "/tmp/etc/pinned.toml"])?;
        ensure!(applied.status == Some(0), "{applied:?}");
        ward.pc.plug_keyboard(scanner.0, scanner.1, scanner.2)?;
        wait_for("the pinned scanner", || {
            Ok(agent.status()?["seat"]["pinned"] == json!([[scanner.0, "clinical"]]))
        })?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        types(scanner.0, 4)?;
        saw(&clinical, "clinical", &typed(4))?;
        ward.pc.progress("and it cannot press a chord");
        for code in [CTRL, ALT, 2] {
            press(scanner.0, code, true)?;
        }
        saw(&clinical, "clinical", &[(29, 1), (56, 1), (2, 1)])?;
        saw(&internet, "internet", &[])?;
        ensure!(agent.status()?["seat"]["front"] == "internet", "a scanner switched domains");
        ward.pc.pull_keyboard(scanner.0)?;
        saw(&clinical, "clinical", &[(2, 0), (29, 0), (56, 0)])?;
        ward.pc.pull_keyboard("second")?;
        ward.pc.sh("rm -rf /tmp/state/policy.json")?;
        Ok(())
    })
}

/// Waits until something holds.
fn wait_for(what: &str, holds: impl Fn() -> Outcome<bool>) -> Outcome {
    let until = Instant::now() + SOON;
    while !holds()? {
        ensure!(Instant::now() < until, "{what}: not so after {SOON:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn banner(ward: &Ward) -> Outcome {
    const BLUE: Colour = 0x00_20_c0;
    with_seat(ward, |_, person, [clinical, internet]| {
        ward.pc.progress("a guest paints its whole screen; the banner stays");
        let before = person.look()?;
        let painted = clinical.ask(json!({"op": "paint", "colour": BLUE}))?;
        let rows = before.banner_rows();
        let size = json!([before.width, before.height - rows]);
        ensure!(painted["size"] == size, "the guest's screen is {painted}, wanted {size}");
        let full = |picture: &Picture| {
            let corners = [(0, rows), (picture.width - 1, rows), (0, picture.height - 1)];
            corners.iter().all(|(x, y)| picture.at(*x, *y) == 0xff_ffff)
                && picture.at(picture.width - 1, picture.height - 1) == 0xff_ffff
                && picture.mostly(20, rows + 5, 200, 50) == BLUE
                && picture.mostly(20, picture.height - 60, 200, 50) == !BLUE & 0xff_ffff
        };
        let picture = person.see("the painted screen, to its corners", SOON, full)?;
        ensure!(picture.banner() == before.banner(), "the banner changed");

        ward.pc.progress("it changes its mode: the picture is in the middle, the banner stays");
        let answer = clinical.ask(json!({"op": "modes"}))?;
        let modes = answer["modes"].as_array().cloned().unwrap_or_default();
        let smaller = modes.iter().find(|mode| mode[0].as_u64().is_some_and(|w| w < 1000));
        let smaller = smaller.ok_or_else(|| Failure(format!("no smaller mode: {answer}")))?;
        let (width, height) = (smaller[0].as_u64().unwrap_or(0), smaller[1].as_u64().unwrap_or(0));
        clinical
            .ask(json!({"op": "paint", "colour": 0xffff00, "width": width, "height": height}))?;
        let picture = person.see("the smaller picture", SOON, |picture| {
            picture.mostly(picture.width / 2 - 20, picture.height / 3, 40, 20) == 0xff_ff00
                && picture.mostly(2, picture.height / 2, 20, 20) == 0
        })?;
        ensure!(picture.banner() == before.banner(), "the banner changed with the mode");

        ward.pc.progress("it floods its screen with updates; switching and the banner stay");
        clinical.ask(json!({"op": "paint", "colour": BLUE}))?;
        internet.ask(json!({"op": "paint", "colour": 0x00c000}))?;
        std::thread::scope(|scope| -> Outcome {
            let flood = scope.spawn(|| clinical.ask(json!({"op": "flood-screen", "millis": 8000})));
            let until = Instant::now() + Duration::from_secs(5);
            let mut round = 0;
            while Instant::now() < until {
                let (key, colour) = if round % 2 == 0 { ("2", RED) } else { ("1", GREEN) };
                person.chord(&["ctrl", "alt", key])?;
                let seen = person.see("the other banner", SOON, in_front(colour))?;
                if colour == GREEN {
                    ensure!(seen.banner() == before.banner(), "the banner changed in the flood");
                }
                round += 1;
            }
            let updates = flood.join().map_err(|_| Failure("the flood panicked".into()))??;
            ward.pc.progress(&format!("{round} switches during {} updates", updates["updates"]));
            Ok(())
        })
    })
}

fn faults(ward: &Ward) -> Outcome {
    with_seat(ward, |agent, person, [clinical, internet]| {
        clinical.ask(json!({"op": "paint", "colour": 0x123456}))?;
        internet.ask(json!({"op": "paint", "colour": 0x654321}))?;
        let banner = person.see("the clinical picture", SOON, |picture| {
            picture.mostly(100, 100, 50, 50) == 0x12_3456
        })?;
        ward.pc
            .progress("the clinical guest hangs: its last picture stays, switching works at once");
        let socket = "/run/bulkhead/clinical/vmm.sock";
        let say = |command: &str| {
            ward.pc.ask(socket, &json!({"command": command}), Duration::from_secs(10), true)
        };
        say("pause")?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet picture", SOON, |picture| {
            in_front(RED)(picture) && picture.mostly(100, 100, 50, 50) == 0x65_4321
        })?;
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the hung guest's last picture", SOON, |picture| {
            in_front(GREEN)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
        })?;
        // More than the driver has room for.
        for _ in 0..6 {
            person.types(&["a"; 16])?;
        }
        person.see("the banner's word that it does not react", SOON, |picture| {
            picture.banner() != banner.banner() && in_front(GREEN)(picture)
        })?;
        say("resume")?;
        person.types(&["b"])?;
        person.see("the banner as it was", SOON, |picture| picture.banner() == banner.banner())?;

        ward.pc.progress("its VMM is killed: the banner says so, the other desktop is there");
        let pid = agent.status()?["domains"][0]["pid"].as_u64().unwrap_or(0);
        ward.pc.sh(&format!("kill -9 {pid}"))?;
        person.see("the card and the banner's word", SOON, |picture| {
            picture.mostly(100, 100, 50, 50) == 0x10_1010
        })?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet picture", SOON, |picture| {
            in_front(RED)(picture) && picture.mostly(100, 100, 50, 50) == 0x65_4321
        })?;
        clinical.wait_ready()?;
        person.chord(&["ctrl", "alt", "1"])?;
        keys(&clinical)?;
        person.types(&["c"])?;
        saw(&clinical, "clinical", &typed(46))
    })
}

fn lock(ward: &Ward) -> Outcome {
    let idle =
        policy().replacen("priority = \"high\"", "priority = \"high\"\nidle_lock = \"20s\"", 1);
    with_seat(ward, |agent, person, [clinical, internet]| {
        clinical.ask(json!({"op": "paint", "colour": 0x123456}))?;
        person.see("the clinical picture", SOON, |picture| {
            picture.mostly(100, 100, 50, 50) == 0x12_3456
        })?;
        let locked = |picture: &Picture| {
            picture.banner_colour() == 0x28_2828 && picture.mostly(100, 100, 50, 50) == 0x1c_1c1c
        };
        ward.pc.progress("the lock chord hides both desktops, and nothing goes anywhere");
        person.key("x", true)?;
        saw(&clinical, "clinical", &[(45, 1)])?;
        person.chord(&["ctrl", "alt", "l"])?;
        let picture = person.see("the lock", SOON, locked)?;
        let rest = (picture.width, picture.height - 200);
        ensure!(picture.others(0, 200, rest.0, rest.1, 0x12_3456) == rest.0 * rest.1, "it shows");
        person.key("x", false)?;
        person.types(&["a"])?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.point(16000, 16000)?;
        person.click()?;
        saw(&clinical, "clinical", &[(45, 0)])?;
        saw(&internet, "internet", &[])?;
        let refused = agent.bulkhead(&["switch", "internet"])?;
        ensure!(refused.status == Some(1) && refused.stderr.contains("locked"), "{refused:?}");
        person.chord(&["ctrl", "alt", "l"])?;
        person.see("the clinical desktop", SOON, in_front(GREEN))?;

        ward.pc.progress("lock, unlock and switch on the command line");
        for (words, colour) in [
            (&["lock"][..], 0x28_2828),
            (&["unlock"], GREEN),
            (&["switch", "internet"], RED),
            (&["switch", "clinical"], GREEN),
        ] {
            let done = agent.bulkhead(words)?;
            ensure!(done.status == Some(0), "{done:?}");
            person.see(&words.join(" "), SOON, in_front(colour))?;
        }
        ward.pc.progress("20 seconds without input lock the screen");
        ward.pc.sh(&format!(
            "cat > /tmp/etc/idle.toml <<'END'\n{}END",
            idle.replace("serial = 1", "serial = 2")
        ))?;
        let applied = agent.bulkhead(&["policy", "apply", "/tmp/etc/idle.toml"])?;
        ensure!(applied.status == Some(0), "{applied:?}");
        person.types(&["a"])?;
        let began = Instant::now();
        person.see("the idle lock", Duration::from_secs(40), locked)?;
        ensure!(began.elapsed() > Duration::from_secs(15), "locked after {:?}", began.elapsed());
        let shown = ward.pc.sh("/share/bulkhead audit show /tmp/state/audit")?;
        for word in ["seat-locked", "idle=true", "seat-unlocked", "seat-switched"] {
            ensure!(shown.contains(word), "`{word}` is not in the audit log:\n{shown}");
        }
        ward.pc.sh("rm -rf /tmp/state/policy.json")?;
        Ok(())
    })
}

fn rogue(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -f /tmp/rogue")?;
    let agent = Agent::launch_with(&ward.pc, MACHINE, &policy(), &["--vmm", "/share/rogue-vmm"])?;
    let mut person = Person::at(&ward.pc)?;
    let clinical = agent.probe("clinical");
    let result = (|| {
        clinical.wait_ready()?;
        clinical.ask(json!({"op": "paint", "colour": 0x123456}))?;
        let shown = |picture: &Picture| {
            in_front(GREEN)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
        };
        let calm = person.see("the clinical picture", SOON, shown)?;
        keys(&clinical)?;
        for (trick, what) in
            ["bytes that are no message", "a flood", "numbers that cannot be"].iter().enumerate()
        {
            ward.pc.progress(&format!("the Internet VMM sends {what}"));
            wait_for("the trick", || {
                Ok(ward.pc.sh("cat /tmp/rogue || true")?.trim() == (trick + 1).to_string())
            })?;
            if trick < 2 {
                wait_for("the lost link", || {
                    let log = ward.pc.sh("cat /tmp/agent.log")?;
                    let lost = log.matches("it has no screen and no input").count();
                    Ok(lost > trick)
                })?;
            } else {
                std::thread::sleep(Duration::from_secs(2));
            }
            person.types(&["a"])?;
            saw(&clinical, "clinical", &typed(30))?;
            let picture = person.see("the clinical picture", SOON, shown)?;
            let rows = picture.banner_rows();
            let label = (0..rows).all(|y| (0..150).all(|x| picture.at(x, y) == calm.at(x, y)));
            ensure!(label, "the banner's label changed");
            ensure!(agent.status()?["seat"]["front"] == "clinical", "a VMM switched domains");
            person.chord(&["ctrl", "alt", "2"])?;
            let there = person.see("the Internet banner", SOON, in_front(RED))?;
            ensure!(there.at(2, 0) != 0xff_ffff, "it drew over the banner");
            person.chord(&["ctrl", "alt", "1"])?;
            person.see("the clinical picture again", SOON, shown)?;
            saw(&clinical, "clinical", &[])?;
            let pid = agent.status()?["domains"][1]["pid"].as_u64().unwrap_or(0);
            if trick < 2 {
                ward.pc.sh(&format!("kill -9 {pid}"))?;
            }
        }
        let memory = ward.pc.sh("awk '/VmRSS/ {print $2}' /proc/$(pidof bulkhead-agent)/status")?;
        let kib: u64 = memory.trim().parse().unwrap_or(u64::MAX);
        ensure!(kib < 100_000, "the agent takes {kib} KiB");
        Ok(())
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    drop(agent);
    ward.pc
        .sh("rm -rf /tmp/rogue /tmp/state; killall -9 rogue-vmm bulkhead-vmm 2>/dev/null; true")
        .map(drop)
}

fn missing(ward: &Ward) -> Outcome {
    let doctor = |machine: &str| -> Outcome<String> {
        ward.pc.sh(&format!(
            "mkdir -p /tmp/etc; cat > /tmp/etc/machine.toml <<'END'\n{machine}END\n\
             cat > /tmp/etc/policy.toml <<'END'\n{}END\n",
            policy()
        ))?;
        let found = ward.pc.exec(
            &[
                "/share/bulkhead",
                "doctor",
                "--machine",
                "/tmp/etc/machine.toml",
                "--policy",
                "/tmp/etc/policy.toml",
                "--images",
                "/share",
            ],
            Duration::from_secs(60),
        )?;
        Ok(found.stdout)
    };
    ward.pc.progress("a card that is not there");
    let wrong =
        MACHINE.replace("backend = \"kms\"", "backend = \"kms\"\ncard = \"/dev/dri/card7\"");
    let said = doctor(&wrong)?;
    ensure!(said.contains("/dev/dri/card7") && said.contains("`card` in [seat]"), "{said}");
    ward.pc.progress("no monitor, and no keyboard: the guests run, log and status say so");
    let mut person = Person::at(&ward.pc)?;
    for device in ["keyboard", "mouse"] {
        person.qmp("device_del", json!({"id": device}))?;
    }
    let connector = "/sys/class/drm/card0-Virtual-1/status";
    ward.pc.sh(&format!("echo off > {connector}"))?;
    let back = (|| {
        wait_for("no input device", || {
            let said = doctor(MACHINE)?;
            Ok(said.contains("no monitor is connected") && said.contains("plug in a USB keyboard"))
        })?;
        let agent = start(ward)?;
        let status = agent.bulkhead(&["status"])?.stdout;
        for words in
            ["THERE IS NO SCREEN", "plug one in and switch it on", "no keyboard is plugged in"]
        {
            ensure!(status.contains(words), "`{words}` is not in the status:\n{status}");
        }
        ward.pc.progress("monitor and keyboard are plugged in: they work at once");
        ward.pc
            .sh(&format!("echo detect > {connector}; echo change > /sys/class/drm/card0/uevent"))?;
        person.qmp(
            "device_add",
            json!({"driver": "usb-kbd", "id": "keyboard", "bus": "xhci.0", "port": "1"}),
        )?;
        person.qmp(
            "device_add",
            json!({"driver": "usb-tablet", "id": "mouse", "bus": "xhci.0", "port": "2"}),
        )?;
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        wait_for("the keyboard", || Ok(agent.status()?["seat"]["keyboards"] != 0))?;
        let clinical = agent.probe("clinical");
        keys(&clinical)?;
        person.types(&["a"])?;
        saw(&clinical, "clinical", &typed(30))?;
        ward.pc.progress("another program wants the screen: the doctor says who has it");
        let said = doctor(MACHINE)?;
        ensure!(said.contains("a program draws there now"), "{said}");
        agent.stop()
    })();
    ward.pc.sh(&format!("echo detect > {connector}"))?;
    back
}

fn resize(ward: &Ward) -> Outcome {
    let second =
        MACHINE.replace("backend = \"kms\"", "backend = \"kms\"\ncard = \"/dev/dri/card1\"");
    ward.pc
        .sh("modprobe virtio_gpu; for i in 1 2 3 4 5; do [ -e /dev/dri/card1 ] || sleep 1; done")?;
    let agent = Agent::launch_with(&ward.pc, &second, &policy(), &[])?;
    let mut person = Person::at(&ward.pc)?.look_at("second-screen");
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let result = (|| {
        clinical.wait_ready()?;
        internet.wait_ready()?;
        let before = person.see("the clinical banner", SOON, in_front(GREEN))?;
        let preferred = |probe: &Probe<'_>| -> Outcome<serde_json::Value> {
            Ok(probe.ask(json!({"op": "modes"}))?["modes"][0].clone())
        };
        let first = json!([before.width, before.height - before.banner_rows()]);
        ensure!(preferred(&clinical)? == first, "{} and not {first}", preferred(&clinical)?);
        ward.pc.progress("the monitor becomes larger");
        ward.pc.resize_second_screen(1440, 900)?;
        let after = person.see("the banner at 1440x900", SOON, |picture| {
            (picture.width, picture.height) == (1440, 900) && in_front(GREEN)(picture)
        })?;
        let wanted = json!([1440, 900 - after.banner_rows()]);
        for (name, probe) in [("clinical", &clinical), ("internet", &internet)] {
            wait_for(&format!("{name} at {wanted}"), || Ok(preferred(probe)? == wanted))?;
        }
        clinical.ask(json!({"op": "paint", "colour": 0x123456}))?;
        person.see("the picture in its new size", SOON, |picture| {
            picture.at(1439, 899) == 0xff_ffff && picture.mostly(700, 100, 600, 50) == 0x12_3456
        })?;
        ward.pc.progress("the monitor is pulled and plugged in again");
        let connector = "/sys/class/drm/card1-Virtual-2/status";
        let change = "echo change > /sys/class/drm/card1/uevent";
        ward.pc.sh(&format!("echo off > {connector}; {change}"))?;
        wait_for("no screen", || Ok(agent.status()?["seat"]["screen"].is_null()))?;
        keys(&clinical)?;
        person.types(&["a"])?;
        saw(&clinical, "clinical", &typed(30))?;
        ward.pc.sh(&format!("echo detect > {connector}; {change}"))?;
        person.see("the picture again", SOON, |picture| {
            in_front(GREEN)(picture) && picture.mostly(700, 100, 600, 50) == 0x12_3456
        })?;
        Ok(())
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}
