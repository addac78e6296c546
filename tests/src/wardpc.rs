//! One simulated ward PC, from power-on to power-off.

mod input;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::patience::{self, patience};
use crate::power_cut::Recording;
use crate::qmp::Qmp;
use crate::watch::{self, Watch};
use crate::{Failure, Network, Outcome, ensure};

/// Longest from power-on to the first answer.
const BOOT: Duration = Duration::from_secs(240);
/// Where the second screen can be looked at, in the PC's folder.
pub(crate) const SECOND_SCREEN: &str = "second-screen";
/// What an answer may take beyond the time its question allows.
const MARGIN: Duration = Duration::from_secs(20);
/// Processors of the PC (docs/design/decisions/0007-two-simulated-processors.md).
const PROCESSORS: u64 = 2;
/// How much of a log a failure shows, in bytes.
const TAIL: usize = 4000;

/// How the error of a question begins that a PC did not answer.
pub const NO_ANSWER: &str = "the PC does not answer";

/// Returns where `scripts/build-images` put everything.
pub fn images() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    root.join("target/wardpc")
}

/// What a simulated PC has.
#[derive(Default)]
pub struct Hardware<'a> {
    /// RAM in MiB.
    pub memory_mib: u32,
    /// NICs: slot number on the root bus, MAC address, network.
    pub nics: Vec<(u8, &'static str, &'a Network)>,
    /// Whether time is what instructions make it, two nanoseconds each, so that times repeat.
    pub count_instructions: bool,
    /// How many bits its processors' physical addresses have, if not as many as QEMU has of itself.
    pub address_bits: Option<u8>,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
    /// What it starts, if not the system in memory that `scripts/build-images` makes.
    pub system: Option<System>,
}

/// A system on a disk, whose kernel QEMU starts as a boot loader would.
#[derive(Clone)]
pub struct System {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initramfs that the kernel starts.
    pub initrd: PathBuf,
    /// The disk, raw: /dev/vda. It is written to.
    pub disk: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// Where what is written to the disk is logged, if it is.
    pub recording: Option<Recording>,
}

impl System {
    /// Returns the system that lives in memory alone, from these images.
    fn in_memory(images: &Path) -> Self {
        Self {
            kernel: images.join("share/vmlinuz"),
            initrd: images.join("wardpc.cpio.gz"),
            disk: PathBuf::new(),
            // A busy machine gives the emulated timer too few ticks for the kernel's own check of it.
            cmdline: "console=ttyS0 panic=-1 quiet no_timer_check intel_iommu=on iommu=nopt"
                .to_owned(),
            recording: None,
        }
    }
}

/// A running simulated PC. Dropping it pulls the plug.
pub struct WardPc {
    qemu: Child,
    channel: Mutex<Channel>,
    dir: PathBuf,
    started: Instant,
    watch: Arc<Watch>,
}

struct Channel {
    stream: BufReader<UnixStream>,
    next: u64,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status; `None` after a signal or a timeout.
    pub status: Option<i64>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl WardPc {
    /// Powers on and waits until the PC answers.
    pub fn start(dir: &Path, hardware: &Hardware<'_>) -> Outcome<Self> {
        let images = images();
        let channel = dir.join("channel");
        let console = dir.join("console.log");
        let share = images.join("share");
        ensure!(share.exists(), "{} is missing; run scripts/build-images first", share.display());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let system = hardware.system.clone().unwrap_or_else(|| System::in_memory(&images));
        // With time counted in instructions, one processor: figures repeat.
        let processors = if hardware.count_instructions { 1 } else { PROCESSORS };
        let mut qemu = crate::qemu::command();
        let bits = hardware.address_bits.map(|bits| format!(",phys-bits={bits}"));
        let cpu = format!("max,+svm,+npt{}", bits.unwrap_or_default());
        qemu.args(["-M", "q35,accel=tcg,kernel-irqchip=split,i8042=off", "-cpu", &cpu])
            .args(["-device", "intel-iommu,intremap=on,caching-mode=on"])
            .args(["-smp", &processors.to_string(), "-m", &hardware.memory_mib.to_string()])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-vga", "std"])
            .args(["-serial", &format!("file:{}", text(&console))])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", text(&dir.join("qmp")))])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", text(&dir.join(watch::MONITOR)))])
            .args(["-kernel", &text(&system.kernel), "-initrd", &text(&system.initrd)])
            .args(["-append", &system.cmdline])
            .args(["-device", "qemu-xhci,id=xhci"])
            .args(["-chardev", &format!("socket,id=ch,path={},server=on,wait=off", text(&channel))])
            .args(["-device", "virtio-serial-pci,romfile="])
            .args(["-device", "virtserialport,chardev=ch,name=org.bulkhead.wardpc"])
            .args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share,romfile="])
            .args([
                "-fsdev",
                &format!("local,id=share,path={},security_model=none,readonly=on", text(&share)),
            ]);
        for (index, (slot, mac, network)) in hardware.nics.iter().enumerate() {
            let socket = text(&network.socket);
            qemu.args([
                "-netdev",
                &format!("stream,id=n{index},server=off,addr.type=unix,addr.path={socket}"),
            ]);
            qemu.args([
                "-device",
                &format!("e1000e,netdev=n{index},romfile=,mac={mac},addr={slot:x}"),
            ]);
        }
        if hardware.count_instructions {
            qemu.args(["-icount", "shift=1,sleep=off"]);
        }
        if hardware.system.is_some() {
            let disk = text(&system.disk);
            match &system.recording {
                Some(recording) => qemu.args(["-blockdev", &recording.drive(&system.disk)]),
                None => qemu.args(["-drive", &format!("file={disk},format=raw,if=none,id=disk")]),
            };
            qemu.args(["-device", "virtio-blk-pci,drive=disk,romfile="]);
        }
        qemu.args(&hardware.extra).stdin(Stdio::null());
        qemu.stdout(File::create(dir.join("qemu.log"))?)
            .stderr(File::create(dir.join("qemu.err"))?);
        die_with_parent(&mut qemu);
        let started = Instant::now();
        let child =
            qemu.spawn().map_err(|e| format!("could not start QEMU: {e}; run scripts/setup"))?;
        let mut pc = Pending { child: Some(child), dir, console: &console };
        let stream = pc.wait_for(|| UnixStream::connect(&channel).ok(), "its channel")?;
        stream.set_read_timeout(Some(BOOT))?;
        let child = pc.child.take().ok_or("QEMU is gone")?;
        let watched = stream.try_clone()?;
        let this = Self {
            qemu: child,
            channel: Mutex::new(Channel { stream: BufReader::new(stream), next: 0 }),
            dir: dir.to_owned(),
            started,
            // What QEMU cannot do it says only now.
            watch: Watch::start(dir, watched, hardware.count_instructions).map_err(
                |Failure(error)| {
                    Failure(format!("QEMU is gone: {error}\n{}", tails(dir, &console)))
                },
            )?,
        };
        let up =
            this.request(json!({"op": "exec", "argv": ["/bin/busybox", "uname", "-r"]}), BOOT)?;
        let idle = match hardware.system {
            Some(_) => patience::IDLE_BOOT_FROM_DISK,
            None => patience::IDLE_BOOT,
        };
        let slowness = patience::learn(started.elapsed(), idle);
        this.progress(&format!(
            "the simulated ward PC is up, Linux {}",
            up["stdout"].as_str().unwrap_or("").trim()
        ));
        if slowness > 1 {
            this.progress(&format!("this machine is busy: time-outs are {slowness} times as long"));
        }
        Ok(this)
    }

    /// Returns whether it and its guests still answer: a PC whose own kernel is gone does not, nor does a guest that runs in
    /// circles (see docs/design/decisions/0007-two-simulated-processors.md).
    pub fn answers(&self) -> bool {
        !self.watch.lost_one()
            && self.exec(&["/bin/busybox", "true"], Duration::from_secs(30)).is_ok()
    }

    /// Waits until it has switched itself off or restarts, which its QEMU takes for an end.
    pub fn wait_off(mut self, time: Duration) -> Outcome {
        let until = Instant::now() + patience(time);
        while self.qemu.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "the PC does not end\n{}", self.tails());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Says what happens, with the seconds since power-on.
    pub fn progress(&self, what: &str) {
        // Which of several PCs it is about, the thread's name says.
        let thread = std::thread::current();
        let pc = thread.name().filter(|name| name.starts_with("PC ")).unwrap_or_default();
        eprintln!("[{pc}{:6.1}s] {what}", self.started.elapsed().as_secs_f64());
    }

    fn request(&self, mut request: Value, time: Duration) -> Outcome<Value> {
        let time = patience(time);
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.next += 1;
        let id = channel.next;
        request["id"] = id.into();
        request["timeout_ms"] = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into();
        channel.stream.get_ref().set_read_timeout(Some(time + patience(MARGIN)))?;
        if let Err(error) = channel.stream.get_mut().write_all(format!("{request}\n").as_bytes()) {
            // Its QEMU has ended, or it was given up.
            return Err(Failure(format!("{NO_ANSWER} {request}: {error}\n{}", self.tails())));
        }
        let watched = self.watch.over(&request);
        loop {
            let mut line = String::new();
            let read = channel.stream.read_line(&mut line);
            if !matches!(read, Ok(n) if n > 0) {
                return Err(Failure(format!("{NO_ANSWER} {request}\n{}", self.tails())));
            }
            let reply: Value = serde_json::from_str(&line)?;
            // An answer to an earlier question that was given up on is passed over.
            if reply["id"] == id {
                return match reply["error"].as_str() {
                    Some(error) => {
                        watched.failed();
                        Err(Failure(error.to_owned()))
                    }
                    None => Ok(reply),
                };
            }
        }
    }

    /// Runs a program to its end.
    pub fn exec(&self, argv: &[&str], time: Duration) -> Outcome<Output> {
        let reply = self.request(json!({"op": "exec", "argv": argv}), time)?;
        ensure!(reply["timeout"] != true, "{argv:?} took longer than {time:?}: {reply}");
        let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
        let mut stderr = text("stderr");
        if let Some(signal) = reply["signal"].as_i64() {
            stderr += &format!("(killed by signal {signal})");
        }
        Ok(Output { status: reply["status"].as_i64(), stdout: text("stdout"), stderr })
    }

    /// Runs a shell line that has to succeed; returns what it printed.
    pub fn sh(&self, line: &str) -> Outcome<String> {
        let output = self.exec(&["/bin/busybox", "sh", "-c", line], Duration::from_secs(60))?;
        ensure!(output.status == Some(0), "`{line}` failed: {}{}", output.stdout, output.stderr);
        Ok(output.stdout)
    }

    /// Starts a program in the background, its output in a file of the PC's.
    pub fn spawn(&self, argv: &[&str], log: &str) -> Outcome<u64> {
        let request = json!({"op": "spawn", "argv": argv, "log": log});
        let reply = self.request(request, Duration::from_secs(10))?;
        Ok(reply["pid"].as_u64().ok_or("no pid")?)
    }

    /// Waits for a program started by [`WardPc::spawn`]: exit status, or minus the signal.
    /// `None`: it still runs.
    pub fn wait(&self, pid: u64, time: Duration) -> Outcome<Option<i64>> {
        let reply = self.request(json!({"op": "wait", "pid": pid}), time)?;
        let signal = reply["signal"].as_i64().map(|signal| -signal);
        Ok(reply["status"].as_i64().or(signal))
    }

    /// Sends a line to a Unix socket of the PC's and returns the line that comes back. Tries again
    /// until `time` is over, unless `once`.
    pub fn ask(&self, socket: &str, line: &Value, time: Duration, once: bool) -> Outcome<Value> {
        let request =
            json!({"op": "ask", "socket": socket, "line": line.to_string(), "once": once});
        let reply = self.request(request, time)?;
        let text = reply["line"].as_str().unwrap_or_default();
        Ok(serde_json::from_str(text).map_err(|e| format!("{socket} answered {text:?}: {e}"))?)
    }

    /// Makes a tap interface.
    pub fn make_tap(&self, name: &str) -> Outcome {
        self.request(json!({"op": "tap", "name": name}), Duration::from_secs(5)).map(drop)
    }

    /// Resets a USB device of the PC's, given its node, as the kernel does of its own accord: whoever has it.
    pub fn reset_usb(&self, node: &str) -> Outcome {
        self.request(json!({"op": "usb-reset", "node": node}), Duration::from_secs(20)).map(drop)
    }

    /// Makes the second screen larger or smaller, as a person does with a window (RFB 3.8, sections 7.1 to 7.3, and
    /// its extension for desktop sizes, message 251).
    pub fn resize_second_screen(&self, width: u16, height: u16) -> Outcome {
        let mut viewer = UnixStream::connect(self.dir.join(SECOND_SCREEN))?;
        viewer.set_read_timeout(Some(Duration::from_secs(10)))?;
        let take = |stream: &mut UnixStream, count: usize| -> Outcome<Vec<u8>> {
            let mut bytes = vec![0; count];
            std::io::Read::read_exact(stream, &mut bytes)?;
            Ok(bytes)
        };
        take(&mut viewer, 12)?;
        viewer.write_all(b"RFB 003.008\n")?;
        let kinds = take(&mut viewer, 1)?.first().copied().unwrap_or(0);
        take(&mut viewer, kinds.into())?;
        viewer.write_all(&[1])?; // no authentication
        take(&mut viewer, 4)?;
        viewer.write_all(&[1])?; // others may look too
        let init = take(&mut viewer, 24)?;
        let name = init.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        take(&mut viewer, name as usize)?;
        // Encodings: raw, and the one that says that sizes can be set (-308).
        let mut messages = vec![2, 0, 0, 2, 0, 0, 0, 0];
        messages.extend((-308i32).to_be_bytes());
        messages.extend([251, 0]);
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        messages.extend(&size);
        messages.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // one screen, at the top left
        messages.extend(&size);
        messages.extend([0; 4]);
        viewer.write_all(&messages)?;
        // QEMU goes through them after a moment, and forgets what was said when the viewer leaves before.
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    }

    /// Returns the end of a file of the PC's.
    pub fn tail(&self, path: &str) -> String {
        self.sh(&format!("/bin/busybox tail -c {TAIL} {path} 2>/dev/null || true"))
            .unwrap_or_else(|Failure(error)| error)
    }

    /// Hands a function to vfio-pci, as the agent would.
    pub fn bind_vfio(&self, address: &str) -> Outcome {
        let device = format!("/sys/bus/pci/devices/{address}");
        self.sh(&format!(
            "echo vfio-pci > {device}/driver_override; \
             if [ -e {device}/driver ]; then echo {address} > {device}/driver/unbind; fi; \
             echo {address} > /sys/bus/pci/drivers_probe; [ -e /sys/bus/pci/drivers/vfio-pci/{address} ]"
        ))
        .map(drop)
    }

    /// Takes a function back from vfio-pci.
    pub fn release_vfio(&self, address: &str) -> Outcome {
        let device = format!("/sys/bus/pci/devices/{address}");
        self.sh(&format!(
            "echo > {device}/driver_override; \
             if [ -e {device}/driver ]; then echo {address} > {device}/driver/unbind; fi; true"
        ))
        .map(drop)
    }

    /// Returns the connection for screen, keys and plugs.
    pub fn qmp(&self) -> Outcome<Qmp> {
        Qmp::connect(&self.dir.join("qmp"))
    }

    /// Makes a folder of its own on the test's side.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the ends of the PC's own logs.
    pub fn tails(&self) -> String {
        let logs = tails(&self.dir, &self.dir.join("console.log"));
        format!("{logs}\n--- where the processors are\n{}", self.processors())
    }

    /// Returns where each processor of the PC is, twice: whether it stands still or runs in circles.
    fn processors(&self) -> String {
        let look = || -> Outcome<String> {
            let command = json!({"command-line": "info registers -a"});
            let text = self.qmp()?.execute("human-monitor-command", command)?;
            let text = text.as_str().unwrap_or_default();
            let wanted = |line: &&str| ["CPU#", "RIP=", "HLT="].iter().any(|w| line.contains(w));
            Ok(text.lines().filter(wanted).collect::<Vec<_>>().join("\n"))
        };
        let first = look().unwrap_or_else(|Failure(error)| error);
        std::thread::sleep(Duration::from_millis(500));
        format!("{first}\n{}", look().unwrap_or_else(|Failure(error)| error))
    }
}

impl Drop for WardPc {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A PC that does not answer yet.
struct Pending<'a> {
    child: Option<Child>,
    dir: &'a Path,
    console: &'a Path,
}

impl Pending<'_> {
    fn wait_for<T>(&mut self, mut ready: impl FnMut() -> Option<T>, what: &str) -> Outcome<T> {
        let until = Instant::now() + BOOT;
        while Instant::now() < until {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                return Err(Failure(format!(
                    "QEMU ended: {status}\n{}",
                    tails(self.dir, self.console)
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure(format!("no sign of {what}\n{}", tails(self.dir, self.console))))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tails(dir: &Path, console: &Path) -> String {
    let tail = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned()
    };
    format!("--- console\n{}\n--- qemu\n{}", tail(console), tail(&dir.join("qemu.err")))
}

/// Ends QEMU with the test, however that ends.
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only one async-signal-safe system call is made.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}
