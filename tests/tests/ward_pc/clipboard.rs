//! The clipboard as a clinician has it: real desktops, real keys, the agent's words on the screen.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::agent::Agent;
use tests::desktops;
use tests::patience::patience;
use tests::seat::{Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, RED, SOON, in_front};

const RULES: &str = r#"
[[clipboard]]
id = "text-in"
from = "internet"
to = "clinical"
types = ["text/plain"]
max_bytes = 4096
action = "allow"
inspect = ["korean-rrn"]

[[clipboard]]
id = "pictures-in"
from = "internet"
to = "clinical"
types = ["image/png"]
max_bytes = 65536
action = "allow"

[[clipboard]]
id = "short-text-out"
from = "clinical"
to = "internet"
types = ["text/plain"]
max_bytes = 8
action = "ask"
"#;

/// A picture of one grey pixel, and the same with one bit of its pixels changed, as text that a keyboard can type.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
const DAMAGED: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAQAAggCBd81ytgAAAABJRU5ErkJggg==";

/// A black picture of 20,000 by 2,100 pixels, which is 40,892 bytes as a file and would be a thousand times that in memory; packed once more with gzip.
const BOMB: &str = concat!(
    "H4sIAAAAAAACA+3cvS6DYRgG4KfaoSn1lxj8DE2MVoNForTo0jRSczkAZiaNRsTmCEgcAJMDsDkDdHIAYjCwiOrXw/i+69reJ3mWZ7zz5r5qNXfKpYVSRJQbu7W9iGYlorhaHA7i9HJ+",
    "JeK216hV2yf9j6dcbjjsXv89fBaTBQAAACDVum+9fBIGRGXwst3aBwAAANLucGqyMAoFfjuLVecAAACA1LtYX5se/RD4OjsqOAcAAACk3tz3+8YoC3gePM603QMAAABS71VhAAAAAGSK",
    "wgAAAADIFoUBAAAAkC0KAwAAACBj+r38bJIFVAedn+V2AAAAQOrdjE1sRe5ufOk4eTXqzdr95sH5P5i1j2W8nwAA",
);

/// Where each domain's workers have a group.
const READERS: &str = "/sys/fs/cgroup/bulkhead.workers.domains-run-bulkhead";

/// How long an overlay stays, and some.
const OVERLAY: Duration = Duration::from_secs(30);

#[ward_test(shows = ["C-9", "P-2", "P-3"])]
fn text_is_copied_and_pasted_between_desktops_by_keys_as_the_policy_says_and_a_denial_says_why(
    ward: &Ward,
) -> Outcome {
    // A disk of its own for the audit log, so that it can be full while everything else is well.
    ward.pc.sh(
        "rm -rf /tmp/state /tmp/etc/audit.head /run/bulkhead/audit.head; mkdir -p /tmp/state/audit; mount -t tmpfs -o size=1m,mode=700 audit /tmp/state/audit",
    )?;
    let result = with_own_disk(ward);
    ward.pc.sh("umount -l /tmp/state/audit; rm -rf /tmp/state")?;
    result
}

fn with_own_disk(ward: &Ward) -> Outcome {
    let agent = desktops::start_with_rules(&ward.pc, RULES)?;
    let mut person = Person::at(&ward.pc)?;
    let result = by_keys(ward, &agent, &mut person);
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}

fn by_keys(ward: &Ward, agent: &Agent<'_>, person: &mut Person<'_>) -> Outcome {
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    wait_for_agents(agent)?;
    readers(ward, agent)?;
    pictures(ward, person)?;

    ward.pc.progress("a text from the Internet into the clinical desktop");
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(RED))?;
    copies(person, "take 2 tablets, 8h apart")?;
    chord_with_overlay(person, "c")?;
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner again", SOON, in_front(GREEN))?;
    chord_with_overlay(person, "v")?;
    pastes_to_serial(person)?;
    serial_says(ward, "clinical", "PASTE=take 2 tablets, 8h apart=")?;

    ward.pc.progress(
        "more than the rule allows, out of the clinical desktop: denied, and the screen says why",
    );
    copies(person, "chart 20261123")?;
    chord_with_overlay(person, "c")?;
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(RED))?;
    let denied = chord_with_overlay(person, "v")?;
    person.photograph(&ward.pc.dir().join("denied.png"))?;
    ensure!(denied > 3000, "an overlay of {denied} pixels says no reason");
    // It still finds what it copied itself.
    pastes_to_serial(person)?;
    serial_says(ward, "internet", "PASTE=take 2 tablets, 8h apart=")?;

    ward.pc.progress("a short one is asked about; no, then yes");
    for (answer, expected) in [("esc", "PASTE=take 2 tablets, 8h apart="), ("ret", "PASTE=ok 7=")] {
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        copies(person, "ok 7")?;
        chord_with_overlay(person, "c")?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        chord_with_overlay(person, "v")?;
        person.photograph(&ward.pc.dir().join("question.png"))?;
        person.answers(answer)?;
        std::thread::sleep(Duration::from_secs(1));
        ward.pc.sh("truncate -s 0 /tmp/state/log/internet.log")?;
        pastes_to_serial(person)?;
        serial_says(ward, "internet", expected)?;
    }

    without_audit(ward, agent, person)?;
    under_another_policy(ward, agent, person)?;

    ward.pc.progress("what the audit holds");
    let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
    ensure!(verified.status == Some(0), "{verified:?}");
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    let verdicts: Vec<(String, String)> = pastes(&log)
        .map(|entry| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (text(&entry["verdict"]), text(&entry["detail"]["answer"]))
        })
        .collect();
    let expected = [
        // Pictures.
        ("allow", "-"),
        ("deny", "-"),
        ("deny", "-"),
        ("deny", "-"),
        ("deny", "-"),
        // Texts.
        ("allow", "-"),
        ("deny", "-"),
        ("ask", "no"),
        ("ask", "yes"),
        ("allow", "-"),
    ];
    let expected = expected.map(|(verdict, answer)| (verdict.to_owned(), answer.to_owned()));
    ensure!(verdicts == expected, "the audit has {verdicts:?}");
    ensure!(!log.contains("tablets") && !log.contains("20261123"), "content is in the audit log");
    Ok(())
}

/// Returns the pastes in the audit log, oldest first.
fn pastes(log: &str) -> impl Iterator<Item = Value> {
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries.filter(|entry| entry["kind"] == "clipboard")
}

/// Shows that what reads each desktop's clipboard runs in that domain's group, within its limits, and that what has no memory left there costs its own domain alone.
fn readers(ward: &Ward, agent: &Agent<'_>) -> Outcome {
    ward.pc.progress("what reads each desktop's clipboard, in its domain's group");
    let reader = |domain: &str| -> Outcome<String> {
        let pids = ward.pc.sh(&format!("cat {READERS}/{domain}/cgroup.procs"))?;
        Ok(pids.trim().to_owned())
    };
    for (domain, user) in [("clinical", "63998"), ("internet", "63997")] {
        let limits = ward.pc.sh(&format!(
            "cd {READERS}/{domain}; cat memory.max memory.swap.max pids.max cpu.weight cpu.max"
        ))?;
        let ours = limits.split_whitespace().collect::<Vec<_>>();
        let expected = ["268435456", "0", "128", "50", "100000", "100000"];
        ensure!(ours == expected, "the group of {domain}'s workers has {limits}");
        let proc = format!("/proc/{}", reader(domain)?);
        let command = ward.pc.sh(&format!("tr '\\0' ' ' < {proc}/cmdline"))?;
        let expected = format!("bulkhead-worker clipboard {user} ");
        ensure!(command.starts_with(&expected), "in {domain}'s group there is {command}");
        let status = ward.pc.sh(&format!("cat {proc}/status"))?;
        let uid = format!("Uid:\t{user}\t{user}\t{user}\t{user}");
        ensure!(status.lines().any(|line| line.trim_end() == uid), "{uid} is not in:\n{status}");
    }
    ward.pc.progress("the Internet desktop's has no memory left");
    let before = [reader("clinical")?, reader("internet")?];
    let memory =
        |bytes: &str| ward.pc.sh(&format!("echo {bytes} > {READERS}/internet/memory.max; true"));
    memory("65536")?;
    memory("268435456")?;
    let until = Instant::now() + patience(Duration::from_secs(60));
    loop {
        let now = reader("internet")?;
        if !now.is_empty() && now != before[1] {
            break;
        }
        ensure!(Instant::now() < until, "it goes on in 64 KiB, or no other is started: {now}");
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(reader("clinical")? == before[0], "the clinical desktop's is another as well");
    wait_for_agents(agent)
}

/// Shows that a picture crosses as the worker made it anew; a damaged one, one that is far larger than its file, one for which a worker has too little memory, and one whose worker is killed are refused
/// in words. Begins and ends
/// with the clinical desktop in front.
fn pictures(ward: &Ward, person: &mut Person<'_>) -> Outcome {
    let group = "/sys/fs/cgroup/bulkhead.workers-run-bulkhead";
    let limits =
        ward.pc.sh(&format!("cd {group}; cat memory.max pids.max cpu.weight cgroup.procs"))?;
    let ours = limits.split_whitespace().collect::<Vec<_>>();
    ensure!(ours == ["1140850688", "1", "50"], "the workers' group has {limits}");

    ward.pc.progress("a picture from the Internet into the clinical desktop");
    takes_picture(person, PICTURE)?;
    chord_with_overlay(person, "v")?;
    // A guest on a busy machine hears of the picture a moment later.
    person.enters("until xclip -o -selection clipboard -t image/png > p; do sleep 1; done\n")?;
    person.enters("echo PICTURE=$(sha256sum < p | cut -c 1-64)= > /dev/ttyS0\n")?;
    let log = || ward.pc.sh("cat /tmp/state/audit/*.jsonl");
    let Some(crossed) = pastes(&log()?).last() else {
        return Err(Failure("no paste is in the audit log".to_owned()));
    };
    let detail = &crossed["detail"];
    ensure!(crossed["verdict"] == "allow", "{crossed}");
    ensure!(detail["normalised"] == "encoded anew" && detail["type"] == "image/png", "{crossed}");
    let hash = detail["sha256"].as_str().unwrap_or("none");
    serial_says(ward, "clinical", &format!("PICTURE={hash}="))?;

    let refused = |person: &mut Person<'_>, why: &str| -> Outcome {
        let words = chord_with_overlay(person, "v")?;
        ensure!(words > 3000, "an overlay of {words} pixels says no reason");
        let last = pastes(&log()?).last().unwrap_or_default();
        ensure!(last["verdict"] == "deny" && last["detail"]["unfit"] == why, "{last}");
        Ok(())
    };
    ward.pc.progress("a damaged one");
    takes_picture(person, DAMAGED)?;
    refused(person, "the picture is damaged")?;
    person.photograph(&ward.pc.dir().join("damaged.png"))?;

    ward.pc.progress("one that is a thousand times as large once it is unpacked");
    takes(person, &format!("echo {BOMB} | base64 -d | gunzip > i\n"))?;
    refused(person, "the picture is too large")?;

    ward.pc.progress("a sound one, and a worker without memory");
    takes_picture(person, PICTURE)?;
    let memory = |bytes: &str| ward.pc.sh(&format!("echo {bytes} > {group}/memory.max"));
    memory("65536")?;
    let result = refused(person, "decoding it takes too much memory");
    memory("1140850688")?;
    result?;
    let workers = || ward.pc.sh(&format!("cat {group}/cgroup.procs"));
    ward.pc.progress("a sound one, and its worker is killed in the middle of its work");
    takes_picture(person, PICTURE)?;
    let before = person.see("no overlay", OVERLAY, |picture| !has_overlay(picture))?;
    let frozen = |word: &str| ward.pc.sh(&format!("echo {word} > {group}/cgroup.freeze"));
    frozen("1")?;
    let result = (|| {
        person.chord(&["ctrl", "alt", "v"])?;
        person.see("the banner's word on the preparation", SOON, |picture| {
            picture.banner() != before.banner()
        })?;
        let worker = workers()?;
        ward.pc.sh(&format!("kill -9 {}", worker.trim()))
    })();
    frozen("0")?;
    result?;
    person.see("words on the picture", SOON, has_overlay)?;
    let last = pastes(&log()?).last().unwrap_or_default();
    let why = "it could not be decoded; call IT if that happens again";
    ensure!(last["verdict"] == "deny" && last["detail"]["unfit"] == why, "{last}");
    let left = workers()?;
    ensure!(left.trim().is_empty(), "a worker is left: {left}");
    Ok(())
}

/// Has the Internet desktop copy a picture, takes it from there, and puts the clinical desktop in front.
fn takes_picture(person: &mut Person<'_>, picture: &str) -> Outcome {
    takes(person, &format!("echo {picture} | base64 -d > i\n"))
}

/// Takes the picture that a line writes into the file `i`.
fn takes(person: &mut Person<'_>, line: &str) -> Outcome {
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(RED))?;
    person.enters(line)?;
    person.enters("xclip -selection clipboard -t image/png i\n")?;
    // As for text.
    std::thread::sleep(Duration::from_secs(3));
    chord_with_overlay(person, "c")?;
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    Ok(())
}

/// Shows that while the audit log cannot be written nothing crosses, the banner says so, and the desktops go on. Begins with
/// the Internet desktop in front, ends with the clinical one.
fn without_audit(ward: &Ward, agent: &Agent<'_>, person: &mut Person<'_>) -> Outcome {
    ward.pc.progress("the disk of the audit log is full");
    let before = person.see("no overlay", OVERLAY, |picture| !has_overlay(picture))?;
    ward.pc.sh("dd if=/dev/zero of=/tmp/state/audit/filler bs=4k 2>/dev/null; true")?;
    // What is left of the log's last page takes some entries yet; what changes nothing would be counted and not written.
    let full = |agent: &Agent<'_>| -> Outcome<bool> {
        agent.bulkhead(&["reset", "nowhere"])?;
        Ok(agent.status()?["audit"]["ok"] == false)
    };
    let until = Instant::now() + Duration::from_secs(60);
    while !full(agent)? {
        ensure!(Instant::now() < until, "the log goes on without room");
    }
    person.see("the banner's word on the audit", SOON, |picture| {
        picture.banner() != before.banner()
    })?;
    copies(person, "while it is full")?;
    chord_with_overlay(person, "c")?;
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    chord_with_overlay(person, "v")?;
    ward.pc.sh("rm /tmp/state/audit/filler; truncate -s 0 /tmp/state/log/clinical.log")?;
    // It finds what it copied itself last.
    pastes_to_serial(person)?;
    serial_says(ward, "clinical", "PASTE=ok 7=")?;

    ward.pc.progress("there is room again");
    let until = Instant::now() + Duration::from_secs(60);
    while agent.status()?["audit"]["ok"] == false {
        ensure!(Instant::now() < until, "the log is not taken up again");
        agent.bulkhead(&["reset", "nowhere"])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    chord_with_overlay(person, "v")?;
    pastes_to_serial(person)?;
    serial_says(ward, "clinical", "PASTE=while it is full=")
}

/// Shows that what was pasted under a policy is taken back when another one that denies it comes into force. Begins with an offer in
/// the clinical desktop, which is in front.
fn under_another_policy(ward: &Ward, agent: &Agent<'_>, person: &mut Person<'_>) -> Outcome {
    ward.pc
        .progress("a policy without clipboard rules comes into force while something is on offer");
    ward.pc.sh(
        "sed '/^\\[\\[clipboard/,$d; s/^serial = 1/serial = 2/' /tmp/etc/policy.toml > /tmp/etc/next.toml",
    )?;
    let applied = agent.bulkhead(&["policy", "apply", "/tmp/etc/next.toml"])?;
    ensure!(applied.status == Some(0), "{applied:?}");
    ward.pc.sh("truncate -s 0 /tmp/state/log/clinical.log")?;
    pastes_to_serial(person)?;
    serial_says(ward, "clinical", "PASTE==")?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    ensure!(log.contains("\"kind\":\"clipboard-withdrawn\""), "no word of the offer's end");
    Ok(())
}

/// Waits until both guests' agents have announced themselves.
fn wait_for_agents(agent: &Agent<'_>) -> Outcome {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = agent.status()?;
        let there = |index: usize| status["domains"][index]["clipboard_agent"] == true;
        if there(0) && there(1) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "no SPICE agent in {}", status["domains"]);
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Has the desktop in front put this into its clipboard, in its terminal.
fn copies(person: &mut Person<'_>, text: &str) -> Outcome {
    person.enters(&format!("printf '{text}' | xclip -selection clipboard\n"))?;
    // The X server tells the desktop's agent, and that one the mediator; emulated twice over.
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

/// Has the desktop in front write what it would paste to its serial port.
fn pastes_to_serial(person: &mut Person<'_>) -> Outcome {
    person.enters("xclip -o -selection clipboard -t UTF8_STRING > p 2> e\n")?;
    person.enters("echo PASTE=$(cat p)= > /dev/ttyS0\n")
}

fn serial_says(ward: &Ward, domain: &str, words: &str) -> Outcome {
    let until = Instant::now() + Duration::from_secs(40);
    let file = format!("/tmp/state/log/{domain}.log");
    loop {
        let text = ward.pc.sh(&format!("cat {file}"))?;
        if text.contains(words) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{domain} never said {words}: {text}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Presses Ctrl+Alt and this, waits for the agent's words, and gives how many pixels they changed.
fn chord_with_overlay(person: &mut Person<'_>, key: &str) -> Outcome<usize> {
    let without = person.see("no overlay", OVERLAY, |picture| !has_overlay(picture))?;
    person.chord(&["ctrl", "alt", key])?;
    let with = person.see(&format!("words after Ctrl+Alt+{key}"), SOON, has_overlay)?;
    let (x, y, width, height) = overlay_area(&with);
    let all = (y..y + height).flat_map(|py| (x..x + width).map(move |px| (px, py)));
    Ok(all.filter(|(px, py)| with.at(*px, *py) != without.at(*px, *py)).count())
}

/// Returns where the overlay's middle is: below the banner, in the middle.
fn overlay_area(picture: &Picture) -> (usize, usize, usize, usize) {
    let rows = picture.banner_rows();
    (picture.width / 3, rows * 3 / 2 + 4, picture.width / 3, rows * 2)
}

/// Returns whether there are words over the desktop: it has one colour behind them, and that is none of a desktop's.
fn has_overlay(picture: &Picture) -> bool {
    let (x, y, width, _) = overlay_area(picture);
    let behind = picture.mostly(x, y, width, 6);
    ![0x0f_47_22, 0x61_14_10].contains(&behind)
}
