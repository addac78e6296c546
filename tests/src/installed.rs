//! A ward PC with a stock Debian on its disk, on which Bulkhead is installed from its package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::patience::patience;
use crate::power_cut::Recording;
use crate::ward::{CLINICAL_MAC, INTERNET_MAC};
use crate::wardpc::{Hardware, Output, System, images};
use crate::{Network, Outcome, WardPc, ensure};

/// What the boot loader of the stock system gives its kernel before anybody sets it up: the kernel does not use the IOMMU, as on older ones.
const CMDLINE: &str = "root=/dev/vda rw quiet intel_iommu=off";
/// What the simulator needs of any kernel (see `System`).
const SIMULATED: &str = "console=ttyS0 panic=-1 no_timer_check";
/// Bytes of a second disk.
const SECOND_DISK: u64 = 1 << 30;
/// Longest that a shell line takes: dpkg in an emulated PC is slow.
const LINE: Duration = Duration::from_secs(240);
/// Longest from the order to restart until the PC has.
const OFF: Duration = Duration::from_secs(180);

/// Longest from the PC's start to what its domains show.
pub const UP: Duration = Duration::from_secs(240);
/// What IT answers once for all PCs of this model.
pub const ANSWERS: &str = r#"format = 1
enable = true

[seat]
backend = "kms"
card = "/dev/dri/by-path/pci-0000:00:01.0-card"

[domain.clinical]
nic = "0000:00:05.0"
memory = "384M"
cpus = 1

[domain.internet]
nic = "0000:00:06.0"
memory = "384M"
cpus = 1

[roles]
user = ["nurse"]
"#;

/// The guests' images, where IT lays them.
pub const IMAGES: &str = "mkdir -p /var/lib/bulkhead/images/clinical /var/lib/bulkhead/images/internet; cd /var/lib/bulkhead/images; \
    cp /share/vmlinuz clinical/; cp /share/small/desktop.cpio clinical/initrd; \
    echo 'console=ttyS0 quiet desktop.label=CLINICAL desktop.colour=#0f4722' > clinical/cmdline; \
    cp /share/vmlinuz internet/; cp /share/probe.cpio internet/initrd; echo 'console=ttyS0 quiet' > internet/cmdline";

/// The PC's disk and what its NICs are plugged into; they stay while the PC is switched off.
pub struct Installed {
    /// The hospital's network, its server at 10.1.0.1.
    pub clinical: Network,
    /// The outside, its server at 10.2.0.1.
    pub internet: Network,
    system: System,
    /// Whether it has a TPM; it keeps what it was told while it is away.
    pub has_tpm: bool,
    second_disk: Option<PathBuf>,
    dir: TempDir,
}

impl Installed {
    /// Returns whether there can be such a PC here, and says so if not: a disk with Debian is made by root alone.
    pub fn can_be_made() -> bool {
        let is_root = nix::unistd::geteuid().is_root();
        if !is_root {
            println!("not run: a disk with Debian is made by root alone");
        }
        is_root
    }

    /// Makes a PC whose disk is as `scripts/packaging/stock-system SUITE pc` made it.
    pub fn stock(suite: &str) -> Outcome<Self> {
        Self::of(suite, "pc")
    }

    /// Makes the same with ansible-core on the disk: the PC is in no network by which Ansible could come from outside.
    pub fn with_ansible(suite: &str) -> Outcome<Self> {
        Self::of(suite, "pc-ansible")
    }

    /// Makes the same with a TPM 2.0 and an empty second disk, /dev/disk/by-id/virtio-state, and what the package recommends for an encrypted volume.
    pub fn with_second_disk(suite: &str) -> Outcome<Self> {
        let mut installed = Self::of(suite, "pc-volume")?;
        let disk = installed.dir.path().join("second-disk");
        std::fs::File::create(&disk)?.set_len(SECOND_DISK)?;
        installed.second_disk = Some(disk);
        installed.has_tpm = true;
        Ok(installed)
    }

    fn of(suite: &str, kind: &str) -> Outcome<Self> {
        let made = target().join("install-test").join(format!("{suite}.{kind}"));
        ensure!(
            made.join("disk").exists(),
            "there is no disk with Debian in {}: run scripts/packaging/stock-system {suite} {kind} as root, and scripts/test e2e or install for the packages",
            made.display()
        );
        let dir = tempfile::tempdir_in(target())?;
        let disk = dir.path().join("disk");
        let copied = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([made.join("disk"), disk.clone()])
            .status()?;
        ensure!(copied.success(), "the disk cannot be copied: {copied}");
        Ok(Self {
            clinical: Network::start(dir.path(), "clinical", [10, 1, 0, 1])?,
            internet: Network::start(dir.path(), "internet", [10, 2, 0, 1])?,
            system: System {
                kernel: made.join("vmlinuz"),
                initrd: made.join("initrd"),
                disk,
                cmdline: format!("{CMDLINE} {SIMULATED}"),
                recording: None,
            },
            has_tpm: false,
            second_disk: None,
            dir,
        })
    }

    /// Switches it on and waits until it answers.
    pub fn start(&self) -> Outcome<WardPc> {
        let mut extra = crate::seat::hardware(self.dir.path());
        if let Some(disk) = &self.second_disk {
            extra.extend([
                "-drive".to_owned(),
                format!("file={},format=raw,if=none,id=second", disk.display()),
            ]);
            extra.extend([
                "-device".to_owned(),
                "virtio-blk-pci,drive=second,serial=state,romfile=".to_owned(),
            ]);
        }
        if self.has_tpm {
            extra.extend(tpm(self.dir.path())?);
        }
        let hardware = Hardware {
            memory_mib: 4096,
            nics: vec![(5, CLINICAL_MAC, &self.clinical), (6, INTERNET_MAC, &self.internet)],
            extra,
            system: Some(self.system.clone()),
            ..Hardware::default()
        };
        WardPc::start(self.dir.path(), &hardware)
    }

    /// Switches a stock PC on for the first time and waits until all of it is up: its boot loader has its configuration then, and the ward's account, `nurse`, is there.
    pub fn start_stock(&self) -> Outcome<WardPc> {
        let pc = self.start()?;
        becomes(&pc, "the stock system is up", "systemctl is-active multi-user.target", UP)?;
        run(
            &pc,
            "update-grub 2>/dev/null && useradd --create-home nurse && case $(systemctl is-system-running --wait) in running | degraded) ;; *) false ;; esac",
        )?;
        Ok(pc)
    }

    /// Switches a stock PC on and makes a ward PC of it by package and answer file, which its next start is.
    pub fn set_up(&self) -> Outcome<WardPc> {
        let pc = self.start_stock()?;
        run(&pc, "apt-get -qq -o Dpkg::Use-Pty=0 install /share/packages/bulkhead_*.deb")?;
        run(&pc, IMAGES)?;
        run(&pc, &format!("cat > /home/answers.toml <<'END'\n{ANSWERS}END"))?;
        run(&pc, "bulkhead setup --answers /home/answers.toml --yes")?;
        Ok(pc)
    }

    /// Restarts it, with the command line that its boot loader's configuration has for its kernel now.
    pub fn restart(&mut self, pc: WardPc) -> Outcome<WardPc> {
        self.shut_down(pc)?;
        self.start()
    }

    /// Restarts it; what is written to its disk from then on is logged.
    pub fn restart_recorded(&mut self, pc: WardPc) -> Outcome<(WardPc, Recording)> {
        self.shut_down(pc)?;
        let recording = Recording::begin(&self.system.disk, self.dir.path())?;
        self.system.recording = Some(recording.clone());
        Ok((self.start()?, recording))
    }

    /// Switches it on with its disk as it was when the power was cut behind a request (see [`Recording::cut`]).
    pub fn start_after_cut(&mut self, recording: &Recording, behind: usize) -> Outcome<WardPc> {
        recording.cut(behind, u64::try_from(behind)?, &self.system.disk)?;
        self.system.recording = None;
        self.start()
    }

    /// Ends it; it is to start with the command line that its boot loader's configuration has for its kernel now.
    pub fn shut_down(&mut self, pc: WardPc) -> Outcome {
        let menu = run(
            &pc,
            "sed -n 's/^[[:space:]]*linux[[:space:]]*[^ ]* //p' /boot/grub/grub.cfg 2>/dev/null | head -n 1; sync",
        )?;
        let words = if menu.trim().is_empty() { CMDLINE } else { menu.trim() };
        // GRUB names the disk by what is on it, which the initramfs finds as well.
        self.system.cmdline = format!("{words} {SIMULATED}");
        pc.progress(&format!("it restarts with: {words}"));
        // Later, so that it can still say that it was told to.
        run(&pc, "(sleep 1; systemctl reboot) >/dev/null 2>&1 &")?;
        pc.wait_off(OFF)
    }
}

/// Starts a TPM, which ends with the PC that it is in; returns the PC's arguments for it.
fn tpm(dir: &Path) -> Outcome<Vec<String>> {
    let (state, socket) = (dir.join("tpm"), dir.join("tpm.socket"));
    std::fs::create_dir_all(&state)?;
    let _ = std::fs::remove_file(&socket);
    let started = Command::new("swtpm")
        .args(["socket", "--tpm2", "--terminate", "--daemon"])
        .args(["--tpmstate", &format!("dir={}", state.display())])
        .args(["--ctrl", &format!("type=unixio,path={}", socket.display())])
        .status()
        .map_err(|e| format!("cannot start swtpm: {e}; run scripts/setup"))?;
    ensure!(started.success(), "swtpm: {started}");
    let socket = format!("socket,id=tpm,path={}", socket.display());
    let words = [
        "-chardev",
        &socket,
        "-tpmdev",
        "emulator,id=tpm0,chardev=tpm",
        "-device",
        "tpm-crb,tpmdev=tpm0",
    ];
    Ok(words.map(str::to_owned).to_vec())
}

fn target() -> PathBuf {
    images().parent().unwrap_or(Path::new("target")).to_owned()
}

/// Runs a shell line as root.
pub fn shell(pc: &WardPc, line: &str) -> Outcome<Output> {
    pc.exec(&["/bin/sh", "-c", line], LINE)
}

/// Runs a shell line as root that has to succeed; returns what it wrote.
pub fn run(pc: &WardPc, line: &str) -> Outcome<String> {
    let output = shell(pc, line)?;
    ensure!(output.status == Some(0), "`{line}`: {output:?}");
    Ok(output.stdout)
}

/// Waits until a shell line succeeds.
pub fn becomes(pc: &WardPc, what: &str, line: &str, time: Duration) -> Outcome {
    let start = Instant::now();
    loop {
        let output = shell(pc, line)?;
        if output.status == Some(0) {
            return Ok(());
        }
        ensure!(start.elapsed() < patience(time), "{what}: not so: {output:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
