//! Break-glass: what only it allows.

use std::fs;
use tests::ward_test;

use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::seat::Person;
use tests::ward::Ward;
use tests::{Failure, Outcome, ensure};

use super::super::seat::{GREEN, in_front};
use super::{
    MIB, Ports, RULES, SOON, disk_in, is_attached, run, taken_away_in_time, until, wait_for,
};

pub(super) fn by_hand(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let clinical = agent.probe("clinical");
    ward.pc.progress("break-glass: the stick may be written while it is open, and not after");
    fs::write(ports.medium("patient"), vec![1; 4 * MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick to be read", is_attached("read-only"))?;
    let refused = agent.bulkhead(&["break-glass", "--reason", "x", "--for", "1h"])?;
    ensure!(
        refused.status == Some(1) && refused.stderr.contains("2 minutes at most"),
        "{refused:?}"
    );
    let opened = agent.bulkhead(&["break-glass", "--reason", "discharge letter", "--for", "2m"])?;
    ensure!(opened.status == Some(0), "{opened:?}");
    wait_for(agent, "stick to be written", is_attached("allow"))?;
    disk_in(&clinical, true)?;
    let (output, done) = run(
        &clinical,
        "head -c 65536 /dev/zero | tr '\\0' 'w' | dd of=/dev/sda bs=64k conv=fsync",
    )?;
    ensure!(done, "{output}");
    let closed = agent.bulkhead(&["break-glass", "--end"])?;
    ensure!(closed.status == Some(0), "{closed:?}");
    wait_for(agent, "stick to be read again", is_attached("read-only"))?;
    disk_in(&clinical, true)?;
    let (_, done) = run(
        &clinical,
        "blockdev --setrw /dev/sda; dd if=/dev/zero of=/dev/sda bs=4k count=1 conv=fsync",
    )?;
    ensure!(!done, "it can be written after break-glass");
    ward.pc.progress("it ends by itself");
    let opened = agent.bulkhead(&["break-glass", "--reason", "once more", "--for", "8s"])?;
    ensure!(opened.status == Some(0), "{opened:?}");
    wait_for(agent, "stick to be written", is_attached("allow"))?;
    wait_for(agent, "stick to be read when the time is over", is_attached("read-only"))?;
    ports.pull("patient")?;
    let medium = fs::read(ports.medium("patient"))?;
    ensure!(medium[..65536].iter().all(|byte| *byte == b'w') && medium[65536] == 1, "not written");
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    for word in [
        "break-glass-opened",
        "discharge letter",
        "break-glass-closed",
        "its time is over",
        "usb-detached",
        "\"break_glass\":true",
        "usb-refused",
    ] {
        ensure!(log.contains(word), "`{word}` is not in the audit log");
    }
    taken_away_in_time(ward, &log, "break-glass-closed")
}

/// With the seat's own keys: the question, the banner while it is open, and its end.
#[ward_test(shows = ["I-3", "K-1.3.6"])]
fn break_glass_is_opened_and_closed_by_its_chord_and_the_banner_says_so(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let rules = RULES.replace("reason_required = true", "reason_required = false");
    let agent = Agent::launch_with(&ward.pc, SEAT_MACHINE, &(seat_policy() + &rules), &[])?;
    let mut person = Person::at(&ward.pc)?;
    let result = (|| {
        guests_are_up(&agent)?;
        let before = person.see("the clinical banner", SOON, in_front(GREEN))?;
        let open = || Ok(agent.status()?["break_glass_seconds"].is_u64());
        ward.pc.progress("Ctrl+Alt+B asks; Escape leaves it closed, Enter opens it");
        for (answer, expected) in [("esc", false), ("ret", true)] {
            let clear =
                person.see("no question", SOON, |picture| middle(picture) == middle(&before))?;
            person.chord(&["ctrl", "alt", "b"])?;
            person.see("the question", SOON, |picture| middle(picture) != middle(&clear))?;
            person.photograph(&ward.pc.dir().join("break-glass-question.png"))?;
            person.answers(answer)?;
            if expected {
                until("it is not open", open)?;
            } else {
                std::thread::sleep(super::LOOK * 5);
                ensure!(!open()?, "it is open without a yes");
            }
        }
        ward.pc.progress("the banner says so until it is closed, by the chord too");
        person.see("the banner's word of it", SOON, |picture| {
            in_front(GREEN)(picture) && picture.banner() != before.banner()
        })?;
        person.photograph(&ward.pc.dir().join("break-glass-open.png"))?;
        let clear =
            person.see("no question", SOON, |picture| middle(picture) == middle(&before))?;
        person.chord(&["ctrl", "alt", "b"])?;
        person.see("the question", SOON, |picture| middle(picture) != middle(&clear))?;
        person.answers("ret")?;
        until("it is still open", || Ok(!open()?))?;
        person.see("the banner as it was", SOON, |picture| picture.banner() == before.banner())?;
        Ok(())
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

/// With reasons in the policy: the list, a digit and the arrows that mark, Enter, Escape, what is typed as fast as a scanner does, and what
/// of it is in the audit log.
#[ward_test(shows = ["I-3", "K-1.3.6"])]
fn break_glass_with_reasons_is_opened_at_the_seat_by_choosing_one_which_is_recorded(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let listed =
        "reason_required = true\nreasons = [\"의식 없는 환자\", \"system down\", \"transfer\"]";
    let rules = RULES.replace("reason_required = true", listed);
    let agent = Agent::launch_with(&ward.pc, SEAT_MACHINE, &(seat_policy() + &rules), &[])?;
    let mut person = Person::at(&ward.pc)?;
    let result = (|| {
        guests_are_up(&agent)?;
        let before = person.see("the clinical banner", SOON, in_front(GREEN))?;
        let open = || Ok(agent.status()?["break_glass_seconds"].is_u64());
        ward.pc.progress("Enter with nothing marked, a digit alone and what a scanner types leave it closed; a digit or arrows, then Enter, open it");
        // In the order of the list: Up from nothing is the last, so that two steps up are the second.
        for (keys, opens) in [
            (&["ret", "esc"][..], false),
            (&["1", "SCAN", "esc"][..], false),
            (&["1", "ret"][..], true),
            (&["up", "up", "ret"][..], true),
        ] {
            let clear =
                person.see("no question", SOON, |picture| middle(picture) == middle(&before))?;
            person.chord(&["ctrl", "alt", "b"])?;
            person.see("the list", SOON, |picture| middle(picture) != middle(&clear))?;
            person.photograph(&ward.pc.dir().join("break-glass-reasons.png"))?;
            for key in keys {
                match *key {
                    // A barcode, as a scanner that is a keyboard types it.
                    "SCAN" => {
                        std::thread::sleep(super::LOOK * 10);
                        person.types(&["2", "0", "1", "3", "ret"])?;
                        std::thread::sleep(super::LOOK * 5);
                        ensure!(!open()?, "a scanner has opened it");
                    }
                    key => person.answers(key)?,
                }
                ensure!(opens || !open()?, "{key} has opened it");
            }
            if !opens {
                std::thread::sleep(super::LOOK * 5);
                ensure!(!open()?, "it is open without a reason");
                continue;
            }
            until("it is not open", open)?;
            let closed = agent.bulkhead(&["break-glass", "--end"])?;
            ensure!(closed.status == Some(0), "{closed:?}");
        }
        let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
        let opened: Vec<&str> =
            log.lines().filter(|line| line.contains("break-glass-opened")).collect();
        ensure!(
            opened.len() == 2
                && opened[0].contains("의식 없는 환자")
                && opened[1].contains("system down"),
            "the log has {opened:?}"
        );
        Ok(())
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

/// Waits for both guests: before its guest is up a desktop says so, where questions appear.
fn guests_are_up(agent: &Agent<'_>) -> Outcome {
    ["clinical", "internet"].into_iter().try_for_each(|name| agent.probe(name).wait_ready())
}

/// Returns the colour of the screen's middle below the banner, where words appear.
fn middle(picture: &tests::seat::Picture) -> u32 {
    picture.mostly(picture.width / 3, picture.banner_rows() * 3 / 2 + 4, picture.width / 3, 6)
}
