//! Whether anything can be copied and pasted, and USB devices used: the program that reads guests' clipboards, decodes pictures and serves devices, started here as the
//! agent starts it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clipboard::service::Program;
use clipboard::service::decoding::Worker;
use clipboard::service::reader::ReaderProcess;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Uid;
use policy::language::MediaType;
use worker_link::clipboard::Event;
use worker_link::{Job, Kind, USER, USER_FIRST, USER_NAME};
use workers::reserved_user;

use super::{Finding, SystemPaths, repair};
use base::accounts::Accounts;
use config::machine::Machine;

/// The program, which stands beside the agent.
pub(super) const PROGRAM: &str = "bulkhead-worker";
/// What it means for the ward that there is none.
const MEANS: &str =
    "nothing is copied or pasted between the desktops, and no USB device reaches a desktop";
/// The same where nothing is pasted, as there is one domain.
const MEANS_TO_ONE: &str = "no USB device reaches the desktop";
const REINSTALL: &str =
    "`apt install --reinstall ./bulkhead_*.deb`, and `systemctl restart bulkhead-agent`";
/// How long it may take to read one message, and to decode one pixel, in milliseconds.
const PATIENCE: u16 = 10_000;
/// A guest's agent that says what it can do, which is nothing.
const ANNOUNCEMENT: &[u8] =
    b"\x01\0\0\0\x1c\0\0\0\x01\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0";
/// Where more is said of it.
const SAYS: &str =
    "what it says itself stands above, and in the agent's log (`journalctl -u bulkhead-agent`)";
/// A grey pixel.
const PICTURE: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\x0aIDATx\x9cch\x00\x00\x00\x82\x00\x81w\xcdr\xb6\x00\x00\x00\x00IEND\xaeB`\x82";

/// Examines `program`, the file beside the agent, if there is one.
pub(super) fn examine(
    system: &SystemPaths,
    program: Option<&Path>,
    machine: Option<&Machine>,
) -> Vec<Finding> {
    let check = "worker";
    let one = machine.is_some_and(|machine| machine.domains.len() < 2);
    let means = if one { MEANS_TO_ONE } else { MEANS };
    let mut findings = match program {
        None => vec![Finding::fail(
            check,
            format!("there is no {PROGRAM} beside bulkhead-agent: {means}"),
            REINSTALL,
        )],
        Some(program) => {
            let loose = guarded(program);
            if Uid::effective().is_root() && program.exists() && !loose.is_empty() {
                // Whoever could have put another program there would have it run as root, outside the agent's unit.
                loose
            } else {
                let mut findings = vec![starts(system, program, means)];
                findings.extend(loose);
                findings
            }
        }
    };
    findings.push(landlock(system));
    findings.push(user(system));
    findings
}

/// Has it read a guest, and decode a picture.
fn starts(system: &SystemPaths, program: &Path, means: &str) -> Finding {
    let check = "worker";
    let at = program.display();
    match works(program) {
        Ok(()) if Uid::effective().is_root() => Finding::ok(
            check,
            format!("{at} closed its sandbox, read a message and decoded a picture"),
        ),
        Ok(()) => Finding::warn(
            check,
            format!(
                "{at} read a message and decoded a picture; its user and its namespaces were not looked at"
            ),
            "run this command as root",
        ),
        Err(why) => {
            let forbidden = system.proc_text("sys/vm/memfd_noexec").as_deref() == Some("2");
            let (why, remedy) = if forbidden {
                let why = "the kernel executes no file in memory (vm.memfd_noexec is 2), which it is started from";
                let remedy = "take vm.memfd_noexec = 2 out of /etc/sysctl.d and /etc/sysctl.conf (`grep -r memfd_noexec /etc/sysctl*`), and restart the PC";
                (why.to_owned(), remedy)
            } else if system.proc_text("sys/kernel/seccomp/actions_avail").is_none() {
                let why =
                    format!("{why}; the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)");
                (why, "restart the PC into the distribution's own kernel (linux-image-amd64)")
            } else {
                (why, REINSTALL)
            };
            Finding::fail(check, format!("{at}: {why}: {means}"), remedy)
        }
    }
}

fn works(program: &Path) -> Result<(), String> {
    let mut program = Program::read(program).map_err(|error| format!("cannot be read: {error}"))?;
    reads(&program)?;
    decodes(&mut program)
}

/// Has it read what a guest says, under the number that the last domain there may be has.
fn reads(program: &Program) -> Result<(), String> {
    let does_not_start = |error: io::Error| format!("does not start: {error}");
    let (mut guest, stream) = UnixStream::pair().map_err(does_not_start)?;
    let reader = ReaderProcess::start(program, USER_FIRST, stream.into());
    let reader = reader.map_err(does_not_start)?;
    // One that has ended by now has said nothing, which is found next.
    let _ = guest.write_all(ANNOUNCEMENT);
    let mut said = [PollFd::new(reader.fd(), PollFlags::POLLIN)];
    poll(&mut said, PollTimeout::from(PATIENCE))
        .map_err(|errno| format!("cannot be waited for: {errno}"))?;
    match reader.next() {
        Ok(Some(Event::Announce { request: false, capabilities: 0 })) => Ok(()),
        Ok(None) => Err("reads one message for ten seconds, and longer".to_owned()),
        Ok(Some(_)) | Err(_) => Err(format!("does not read a sound message; {SAYS}")),
    }
}

fn decodes(program: &mut Program) -> Result<(), String> {
    let job = Job { kind: Kind::Png, most: 4096 };
    let started = Worker::start(program, job, PICTURE);
    let mut worker = started.map_err(|error| format!("does not start: {error}"))?;
    let mut ended = [PollFd::new(worker.fd(), PollFlags::POLLIN)];
    poll(&mut ended, PollTimeout::from(PATIENCE))
        .map_err(|errno| format!("cannot be waited for: {errno}"))?;
    match worker.outcome(MediaType::ImagePng) {
        None => Err("decodes one pixel for ten seconds, and longer".to_owned()),
        Some(Err(_)) => Err(format!("does not decode a sound picture; {SAYS}")),
        Some(Ok(_)) => Ok(()),
    }
}

/// Returns a finding if somebody but root can put another program in its place.
fn guarded(program: &Path) -> Vec<Finding> {
    let check = "worker";
    let mut findings = Vec::new();
    for place in [Some(program), program.parent()].into_iter().flatten() {
        let loose = |meta: fs::Metadata| meta.uid() != 0 || meta.mode() & 0o022 != 0;
        match fs::metadata(place).map(loose) {
            Ok(false) => {}
            Ok(true) => findings.push(Finding::warn(
                check,
                format!("{0} is not root's alone to write: who can write it has the agent start a program of theirs, as root", place.display()),
                format!("`chown root {0} && chmod go-w {0}`, and {REINSTALL}", place.display()),
            )),
            Err(error) => findings.push(Finding::warn(
                check,
                format!("not looked at who may write {}: {error}", place.display()),
                "run this command as root",
            )),
        }
    }
    findings
}

/// Examines the layer that a worker goes without where the kernel lacks it.
fn landlock(system: &SystemPaths) -> Finding {
    let check = "landlock";
    match system.sys_text("kernel/security/lsm") {
        Some(modules) if modules.split(',').any(|module| module == "landlock") => Finding::ok(
            check,
            "the kernel has it: one more layer of the sandbox of VMMs and workers",
        ),
        Some(modules) => Finding::warn(
            check,
            format!(
                "the kernel runs without it ({modules}): the sandbox of VMMs and workers has one layer less"
            ),
            "put landlock first into lsm= on the kernel command line, or take lsm= out (GRUB_CMDLINE_LINUX in /etc/default/grub, `update-grub`), and restart",
        ),
        None => Finding::warn(
            check,
            "not looked at: the kernel's list of security modules cannot be read",
            "run this command as root, with securityfs mounted (`mount -t securityfs none /sys/kernel/security`)",
        ),
    }
}

/// Examines whose number a worker runs under.
fn user(system: &SystemPaths) -> Finding {
    let check = "worker-user";
    let accounts = Accounts::in_directory(&system.root.join("etc"));
    let look = || -> io::Result<Finding> {
        // Who has one of the others `vmm-users` says.
        let taken = reserved_user::taken_by(&accounts, &(USER..=USER))?;
        Ok(match (taken, reserved_user::is_reserved(&accounts)?) {
            (Some(taken), _) => Finding::warn(check, taken, reserved_user::REMEDY),
            (None, true) => Finding::ok(check, format!("{USER} is {USER_NAME}'s")),
            (None, false) => Finding::warn(
                check,
                format!(
                    "nobody has the number {USER} that workers run under, and anybody may be given it"
                ),
                "`systemd-sysusers bulkhead.conf`, which comes with the package",
            )
            .mended_by(repair::accounts(&system.root)),
        })
    };
    look().unwrap_or_else(|error| {
        Finding::warn(
            check,
            format!("not looked at: {error}"),
            "see that /etc/passwd and /etc/group can be read",
        )
    })
}
