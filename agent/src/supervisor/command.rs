//! The command line of a domain's VMM, from the machine file and the policy.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use crate::layout::Layout;
use crate::machine::{Serial, VmHardware};

/// The user and group of the first domain's VMM; the n-th of the policy has this plus n. Nothing
/// else on the host may use these numbers.
pub const SANDBOX_ID_BASE: u32 = 64000;

/// What one start of a VMM is told besides its hardware.
#[derive(Debug)]
pub struct Start<'a> {
    /// The files to open, in the order of the machine file (a disk that forgets is a copy).
    pub disks: &'a [PathBuf],
    /// The user and group the VMM becomes, if it is started by root.
    pub sandbox_id: Option<u32>,
    /// Standard input is a link.
    pub seat: bool,
    /// How long its guest has to shut down when it is asked by signal; the agent itself waits as long.
    pub stop_deadline: Duration,
    /// How much it says.
    pub log_level: &'a str,
}

/// The arguments of `bulkhead-vmm`.
#[must_use]
pub fn arguments(
    name: &str,
    hardware: &VmHardware,
    layout: &Layout,
    start: &Start<'_>,
) -> Vec<OsString> {
    let Start { disks, sandbox_id, seat, stop_deadline, log_level } = *start;
    let mut args = Arguments(vec!["run".into()]);
    args.option("--kernel", &hardware.kernel);
    if let Some(initrd) = &hardware.initrd {
        args.option("--initrd", initrd);
    }
    // With `=`, so that a command line that begins with a dash is not read as an option.
    args.0.push(format!("--cmdline={}", hardware.cmdline).into());
    args.option("--memory", hardware.memory.to_string());
    args.option("--cpus", hardware.cpus.to_string());
    for (disk, path) in hardware.disks.iter().zip(disks) {
        args.option("--disk", joined("path=", path, if disk.readonly { ",readonly" } else { "" }));
    }
    for address in hardware.pci_functions() {
        args.option("--vfio", address.to_string());
    }
    args.option(
        "--serial",
        match &hardware.serial {
            // It is for diagnosis: a desktop runs without it where the state cannot be written.
            Serial::File(file) if access(&layout.log(), AccessFlags::W_OK).is_ok() => {
                joined("file=", &layout.log().join(file), "")
            }
            Serial::File(_) | Serial::Null => "null".into(),
        },
    );
    for port in &hardware.ports {
        let socket = layout.port_socket(name, port);
        args.option("--port", joined(&format!("name={port},socket="), &socket, ""));
    }
    for socket in layout.usb_sockets(name) {
        args.option("--usb", joined("socket=", &socket, ""));
    }
    args.option("--api-socket", layout.vmm_socket(name));
    if seat {
        args.0.push("--seat".into());
    }
    if let Some(id) = sandbox_id {
        args.option("--sandbox-uid", id.to_string());
        args.option("--sandbox-gid", id.to_string());
    }
    args.option("--stop-timeout", format!("{}s", stop_deadline.as_secs()));
    args.option("--log-level", log_level);
    args.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

fn joined(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text.push(after);
    text
}
