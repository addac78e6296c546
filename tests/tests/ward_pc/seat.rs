//! The seat: keys pressed and the screen read as a person would, probes in both guests writing down what they see.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::seat::{Colour, Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

pub(crate) const GREEN: Colour = 0x1b_7f_3b;
pub(crate) const RED: Colour = 0xb3_26_1e;
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Starts an agent with its seat, both guests up.
pub(crate) fn start(ward: &Ward) -> Outcome<Agent<'_>> {
    let agent = Agent::launch_with(&ward.pc, SEAT_MACHINE, &seat_policy(), &[])?;
    for domain in ["clinical", "internet"] {
        if let Err(Failure(error)) = agent.probe(domain).wait_ready() {
            return Err(Failure(format!("{error}\n{}", agent.logs())));
        }
    }
    Ok(agent)
}

/// Returns the keys and buttons a guest saw since the last time: code and value.
pub(crate) fn keys(probe: &Probe<'_>) -> Outcome<Vec<(u64, i64)>> {
    Ok(keys_of(&events(probe)?))
}

/// Returns all that a guest's input devices said since the last time.
pub(crate) fn events(probe: &Probe<'_>) -> Outcome<Vec<Value>> {
    let answer = probe.ask(json!({"op": "input"}))?;
    Ok(answer["events"].as_array().cloned().unwrap_or_default())
}

/// Returns the keys and buttons that are down for a guest's kernel.
pub(crate) fn down(probe: &Probe<'_>) -> Outcome<Vec<u64>> {
    let answer = probe.ask(json!({"op": "input"}))?;
    let down = answer["down"].as_array().ok_or("the probe does not say which keys are down")?;
    Ok(down.iter().filter_map(Value::as_u64).collect())
}

fn keys_of(events: &[Value]) -> Vec<(u64, i64)> {
    let keys = events.iter().filter(|event| event[0] == 1 && event[2] != 2);
    keys.map(|event| (event[1].as_u64().unwrap_or(0), event[2].as_i64().unwrap_or(0))).collect()
}

/// Fails unless a guest saw these keys, and no others, since it was last asked.
pub(crate) fn saw(probe: &Probe<'_>, who: &str, pressed: &[(u64, i64)]) -> Outcome {
    let until = Instant::now() + patience(SOON);
    let mut all = events(probe)?;
    while keys_of(&all).len() < pressed.len() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        all.extend(events(probe)?);
    }
    let seen = keys_of(&all);
    // Whether at least the pointer came tells where something was lost.
    let last: Vec<String> = all.iter().rev().take(20).rev().map(Value::to_string).collect();
    ensure!(seen == pressed, "{who} saw {seen:?}, pressed was {pressed:?}; last of all: {last:?}");
    Ok(())
}

/// Returns the events of a key that goes down and up.
pub(crate) fn typed(code: u64) -> [(u64, i64); 2] {
    [(code, 1), (code, 0)]
}

pub(crate) fn in_front(colour: Colour) -> impl Fn(&Picture) -> bool {
    move |picture| picture.banner_colour() == colour
}

#[ward_test(shows = ["C-3"])]
fn a_hotkey_switches_both_ways_and_only_the_front_desktop_is_typed_into(ward: &Ward) -> Outcome {
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

/// Returns where, from 0 to 32767, the tab of this colour is in a banner of another.
pub(crate) fn tab_of(picture: &Picture, colour: Colour) -> Option<u32> {
    let columns: Vec<usize> =
        (0..picture.width).filter(|x| picture.mostly(*x, 3, 1, 18) == colour).collect();
    let middle = *columns.get(columns.len() / 2)?;
    u32::try_from(middle * 32767 / picture.width).ok()
}

/// Waits until the PC has both of a person's devices, for 20 seconds.
const BOTH_THERE: &str = "for i in $(seq 100); do grep -q 'USB Keyboard' /proc/bus/input/devices && \
                          grep -q 'USB Tablet' /proc/bus/input/devices && exit 0; sleep 0.2; done; \
                          echo 'the PC has no keyboard, or no pointer'; exit 1";

/// Which input devices the PC has, who has them open, and what interrupts their controller made.
const INPUT_DEVICES: &str = "grep -E '^(N|H):' /proc/bus/input/devices; grep xhci /proc/interrupts; \
                             grep -H . /sys/bus/usb/devices/*/product /sys/bus/usb/devices/*/authorized 2>/dev/null; dmesg | grep -iE 'usb|xhci|hid' | tail -40; \
                             ls -l /proc/[0-9]*/fd 2>/dev/null | grep /dev/input; true";

/// Runs a test with an agent and a person at its seat; a failure shows the agent's log and the PC's input devices.
pub(crate) fn with_seat(
    ward: &Ward,
    test: impl FnOnce(&Agent<'_>, &mut Person<'_>, [Probe<'_>; 2]) -> Outcome,
) -> Outcome {
    let agent = start(ward)?;
    let mut person = Person::at(&ward.pc)?;
    let probes = [agent.probe("clinical"), agent.probe("internet")];
    let result = (|| {
        // The PC's kernel may still be asking them who they are, above all where it waits in vain for an interrupt.
        ward.pc.sh(BOTH_THERE)?;
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        for probe in &probes {
            keys(probe)?;
        }
        test(&agent, &mut person, probes)
    })();
    result.map_err(|Failure(error)| {
        let devices = ward.pc.sh(INPUT_DEVICES).unwrap_or_else(|Failure(error)| error);
        Failure(format!("{error}\n{}\n--- input devices\n{devices}", agent.logs()))
    })?;
    agent.stop()
}

const CTRL: u16 = 29;
const ALT: u16 = 56;
const HANGUL: u16 = 122;

#[ward_test(shows = ["K-6.1.1"])]
fn keyboards_come_and_go_in_mid_chord_and_a_pinned_scanner_types_into_its_domain_only(
    ward: &Ward,
) -> Outcome {
    let scanner = ("wristband scanner", 0x05e0, 0x1200);
    let pinned = format!(
        "{}\n[[input]]\nid = \"wristband-scanner\"\nmatch = {{ vendor = 0x05e0, product = 0x1200 }}\nto = \"clinical\"\n",
        seat_policy()
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
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    let until = Instant::now() + patience(SOON);
    while !holds()? {
        ensure!(Instant::now() < until, "{what}: not so after {SOON:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[ward_test]
fn the_banner_stays_right_whatever_a_guest_paints(ward: &Ward) -> Outcome {
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

#[ward_test(shows = ["I-5"])]
fn a_hung_guest_or_a_dead_vmm_holds_up_no_switch_and_the_banner_says_so(ward: &Ward) -> Outcome {
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

#[ward_test(shows = ["I-4", "K-4.1.2"])]
fn while_locked_by_chord_or_idleness_nothing_is_shown_and_nothing_reaches_a_guest(
    ward: &Ward,
) -> Outcome {
    let idle = seat_policy().replacen(
        "priority = \"high\"",
        "priority = \"high\"\nidle_lock = \"20s\"",
        1,
    );
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
