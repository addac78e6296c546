//! Two small desktops at the seat of the simulated ward PC.

use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::{Failure, Outcome, WardPc};

/// Longest from the agent's start to both desktops.
const READY: Duration = Duration::from_secs(240);

/// A machine file for two small desktops with a NIC each.
pub fn machine_file(clinical_nic: &str, internet_nic: &str) -> String {
    let domain = |name: &str, label: &str, colour: &str, nic: &str| {
        format!(
            "[domain.{name}]\nmemory = \"384M\"\ncpus = 1\nkernel = \"/share/vmlinuz\"\n\
             initrd = \"/share/small/desktop.cpio\"\n\
             cmdline = \"console=ttyS0 quiet desktop.label={label} desktop.colour={colour}\"\n\
             nic = \"{nic}\"\nserial = \"file={name}.log\"\nports = [\"com.redhat.spice.0\"]\n\n"
        )
    };
    format!(
        "format = 1\n\n[seat]\nbackend = \"kms\"\n\n{}{}",
        domain("clinical", "CLINICAL", "#0f4722", clinical_nic),
        domain("internet", "INTERNET", "#611410", internet_nic)
    )
}

/// The policy for them: labels a ward would have.
pub fn policy() -> String {
    crate::agent::POLICY
        .replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
        .replace("\"INTERNET\"", "\"인터넷 INTERNET\"")
}

/// Starts the agent and waits until both desktops are up.
pub fn start<'a>(pc: &'a WardPc, machine: &str) -> Outcome<Agent<'a>> {
    let agent = Agent::launch_with(pc, machine, &policy(), &[])?;
    let until = Instant::now() + READY;
    loop {
        let ready = pc.sh("grep -l 'SMALL-DESKTOP ready' /tmp/state/log/*.log | wc -l || true")?;
        if ready.trim() == "2" {
            return Ok(agent);
        }
        if Instant::now() > until {
            return Err(Failure(format!("the desktops are not up\n{}", agent.logs())));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
