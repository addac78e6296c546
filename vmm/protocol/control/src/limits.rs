//! What a virtual machine has at most: one place for the VMM, which enforces it, and for the agent, whose machine file says it earlier.

use notation::Mistake;

/// Most vCPUs of one guest.
pub const CPUS_MAX: u8 = 16;
/// Most disks of one guest: virtio-blk devices on one bus, with room for the others.
pub const DISKS_MAX: usize = 16;
/// Longest virtio-blk identifier, in bytes (virtio 1.2 section 5.2.6).
pub const DISK_ID_MAX: usize = 20;
/// Most passed-through PCI functions of one guest: a NIC, and sixteen others.
pub const PASSTHROUGH_MAX: usize = 17;
/// Most named console ports of one guest: what a virtio console of ours has, less the first, which has no name.
pub const PORTS_MAX: usize = 31;
/// Longest name of a console port, in bytes: what Linux shows in sysfs on one line.
pub const PORT_NAME_MAX: usize = 64;
/// Most sockets for USB devices of one guest; each takes a USB 2 and a USB 3 port of the controller.
pub const USB_MAX: usize = 8;
/// Longest kernel command line, in bytes: x86's `COMMAND_LINE_SIZE` (2048) less its terminator.
pub const CMDLINE_MAX: usize = 2047;
/// Longest name of a network interface, in bytes: Linux's `IFNAMSIZ` less its terminator.
pub const INTERFACE_NAME_MAX: usize = 15;
/// Longest specification, in bytes of JSON.
pub const SPEC_MAX: usize = 256 << 10;

/// Returns whether a text can name a console port: letters, digits, dots, dashes and underscores, at most [`PORT_NAME_MAX`].
#[must_use]
pub fn is_port_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=PORT_NAME_MAX).contains(&text.len()) && text.bytes().all(legal)
}

/// Checks that a text can be a kernel's command line: at most [`CMDLINE_MAX`] bytes, and what a person sees of it is all of it.
///
/// # Errors
/// It is too long, or holds a control character.
pub fn check_cmdline(text: &str) -> Result<(), Mistake> {
    if text.len() > CMDLINE_MAX {
        return Err(Mistake::new(
            format!("the command line has {} bytes", text.len()),
            format!("Linux takes at most {CMDLINE_MAX}; shorten it"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Mistake::new(
            "the command line holds a control character",
            "write it on one line, with spaces between its words",
        ));
    }
    Ok(())
}

/// Returns whether a text can be a disk's identifier: 1 to [`DISK_ID_MAX`] ASCII characters.
#[must_use]
pub fn is_disk_id(text: &str) -> bool {
    (1..=DISK_ID_MAX).contains(&text.len()) && text.is_ascii()
}
