//! A probe guest run by `bulkhead-vmm` in the simulated PC.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peers::Vmm;
use crate::{Failure, Outcome, WardPc, ensure};

/// Longest from the VMM's start to the probe's first answer.
const BOOT: Duration = Duration::from_secs(60);
/// Longest an ordinary question takes.
const QUESTION: Duration = Duration::from_secs(60);

/// A probe guest's kernel command line.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// The kernel of those that are not about kernels: it is not packed, and starts sooner.
const KERNEL: &str = "/share/vmlinux";

/// The VMM in the PC.
pub const VMM: &str = "/share/bulkhead-vmm";

/// A client of a probe, wherever it runs.
pub struct Probe<'a> {
    pc: &'a WardPc,
    socket: String,
}

impl<'a> Probe<'a> {
    /// Connects the probe behind a port's socket.
    pub fn new(pc: &'a WardPc, socket: &str) -> Self {
        Self { pc, socket: socket.to_owned() }
    }

    /// Waits until the guest answers.
    pub fn wait_ready(&self) -> Outcome {
        self.pc.ask(&self.socket, &numbered(json!({"op": "timing"})), BOOT, false).map(drop)
    }

    /// Asks a question; an answer that is not `ok` is a failure.
    pub fn ask(&self, question: Value) -> Outcome<Value> {
        let question = numbered(question);
        // Filling gigabytes takes its time.
        let time = if question["op"] == "touch-memory" { 4 * QUESTION } else { QUESTION };
        let answer = self.pc.ask(&self.socket, &question, time, true)?;
        match answer["error"].as_str() {
            Some(error) => Err(Failure(format!("{question}: {error}"))),
            None => Ok(answer),
        }
    }

    /// Returns the guest's only network interface.
    pub fn interface(&self) -> Outcome<Value> {
        let answer = self.ask(json!({"op": "interfaces"}))?;
        let all = answer["interfaces"].as_array().cloned().unwrap_or_default();
        ensure!(all.len() == 1, "the guest has {} interfaces: {answer}", all.len());
        Ok(all.into_iter().next().unwrap_or_default())
    }

    /// Gives the only interface an address (CIDR) and waits for its link; returns its name.
    pub fn configure(&self, address: &str) -> Outcome<String> {
        let interface = self.interface()?;
        let name = interface["name"].as_str().unwrap_or_default().to_owned();
        self.ask(json!({"op": "configure", "interface": name, "address": address}))?;
        let carrier = format!("/sys/class/net/{name}/carrier");
        for _ in 0..100 {
            let up = self.ask(json!({"op": "run", "argv": ["/bin/busybox", "cat", carrier]}))?;
            if up["output"].as_str().is_some_and(|text| text.trim() == "1") {
                return Ok(name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure(format!("{name} has no link")))
    }

    /// Returns whether an address answers pings.
    pub fn reaches(&self, address: &str) -> Outcome<bool> {
        self.reaches_by(address, None)
    }

    /// Asks whether an address is reached out of an interface.
    pub fn reaches_by(&self, address: &str, interface: Option<&str>) -> Outcome<bool> {
        let question = json!({"op": "reach", "address": address, "interface": interface});
        Ok(self.ask(question)?["reached"] == true)
    }
}

/// Asks a question with a number of its own, by which its answer is known.
fn numbered(mut question: Value) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    question["id"] = NEXT.fetch_add(1, Ordering::Relaxed).into();
    question
}

/// A guest with its VMM.
pub struct Guest<'a> {
    pc: &'a WardPc,
    /// Its name, and that of its folder in `/run`.
    pub name: String,
    /// The process ID of its VMM.
    pub pid: u64,
    /// The test program that runs in the guest.
    pub probe: Probe<'a>,
}

impl<'a> Guest<'a> {
    /// Starts the VMM with a probe guest, `arguments` added, and waits for the probe.
    pub fn start(pc: &'a WardPc, name: &str, arguments: &[&str]) -> Outcome<Self> {
        Self::start_kernel(pc, name, KERNEL, arguments)
    }

    /// Starts the same with another kernel.
    pub fn start_kernel(
        pc: &'a WardPc,
        name: &str,
        kernel: &str,
        arguments: &[&str],
    ) -> Outcome<Self> {
        let run = format!("/run/{name}");
        pc.sh(&format!("rm -rf {run}; mkdir -p {run}"))?;
        let socket = format!("{run}/probe.sock");
        let port = format!("name=org.bulkhead.probe,socket={socket}");
        let serial = format!("file={run}/serial.log");
        let api = format!("{run}/vmm.sock");
        let mut argv = vec![
            VMM,
            "run",
            "--kernel",
            kernel,
            "--initrd",
            "/share/probe.cpio",
            "--cmdline",
            CMDLINE,
            "--port",
            &port,
            "--serial",
            &serial,
            "--api-socket",
            &api,
        ];
        argv.extend(arguments);
        Self::launch(pc, name, &argv)
    }

    /// Starts the probe guest in a VMM that is measured, its devices all there.
    pub fn start_vmm(pc: &'a WardPc, name: &str, vmm: Vmm, disk: &str) -> Outcome<Self> {
        Self::start_vmm_with(pc, name, vmm, disk, &[])
    }

    /// Starts the same with more arguments.
    pub fn start_vmm_with(
        pc: &'a WardPc,
        name: &str,
        vmm: Vmm,
        disk: &str,
        arguments: &[&str],
    ) -> Outcome<Self> {
        let run = format!("/run/{name}");
        pc.sh(&format!("rm -rf {run}; mkdir -p {run}"))?;
        let boot = [KERNEL, "/share/probe.cpio", CMDLINE];
        let mut argv = vmm.command(boot, &run, Some(disk));
        argv.extend(arguments.iter().map(|word| (*word).to_owned()));
        Self::launch(pc, name, &argv)
    }

    /// Runs a command line and waits for the probe.
    fn launch<S: AsRef<str>>(pc: &'a WardPc, name: &str, argv: &[S]) -> Outcome<Self> {
        let run = format!("/run/{name}");
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        let pid = pc.spawn(&argv, &format!("{run}/vmm.log"))?;
        let probe = Probe::new(pc, &format!("{run}/probe.sock"));
        let guest = Self { pc, name: name.to_owned(), pid, probe };
        match guest.probe.wait_ready() {
            Ok(()) => Ok(guest),
            Err(Failure(error)) => Err(Failure(format!("{error}\n{}", guest.logs()))),
        }
    }

    /// Returns the ends of the guest's logs.
    pub fn logs(&self) -> String {
        let state = self.pc.wait(self.pid, Duration::from_millis(1));
        format!(
            "--- {0} vmm (exit status {state:?})\n{1}\n--- {0} serial\n{2}",
            self.name,
            self.pc.tail(&format!("/run/{}/vmm.log", self.name)),
            self.pc.tail(&format!("/run/{}/serial.log", self.name)),
        )
    }

    /// Sends a command to the VMM's control socket.
    pub fn api(&self, command: &str) -> Outcome<Value> {
        let socket = format!("/run/{}/vmm.sock", self.name);
        self.pc.ask(&socket, &json!({"command": command}), Duration::from_secs(10), true)
    }

    /// Waits for the VMM's end; returns its exit status, or minus the signal.
    pub fn wait(&self, time: Duration) -> Outcome<i64> {
        match self.pc.wait(self.pid, time)? {
            Some(status) => Ok(status),
            None => Err(Failure(format!("the VMM still runs\n{}", self.logs()))),
        }
    }

    /// Powers the guest off from within and checks that the VMM ends well.
    pub fn power_off(self) -> Outcome {
        self.probe.ask(json!({"op": "power-off"}))?;
        let status = self.wait(Duration::from_secs(60))?;
        ensure!(status == 0, "the VMM ended with {status}\n{}", self.logs());
        Ok(())
    }

    /// Pulls the guest's plug.
    pub fn kill(&self) -> Outcome {
        self.pc.sh(&format!("kill -9 {}", self.pid))?;
        self.wait(Duration::from_secs(20)).map(drop)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // A test that failed half-way leaves no guest for the next one to trip over.
        let _ = self.pc.sh(&format!("kill -9 {} 2>/dev/null || true", self.pid));
        let _ = self.pc.wait(self.pid, Duration::from_secs(10));
    }
}
