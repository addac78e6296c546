//! Two desktops at the seat of the simulated ward PC.

use std::fs;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::{Failure, Outcome, WardPc, ensure};

/// Longest from the agent's start to both desktops.
const READY: Duration = Duration::from_secs(240);
/// The same for the full ones, emulated twice over.
const FULL_READY: Duration = Duration::from_secs(50 * 60);

/// Makes a machine file for two small desktops with a NIC each.
pub fn machine_file(clinical_nic: &str, internet_nic: &str) -> String {
    small(Some(clinical_nic), Some(internet_nic))
}

fn small(clinical_nic: Option<&str>, internet_nic: Option<&str>) -> String {
    let domain = |name: &str, label: &str, colour: &str, nic: Option<&str>| {
        let nic = nic.map(|nic| format!("nic = \"{nic}\"\n")).unwrap_or_default();
        format!(
            "[domain.{name}]\nmemory = \"384M\"\ncpus = 1\nkernel = \"/share/vmlinuz\"\n\
             initrd = \"/share/small/desktop.cpio\"\n\
             cmdline = \"console=ttyS0 quiet desktop.label={label} desktop.colour={colour}\"\n\
             {nic}serial = \"file={name}.log\"\n\n"
        )
    };
    format!(
        "format = 1\n\n[seat]\nbackend = \"kms\"\n\n{}{}",
        domain("clinical", "CLINICAL", "#0f4722", clinical_nic),
        domain("internet", "INTERNET", "#611410", internet_nic)
    )
}

/// Makes the policy for them: labels a ward would have.
pub fn policy() -> String {
    crate::agent::POLICY
        .replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
        .replace("\"INTERNET\"", "\"인터넷 INTERNET\"")
}

/// Makes a machine file for the two full desktops, and where `scripts/build-images desktops` put them shared with the PC.
///
/// The clinical one runs without its second disk: what the PC sees of this folder cannot be written.
pub fn full_machine_file(clinical_nic: &str, internet_nic: &str) -> Outcome<String> {
    let share = crate::wardpc::images().join("share");
    let built = crate::wardpc::images().join("../images");
    let domain = |name: &str, nic: &str| -> Outcome<String> {
        let from = built.join(name);
        ensure!(
            from.join("cmdline").exists(),
            "{} is missing; run scripts/build-images desktops first",
            from.display()
        );
        let to = share.join("full").join(name);
        fs::create_dir_all(&to)?;
        for file in ["vmlinuz", "initrd", "root.img"] {
            let _ = fs::remove_file(to.join(file));
            fs::hard_link(from.join(file), to.join(file))?;
        }
        let cmdline = fs::read_to_string(from.join("cmdline"))?;
        Ok(format!(
            "[domain.{name}]\nmemory = \"2G\"\ncpus = 1\nkernel = \"/share/full/{name}/vmlinuz\"\n\
             initrd = \"/share/full/{name}/initrd\"\ncmdline = \"{} verity.check=lazy\"\n\
             disks = [ {{ path = \"/share/full/{name}/root.img\", readonly = true }} ]\n\
             nic = \"{nic}\"\nserial = \"file={name}.log\"\n\n",
            cmdline.trim()
        ))
    };
    Ok(format!(
        "format = 1\n\n[seat]\nbackend = \"kms\"\n\n{}{}",
        domain("clinical", clinical_nic)?,
        domain("internet", internet_nic)?
    ))
}

/// A rule for the clipboard: text from the Internet into the clinical desktop.
pub const RULES: &str = r#"
[[clipboard]]
id = "reference-text-in"
from = "internet"
to = "clinical"
types = ["text/plain"]
max_bytes = 4096
action = "allow"
inspect = ["korean-rrn"]
"#;

/// Starts the agent with these rules besides and waits until both small desktops are up.
pub fn start<'a>(pc: &'a WardPc, machine: &str, rules: &str) -> Outcome<Agent<'a>> {
    start_until(pc, machine, &(policy() + rules), "SMALL-DESKTOP ready", READY)
}

/// Starts the agent with two small desktops without a network, under a policy with these rules besides.
pub fn start_with_rules<'a>(pc: &'a WardPc, rules: &str) -> Outcome<Agent<'a>> {
    let policy = policy().replace("\"passthrough\"", "\"none\"") + rules;
    start_until(pc, &small(None, None), &policy, "SMALL-DESKTOP ready", READY)
}

/// Starts the agent and waits until both full desktops are up.
pub fn start_full<'a>(pc: &'a WardPc, machine: &str) -> Outcome<Agent<'a>> {
    start_until(pc, machine, &policy(), "DESKTOP ready", FULL_READY)
}

fn start_until<'a>(
    pc: &'a WardPc,
    machine: &str,
    policy: &str,
    word: &str,
    time: Duration,
) -> Outcome<Agent<'a>> {
    let agent = Agent::launch_with(pc, machine, policy, &[])?;
    let until = Instant::now() + crate::patience::patience(time);
    loop {
        let ready = pc.sh(&format!("grep -l '{word}' /tmp/state/log/*.log | wc -l || true"))?;
        if ready.trim() == "2" {
            return Ok(agent);
        }
        if Instant::now() > until {
            return Err(Failure(format!("the desktops are not up\n{}", agent.logs())));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
