//! The seat in trouble: a VMM that was taken over, no screen, no keyboard, monitors that change.

use std::time::Duration;

use serde_json::json;
use tests::agent::{Agent, SEAT_MACHINE, doctor, seat_policy};
use tests::guest::Probe;
use tests::seat::{Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, RED, SOON, in_front, keys, saw, start, typed, wait_for, with_seat};

#[ward_test(shows = ["K-3.1.1", "K-3.2.1"])]
fn a_vmm_that_was_taken_over_says_what_it_likes_and_changes_nothing_elsewhere(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("rm -f /tmp/rogue")?;
    let agent =
        Agent::launch_with(&ward.pc, SEAT_MACHINE, &seat_policy(), &["--vmm", "/share/rogue-vmm"])?;
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
    ward.pc.progress("the agent is killed: the screen is the console's again");
    ward.pc.sh("kill -9 $(pidof bulkhead-agent)")?;
    person.see("a screen without a banner", SOON, |picture| picture.banner_colour() == 0)?;
    drop(agent);
    ward.pc
        .sh("rm -rf /tmp/rogue /tmp/state; killall -9 rogue-vmm bulkhead-vmm 2>/dev/null; true")
        .map(drop)
}

#[ward_test(shows = ["K-3.1.1"])]
fn a_guest_that_sends_its_gpu_noise_disturbs_neither_its_vmm_nor_the_seat(ward: &Ward) -> Outcome {
    const COUNT: u64 = 4000;
    with_seat(ward, |agent, person, [clinical, internet]| {
        clinical.ask(json!({"op": "paint", "colour": 0x123456}))?;
        let shown = |picture: &Picture| {
            in_front(GREEN)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
        };
        let before = person.see("the clinical picture", SOON, shown)?;
        let pid = agent.status()?["domains"][1]["pid"].clone();
        ward.pc.progress("the Internet guest takes its GPU from the kernel and sends it noise");
        let question = json!({"op": "hostile-gpu", "count": COUNT, "seed": 7});
        let answer = internet.ask(question)?;
        ward.pc.progress(&format!("{} answered, {} resets", answer["answered"], answer["resets"]));
        let done = |key: &str| answer[key].as_u64().unwrap_or(0);
        ensure!(done("answered") > COUNT / 4, "hardly a command was one: {answer}");
        ensure!(done("resets") > 0, "no command broke the rules: {answer}");
        person.types(&["a"])?;
        saw(&clinical, "clinical", &typed(30))?;
        let after = person.see("the clinical picture", SOON, shown)?;
        ensure!(after.banner() == before.banner(), "the banner changed");
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        person.types(&["b"])?;
        saw(&internet, "internet", &typed(48))?;
        ensure!(agent.status()?["domains"][1]["pid"] == pid, "its VMM did not survive");
        Ok(())
    })
}

#[ward_test]
fn without_screen_or_keyboard_the_guests_run_and_every_word_says_what_to_do(
    ward: &Ward,
) -> Outcome {
    let told = |machine: &str| -> Outcome<String> {
        Ok(doctor(&ward.pc, machine, &seat_policy(), &[])?.stdout)
    };
    ward.pc.progress("a card that is not there");
    let wrong =
        SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"kms\"\ncard = \"/dev/dri/card7\"");
    let said = told(&wrong)?;
    ensure!(said.contains("/dev/dri/card7") && said.contains("`card` in [seat]"), "{said}");
    ward.pc.progress("no monitor, and no keyboard: the guests run, log and status say so");
    let mut person = Person::at(&ward.pc)?;
    for device in ["keyboard", "mouse"] {
        person.hardware().unplug(device)?;
    }
    let connector = "/sys/class/drm/card0-Virtual-1/status";
    ward.pc.sh(&format!("echo off > {connector}"))?;
    let back = (|| {
        wait_for("no input device", || {
            let said = told(SEAT_MACHINE)?;
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
        let said = told(SEAT_MACHINE)?;
        ensure!(said.contains("a program draws there now"), "{said}");
        agent.stop()
    })();
    ward.pc.sh(&format!("echo detect > {connector}"))?;
    back
}

#[ward_test]
fn a_monitor_of_another_size_resizes_both_guests_and_one_that_is_gone_comes_back(
    ward: &Ward,
) -> Outcome {
    let second =
        SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"kms\"\ncard = \"/dev/dri/card1\"");
    ward.pc
        .sh("modprobe virtio_gpu; for i in 1 2 3 4 5; do [ -e /dev/dri/card1 ] || sleep 1; done")?;
    let agent = Agent::launch_with(&ward.pc, &second, &seat_policy(), &[])?;
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
