//! What the committed unit of the agent asks of systemd is what the running system has, and what the kernel has of the running agent.

use std::collections::BTreeSet;

use tests::installed::run;
use tests::{Outcome, WardPc, ensure};

/// The unit, as it is delivered.
const UNIT: &str = include_str!("../../../agent/systemd/bulkhead-agent.service");
/// What comes before are the service's start and end, which the other tests see at work.
const FIRST: &str = "CapabilityBoundingSet=";
/// systemd shows these in other words; they are looked at apart.
const IN_OTHER_WORDS: [&str; 3] = ["IPAddressDeny", "SystemCallFilter", "SystemCallErrorNumber"];
/// Calls that no filter of the unit may let through.
const REFUSED: [&str; 6] =
    ["reboot", "init_module", "ptrace", "clock_settime", "swapon", "kexec_load"];
/// Capabilities by their numbers (capability.h), those that the unit names.
const CAPABILITIES: [(&str, u32); 9] = [
    ("cap_chown", 0),
    ("cap_dac_override", 1),
    ("cap_fowner", 3),
    ("cap_kill", 5),
    ("cap_setgid", 6),
    ("cap_setuid", 7),
    ("cap_setpcap", 8),
    ("cap_sys_ptrace", 19),
    ("cap_sys_admin", 21),
];

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// The unit's directives from [`FIRST`] on; what is said several times is one list.
fn directives() -> Vec<(&'static str, BTreeSet<String>)> {
    let mut found: Vec<(&str, BTreeSet<String>)> = Vec::new();
    let hardening = UNIT.lines().skip_while(|line| !line.starts_with(FIRST));
    for line in hardening.take_while(|line| *line != "[Install]") {
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.extend(words(value)),
            None => found.push((name, words(value))),
        }
    }
    found
}

/// Compares each directive with what systemd has of the service, and the agent's process with what they mean.
pub(super) fn is_in_force(pc: &WardPc) -> Outcome {
    let directives = directives();
    ensure!(directives.len() > 20, "the unit's hardening is not where it was");
    let show = |name: &str| {
        run(pc, &format!("systemctl show bulkhead-agent.service -p {name} --value"))
            .map(|value| words(&value))
    };
    for (name, asked) in &directives {
        if !IN_OTHER_WORDS.contains(name) {
            let mut has = show(name)?;
            if *name == "DeviceAllow" {
                // `ProtectClock=` has this added (systemd.exec(5)).
                has.retain(|word| word != "char-rtc" && word != "r");
            }
            ensure!(has == *asked, "{name} of the running service is {has:?}, not {asked:?}");
        }
    }
    let denied = show("IPAddressDeny")?;
    ensure!(denied == words("0.0.0.0/0 ::/0"), "IPAddressDeny is {denied:?}");
    let allowed = show("SystemCallFilter")?;
    for call in REFUSED {
        ensure!(!allowed.contains(call), "the service's filter lets {call} through");
    }
    ensure!(allowed.contains("mount") && allowed.contains("seccomp"), "it lets pass {allowed:?}");

    let status =
        run(pc, "cat /proc/$(systemctl show -p MainPID --value bulkhead-agent.service)/status")?;
    let mask = show("CapabilityBoundingSet")?.iter().try_fold(0_u64, |mask, name| {
        let number = CAPABILITIES.iter().find(|(known, _)| known == name);
        number.map(|(_, number)| mask | 1 << number)
    });
    let mask = mask.ok_or("the unit has a capability that the test does not know")?;
    for line in [
        format!("CapBnd:\t{mask:016x}"),
        "CapInh:\t0000000000000000".to_owned(),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        ensure!(status.lines().any(|found| found == line), "{line} is not in:\n{status}");
    }
    pc.progress(&format!("{} directives of the unit are in force", directives.len()));
    Ok(())
}
