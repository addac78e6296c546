//! Two domains run by `bulkhead-agent` in the simulated PC.

use std::time::Duration;

use serde_json::Value;

use crate::guest::Probe;
use crate::wardpc::Output;
use crate::{Failure, Outcome, WardPc, ensure};

const STOP: Duration = Duration::from_secs(90);

/// Makes a machine file for two probe guests with a NIC each.
pub fn machine_file(clinical_nic: &str, internet_nic: &str) -> String {
    let domain = |name: &str, nic: &str| {
        format!(
            "[domain.{name}]\nmemory = \"512M\"\ncpus = 1\nkernel = \"/share/vmlinuz\"\n\
             initrd = \"/share/probe.cpio\"\ncmdline = \"console=ttyS0 quiet\"\nnic = \"{nic}\"\n\
             serial = \"file={name}.log\"\nports = [\"org.bulkhead.probe\"]\n\n"
        )
    };
    format!(
        "format = 1\n\n[seat]\nbackend = \"none\"\n\n{}{}",
        domain("clinical", clinical_nic),
        domain("internet", internet_nic)
    )
}

/// The smallest policy for them.
pub const POLICY: &str = include_str!("../../policy/tests/fixtures/two-domains.toml");

/// A machine file with a seat, for two probe guests without a network, from a kernel that is not packed: they start sooner.
pub const SEAT_MACHINE: &str = r#"format = 1

[seat]
backend = "kms"

[domain.clinical]
memory = "256M"
cpus = 1
kernel = "/share/vmlinux"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=clinical.log"
ports = ["org.bulkhead.probe"]

[domain.internet]
memory = "256M"
cpus = 1
kernel = "/share/vmlinux"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=internet.log"
ports = ["org.bulkhead.probe"]
"#;

/// Makes the policy for them.
pub fn seat_policy() -> String {
    POLICY.replace("\"passthrough\"", "\"none\"").replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
}

/// An agent that runs in a ward PC.
pub struct Agent<'a> {
    pc: &'a WardPc,
    pid: u64,
}

impl<'a> Agent<'a> {
    /// Starts the agent with `machine` as its machine file and waits until both guests answer.
    pub fn start(pc: &'a WardPc, machine: &str) -> Outcome<Self> {
        let this = Self::launch(pc, machine)?;
        for domain in ["clinical", "internet"] {
            if let Err(Failure(error)) = this.probe(domain).wait_ready() {
                return Err(Failure(format!("{error}\n{}", this.logs())));
            }
        }
        Ok(this)
    }

    /// Starts the agent only.
    pub fn launch(pc: &'a WardPc, machine: &str) -> Outcome<Self> {
        Self::launch_with(pc, machine, POLICY, &[])
    }

    /// Launches the same with another policy and more arguments; images are in `/share` unless an argument says otherwise.
    pub fn launch_with(
        pc: &'a WardPc,
        machine: &str,
        policy: &str,
        arguments: &[&str],
    ) -> Outcome<Self> {
        Self::launch_build(pc, "/share/bulkhead-agent", machine, policy, arguments)
    }

    /// Launches the same of another build, which is this program.
    pub fn launch_build(
        pc: &'a WardPc,
        program: &str,
        machine: &str,
        policy: &str,
        arguments: &[&str],
    ) -> Outcome<Self> {
        pc.sh(&format!(
            "mkdir -p /tmp/etc; cat > /tmp/etc/machine.toml <<'END'\n{machine}END\n\
             cat > /tmp/etc/policy.toml <<'END'\n{policy}END\n\
             # A test that deleted the state wants a new PC, not one that remembers more than it has.\n\
             [ -e /tmp/state ] || rm -f /tmp/etc/audit.head /run/bulkhead/audit.head\n\
             # Another test's policy may have this one's serial, and a PC takes no other policy with it.\n\
             rm -f /tmp/state/policy.json\n"
        ))?;
        let argv = [
            program,
            "--machine",
            "/tmp/etc/machine.toml",
            "--policy",
            "/tmp/etc/policy.toml",
            "--state",
            "/tmp/state",
            "--runtime",
            "/run/bulkhead",
        ];
        let images: &[&str] =
            if arguments.contains(&"--images") { &[] } else { &["--images", "/share"] };
        let pid = pc.spawn(&[&argv, images, arguments].concat(), "/tmp/agent.log")?;
        Ok(Self { pc, pid })
    }

    /// Returns the probe in a domain.
    pub fn probe(&self, domain: &str) -> Probe<'a> {
        Probe::new(self.pc, &format!("/run/bulkhead/{domain}/org.bulkhead.probe.sock"))
    }

    /// Runs `bulkhead` with these arguments.
    pub fn bulkhead(&self, arguments: &[&str]) -> Outcome<Output> {
        let argv = [&["/share/bulkhead"], arguments].concat();
        self.pc.exec(&argv, Duration::from_secs(120))
    }

    /// Asks for `bulkhead status --json`.
    pub fn status(&self) -> Outcome<Value> {
        let output = self.bulkhead(&["status", "--json"])?;
        // 1 says that a domain is down, which a test may want.
        ensure!(matches!(output.status, Some(0 | 1)), "status: {output:?}\n{}", self.logs());
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// Returns the end of the agent's log and of the guests', and what each thread of a VMM does: twice, so that one that
    /// works is told from one that waits (user and system time are the 14th and 15th figure; proc(5)).
    pub fn logs(&self) -> String {
        let serial =
            self.pc.sh("for f in /tmp/state/log/*; do echo \"-- $f\"; tail -c 1500 $f; done; true");
        let threads = self.pc.sh("for round in 1 2; do for t in /proc/[0-9]*/task/*; do \
             grep -q bulkhead-vmm $t/../../comm 2>/dev/null && echo $(cut -d' ' -f1-3,14,15 $t/stat) $(cat $t/wchan $t/syscall); \
             done; sleep $((2 - round)); done; true");
        format!(
            "--- agent\n{}\n{}\n--- threads\n{}",
            self.pc.tail("/tmp/agent.log"),
            serial.unwrap_or_default(),
            threads.unwrap_or_default()
        )
    }

    /// Waits for the agent's end; returns its exit status.
    pub fn wait(&self, time: Duration) -> Outcome<Option<i64>> {
        self.pc.wait(self.pid, time)
    }

    /// Kills the agent, which can do nothing any more. Its guests run on, for the next one.
    pub fn kill(self) -> Outcome {
        let killed = std::mem::ManuallyDrop::new(self);
        killed.pc.sh(&format!("kill -9 {}", killed.pid))?;
        killed.wait(Duration::from_secs(10)).map(drop)
    }

    /// Ends the agent alone. Its guests run on, for the next one.
    pub fn leave(self) -> Outcome {
        let left = std::mem::ManuallyDrop::new(self);
        left.pc.sh(&format!("kill -USR1 {}", left.pid))?;
        let status = left.wait(STOP)?;
        ensure!(status == Some(0), "the agent ended with {status:?}\n{}", left.logs());
        Ok(())
    }

    /// Has the main thread of an agent that is built for it panic (`scripts/build`). Its guests run on, for the next one.
    pub fn panic(self) -> Outcome {
        let panicked = std::mem::ManuallyDrop::new(self);
        panicked.pc.sh(&format!("kill -USR2 {}", panicked.pid))?;
        let (status, logs) = (panicked.wait(STOP)?, panicked.logs());
        ensure!(status == Some(101), "the agent ended with {status:?}\n{logs}");
        ensure!(logs.contains("panicked at"), "the agent does not say so: {logs}");
        Ok(())
    }

    /// Ends the agent in an orderly way.
    pub fn stop(self) -> Outcome {
        self.pc.sh(&format!("kill {}", self.pid))?;
        let status = self.wait(STOP)?;
        ensure!(status == Some(0), "the agent ended with {status:?}\n{}", self.logs());
        Ok(())
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.pc.sh(&format!(
            "kill {} 2>/dev/null; sleep 1; kill -9 {} 2>/dev/null; killall -9 bulkhead-vmm 2>/dev/null; \
             # Another test's agent has nothing to take up.
             rm -f /run/bulkhead/*/vmm.json /run/bulkhead/*/wanted.json /run/bulkhead/seat.json; true",
            self.pid, self.pid
        ));
        let _ = self.wait(Duration::from_secs(10));
    }
}

/// Writes these files on the PC and runs `bulkhead doctor` on them, with more arguments.
pub fn doctor(pc: &WardPc, machine: &str, policy: &str, more: &[&str]) -> Outcome<Output> {
    pc.sh(&format!(
        "mkdir -p /tmp/etc; cat > /tmp/etc/machine.toml <<'END'\n{machine}END\n\
         cat > /tmp/etc/policy.toml <<'END'\n{policy}END\n"
    ))?;
    let files = ["--machine", "/tmp/etc/machine.toml", "--policy", "/tmp/etc/policy.toml"];
    let argv = [&["/share/bulkhead", "doctor", "--images", "/share"], &files[..], more].concat();
    pc.exec(&argv, Duration::from_secs(60))
}
