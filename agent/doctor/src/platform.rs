//! What somebody outside, or with the PC in hand, could get at: services that listen, the firmware's part in the start.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::{Finding, SystemPaths, text};

/// Where the kernel lists sockets, what they speak, and the state of one that waits for others (`enum` in `net/tcp_states.h`).
const TABLES: [(&str, &str, &str); 4] =
    [("tcp", "TCP", "0A"), ("tcp6", "TCP", "0A"), ("udp", "UDP", "07"), ("udp6", "UDP", "07")];
/// The variable of UEFI that says whether Secure Boot is on: four bytes of attributes, one of value (UEFI 2.10, 3.3).
const SECURE_BOOT: &str = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Services that are named.
const NAMED_MAX: usize = 8;
/// Open files of one process that are looked at for a socket.
const FILES_MAX: usize = 4096;

/// Examines whether anything on the host waits for connections from outside.
pub(super) fn listening(system: &SystemPaths) -> Finding {
    let check = "listening";
    let mut open = BTreeMap::new();
    for (table, protocol, state) in TABLES {
        // Without IPv6 in the kernel there is no table of it.
        let Some(lines) = system.proc_text(&format!("net/{table}")) else {
            if table == "tcp" {
                return Finding::warn(
                    check,
                    "not looked at: the kernel does not list its sockets (/proc/net/tcp)",
                    "mount /proc, and run this command as root",
                );
            }
            continue;
        };
        for (address, port, inode) in lines.lines().skip(1).filter_map(|line| socket(line, state)) {
            if !address.is_loopback() {
                open.insert((protocol, port), inode);
            }
        }
    }
    if open.is_empty() {
        return Finding::ok(check, "nothing on this PC waits for connections from outside");
    }
    let owners = owners(&system.proc);
    let mut named: Vec<String> = open
        .iter()
        .take(NAMED_MAX)
        .map(|((protocol, port), inode)| match owners.get(inode) {
            Some(program) => format!("{protocol} port {port} ({program})"),
            None => format!("{protocol} port {port}"),
        })
        .collect();
    if open.len() > NAMED_MAX {
        named.push(format!("{} more", open.len() - NAMED_MAX));
    }
    Finding::warn(
        check,
        format!(
            "programs of the host wait for connections on {}: whoever gets into one of them gets at every domain",
            named.join(", ")
        ),
        "`ss -ltnup` shows them with their programs; `systemctl disable --now NAME.service NAME.socket` ends one for good. What stays for a management network is to be as few as can be",
    )
}

/// Reads a line of a table: address, port and inode of a socket in this state.
fn socket(line: &str, state: &str) -> Option<(IpAddr, u16, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != state {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some((address_of(address)?, u16::from_str_radix(port, 16).ok()?, inode))
}

/// Reads an address as the kernel prints it: each 32 bits of it as a number in the processor's own order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let bytes: [u8; 16] =
                [word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?;
            let address = Ipv6Addr::from(bytes);
            Some(address.to_canonical())
        }
        _ => None,
    }
}

/// Returns the programs by the inodes of their sockets, as far as this user may see them.
fn owners(proc: &Path) -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let sockets = files.take(FILES_MAX).filter_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        });
        for inode in sockets {
            if let Some(name) = text(&process.path().join("comm")) {
                owners.insert(inode, name);
            }
        }
    }
    owners
}

/// Examines whether the firmware starts signed systems alone.
pub(super) fn secure_boot(system: &SystemPaths) -> Finding {
    let check = "secure-boot";
    if !system.sysfs.path("firmware/efi").exists() {
        return Finding::warn(
            check,
            "this PC was started by a BIOS, or by UEFI's imitation of one, which starts whatever system is on the disk or on a stick",
            "switch the firmware to UEFI with Secure Boot before you install Debian; in any case set its setup password, and have it start from the disk alone",
        );
    }
    match fs::read(system.sysfs.path(SECURE_BOOT)).ok().as_deref() {
        Some([_, _, _, _, 1]) => Finding::ok(check, "on: the firmware starts signed systems alone"),
        Some([_, _, _, _, _]) => Finding::warn(
            check,
            "Secure Boot is off: the firmware starts whatever system is on the disk or on a stick",
            "switch Secure Boot on in the firmware's setup (Debian's own kernels are signed for it), and set its setup password",
        ),
        _ => Finding::warn(
            check,
            "not looked at: the firmware does not say whether Secure Boot is on",
            "`mount -t efivarfs efivarfs /sys/firmware/efi/efivars`, and run this command as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use control::findings::Level;

    use super::*;
    use crate::fake::Pc;

    /// `/proc/net/tcp` of a PC with an SSH server, a database for itself alone, and a connection; taken from a PC.
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20871 1 0000000000000000 100 0 0 10 0\n   \
        1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 21000 1 0000000000000000 100 0 0 10 0\n   \
        2: 0500000A:0016 0600000A:D2F0 01 00000000:00000000 02:000A7D1C 00000000     0        0 22000 4 0000000000000000 20 4 30 10 -1\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23000 1 0000000000000000 100 0 0 10 0\n   \
        1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24000 1 0000000000000000 100 0 0 10 0\n";
    const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
        99: 000080FE00000000FF005450B6AF01FE:0222 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 25000 2 0000000000000000 0\n";

    #[test]
    fn what_listens_for_others_is_named_with_its_program_and_what_listens_for_itself_is_not() {
        let pc = Pc::new();
        let net = pc.system.proc.join("net");
        assert!(listening(&pc.system).message.starts_with("not looked at"));
        fs::write(net.join("tcp"), TCP.lines().next().unwrap()).unwrap();
        assert_eq!(listening(&pc.system).level, Level::Ok);
        fs::write(net.join("tcp6"), TCP6).unwrap();
        assert_eq!(listening(&pc.system).level, Level::Ok, "loopback");
        fs::write(net.join("tcp"), TCP).unwrap();
        fs::write(net.join("udp6"), UDP6).unwrap();
        let process = pc.system.proc.join("512");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "sshd\n").unwrap();
        symlink("socket:[20871]", process.join("fd/3")).unwrap();
        let found = listening(&pc.system);
        assert_eq!(found.level, Level::Warn);
        let names = "on TCP port 22 (sshd), UDP port 546: whoever";
        assert!(found.message.contains(names), "{}", found.message);
        assert!(found.remedy.unwrap().contains("systemctl disable --now"));
    }

    #[test]
    fn tables_of_any_form_are_read_without_an_end() {
        for line in [
            "",
            "0:",
            "0: zz:0016 x 0A",
            "0: 00000000:99999 x 0A a b c d 1",
            "0: :0016 x 0A 0 0 0 0 7",
        ] {
            assert_eq!(socket(line, "0A"), None, "{line}");
        }
    }

    #[test]
    fn secure_boot_is_on_only_where_the_firmware_says_so() {
        let pc = Pc::new();
        assert_eq!(secure_boot(&pc.system).level, Level::Warn);
        pc.sys("firmware/efi/fw_platform_size", "64\n");
        assert!(secure_boot(&pc.system).message.starts_with("not looked at"));
        pc.sys(SECURE_BOOT, [6, 0, 0, 0, 0]);
        assert!(secure_boot(&pc.system).message.contains("off"));
        pc.sys(SECURE_BOOT, [6, 0, 0, 0, 1]);
        assert_eq!(secure_boot(&pc.system).level, Level::Ok);
    }
}
