//! The QEMU that emulates the ward PC: the system's, or the newer one that `scripts/setup` has unpacked beside it.

use std::path::Path;
use std::process::Command;

/// Starts a command line of it.
pub fn command() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let unpacked = root.join("target/qemu/usr");
    let program = unpacked.join("bin/qemu-system-x86_64");
    if !program.exists() {
        return Command::new("qemu-system-x86_64");
    }
    // It is of a newer Debian than this one may be: its own loader and libraries come with it.
    let libraries = unpacked.join("lib/x86_64-linux-gnu");
    let mut command = Command::new(unpacked.join("lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(program);
    // Without these it takes the system's modules and firmware, of another version.
    command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
    for firmware in ["share/qemu", "share/seabios"] {
        command.arg("-L").arg(unpacked.join(firmware));
    }
    command
}
