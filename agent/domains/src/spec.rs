//! What a domain's VMM is told to run, from the machine file and the policy.

use std::io::{self, PipeWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{AccessFlags, access};
use vmm_control::{DiskSpec, PortSpec, SandboxSpec, SerialSpec, SpecError, VmSpec};

use crate::boot::BootFiles;
use base::layout::Layout;
use config::machine::{Serial, VmHardware};

/// The user and group of the first domain's VMM; the n-th of the policy has this plus n. Nothing
/// else on the host may use these numbers.
pub const SANDBOX_ID_BASE: u32 = 64000;

/// How many numbers from there on VMMs may have: as many as a PC has domains, and as many again of domains that it does not have any more and whose VMMs are
/// still being ended.
pub const SANDBOX_IDS: u32 = 32;

/// What one start of a VMM is told besides its hardware.
#[derive(Debug)]
pub struct Start<'a> {
    /// What its guest starts from.
    pub boot: &'a BootFiles,
    /// The files to open, in the order of the machine file (a disk that forgets is a copy).
    pub disks: &'a [PathBuf],
    /// The user and group the VMM becomes, if it is started by root.
    pub sandbox_id: Option<u32>,
    /// Whether its guest has screen, keyboard and pointer.
    pub seat: bool,
    /// How long its guest has to shut down when it is asked by signal; the agent itself waits as long.
    pub stop_deadline: Duration,
}

/// Returns the virtual machine of the domain `name`.
#[must_use]
pub fn of(name: &str, hardware: &VmHardware, layout: &Layout, start: &Start<'_>) -> VmSpec {
    let disk = |(disk, path): (&config::machine::Disk, &PathBuf)| DiskSpec {
        path: path.clone(),
        readonly: disk.readonly,
        id: None,
    };
    let brought = start.boot.disks.iter();
    let brought = brought.map(|path| DiskSpec { path: path.clone(), readonly: true, id: None });
    let port =
        |port: &String| PortSpec { name: port.clone(), socket: layout.port_socket(name, port) };
    VmSpec {
        kernel: start.boot.kernel.clone(),
        initrd: start.boot.initrd.clone(),
        cmdline: start.boot.cmdline.clone(),
        memory: hardware.memory,
        hugepages: false,
        cpus: hardware.cpus,
        disks: brought.chain(hardware.disks.iter().zip(start.disks).map(disk)).collect(),
        nets: Vec::new(),
        vfio: hardware.pci_functions().collect(),
        serial: match &hardware.serial {
            // It is for diagnosis: a desktop runs without it where the state cannot be written.
            Serial::File(file) if access(&layout.log(), AccessFlags::W_OK).is_ok() => {
                SerialSpec::File(layout.log().join(file))
            }
            Serial::File(_) | Serial::Null => SerialSpec::Null,
        },
        ports: hardware.ports.iter().map(port).collect(),
        usb: layout.usb_sockets(name).collect(),
        control_socket: Some(layout.vmm_socket(name)),
        seat_socket: start.seat.then(|| layout.seat_socket(name)),
        stop_timeout: start.stop_deadline,
        exit_on_reset: false,
        sandbox: SandboxSpec { enabled: true, ids: start.sandbox_id.map(|id| (id, id)) },
    }
}

/// Bytes that every pipe holds (pipe(7)).
const PIPE: usize = 64 << 10;

/// Returns a specification as a VMM reads it, checked.
///
/// # Errors
/// It is none, a path in it is not UTF-8, or it is too long.
pub fn text(spec: &VmSpec) -> Result<Vec<u8>, SpecError> {
    spec.check()?;
    spec.to_json()
}

/// Writes a specification to the VMM that waits for it, without waiting: the pipe is made to hold all of it.
///
/// # Errors
/// The pipe cannot hold it, or the VMM is gone.
pub fn hand(text: &[u8], mut to: PipeWriter) -> io::Result<()> {
    if text.len() > PIPE {
        let size = i32::try_from(text.len()).map_err(io::Error::other)?;
        fcntl(&to, FcntlArg::F_SETPIPE_SZ(size))?;
    }
    to.write_all(text)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use config::machine::{Kind, Machine};

    use super::*;

    #[test]
    fn the_longest_specification_waits_for_nobody() {
        let (mut vmm, agent) = io::pipe().unwrap();
        let text = vec![b'x'; vmm_control::limits::SPEC_MAX];
        hand(&text, agent).unwrap();
        let mut read = Vec::new();
        vmm.read_to_end(&mut read).unwrap();
        assert_eq!(read, text);
        // Another test's child may have a copy of the VMM's end, from its fork to its exec: each try has a pipe of its own.
        let broken = (0..100).find_map(|_| {
            let (vmm, agent) = io::pipe().unwrap();
            drop(vmm);
            hand(b"{}", agent).err()
        });
        assert_eq!(broken.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_fullest_machine_file_is_one_that_a_vmm_runs() {
        let list = |make: &dyn Fn(usize) -> String| {
            (0..16).map(make).map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "format = 1\n[domain.clinical]\nkernel = \"/k\"\nnic = \"0000:01:00.0\"\nports = [{}]\npassthrough = [{}]\n[domain.internet]\nvmm = \"external\"\n",
            list(&|n| format!("port-{n}")),
            list(&|n| format!("0000:02:{n:02x}.0")),
        );
        let context = config::machine::Context { images: Path::new("/i"), domain_policies: None };
        let machine = Machine::parse("machine.toml", &text, context)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let Kind::Vm(vm) = &machine.domain("clinical").unwrap().kind else { panic!() };
        let layout = Layout { images: "/i".into(), state: "/s".into(), runtime: "/r".into() };
        let boot = BootFiles::expected("clinical", vm, &layout).unwrap();
        let start = Start {
            boot: &boot,
            disks: &[],
            sandbox_id: Some(64000),
            seat: true,
            stop_deadline: config::machine::STOP_DEADLINE_DEFAULT,
        };
        let spec = of("clinical", vm, &layout, &start);
        let ports = 16 + base::layout::MEDIATORS_PORTS.len();
        assert_eq!((spec.ports.len(), spec.vfio.len()), (ports, 17));
        spec.check().unwrap();
    }
}
