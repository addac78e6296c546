//! Bulkhead's VMM and those it is compared with, each with the command line that does the same work.

/// Where `scripts/bench` has Debian's QEMU with its libraries, in the simulated PC.
pub const QEMU_ROOT: &str = "/qemu";

/// The kernel, in the two forms a VMM can boot.
pub const BZIMAGE: &str = "/tmp/measured/vmlinuz";
/// The same as a PVH ELF file.
pub const ELF: &str = "/tmp/measured/vmlinux";

/// RAM of a guest that is measured, in MiB.
pub const GUEST_MIB: u64 = 256;

/// A VMM as it is started for a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// bulkhead-vmm, with its sandbox.
    Bulkhead,
    /// `qemu-system-x86_64 -M q35`, its disk by a pool of threads (`aio=threads`)
    Q35,
    /// The same with `aio=io_uring`
    Q35Uring,
    /// `qemu-system-x86_64 -M microvm,rtc=on`
    Microvm,
}

impl Vmm {
    /// Returns what tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulkhead => "bulkhead-vmm",
            Self::Q35 => "QEMU q35",
            Self::Q35Uring => "QEMU q35, aio=io_uring",
            Self::Microvm => "QEMU microvm,rtc=on",
        }
    }

    /// Returns the command line, with one vCPU and [`GUEST_MIB`] of RAM. The serial port's log and the
    /// probe's socket are in the folder `run`. With a `disk` there is also the probe's console port
    /// and the entropy device, and bulkhead-vmm keeps no serial log, as on a ward PC; without one
    /// nothing but serial port and clock.
    pub fn command(
        self,
        [kernel, initrd, cmdline]: [&str; 3],
        run: &str,
        disk: Option<&str>,
    ) -> Vec<String> {
        let (memory, port) = (format!("{GUEST_MIB}M"), format!("{run}/probe.sock"));
        let mut argv: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
        match self {
            Self::Bulkhead => {
                add(&["/tmp/measured/bulkhead-vmm", "run", "--kernel", kernel, "--initrd", initrd]);
                add(&["--cmdline", cmdline, "--memory", &memory, "--cpus", "1"]);
                let log = format!("file={run}/serial.log");
                add(&["--serial", if disk.is_some() { "null" } else { &log }]);
                if let Some(disk) = disk {
                    add(&["--disk", &format!("path={disk}")]);
                    add(&["--port", &format!("name=org.bulkhead.probe,socket={port}")]);
                }
            }
            Self::Q35 | Self::Q35Uring | Self::Microvm => {
                let machine = if self == Self::Microvm { "microvm,rtc=on" } else { "q35" };
                add(&["/bin/busybox", "chroot", QEMU_ROOT, "/usr/bin/qemu-system-x86_64"]);
                add(&["-M", &format!("{machine},accel=kvm"), "-cpu", "host"]);
                add(&["-m", &memory, "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot"]);
                add(&["-display", "none", "-serial", &format!("file:{run}/serial.log")]);
                add(&["-kernel", kernel, "-initrd", initrd, "-append", cmdline]);
                if let Some(disk) = disk {
                    add(&["-object", "iothread,id=io"]);
                    let aio = if self == Self::Q35Uring { "io_uring" } else { "threads" };
                    add(&["-drive", &format!("if=none,id=d,format=raw,aio={aio},file={disk}")]);
                    add(&["-device", "virtio-blk-pci,drive=d,iothread=io"]);
                    add(&["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
                    add(&[
                        "-chardev",
                        &format!("socket,id=p,path={port},server=on,wait=off"),
                        "-device",
                        "virtserialport,chardev=p,name=org.bulkhead.probe",
                    ]);
                }
            }
        }
        argv
    }
}
