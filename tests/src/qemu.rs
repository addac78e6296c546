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
    let mut command = Command::new(program);
    // Without these it takes the system's modules and firmware, of another version.
    command
        .env("QEMU_MODULE_DIR", unpacked.join("lib/x86_64-linux-gnu/qemu"))
        .arg("-L")
        .arg(unpacked.join("share/qemu"))
        .args(["-L", "/usr/share/seabios"]);
    command
}
