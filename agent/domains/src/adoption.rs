//! What an earlier agent left of a domain, and whether its VMM is taken up.
//!
//! | there is | it is |
//! | --- | --- |
//! | a record, and its process runs: number, start, cgroup and program are those of the record | taken up, its guest runs on |
//! | the same, but the VMM had not answered yet | ended; its guest had hardly begun |
//! | the same, but what it runs cannot be seen: its first thread has ended, and others run on | ended |
//! | a record, and its process has ended | what became of it is in its log |
//! | no record that can be read, or one of something else; and a process in the domain's cgroup or behind its control socket | ended |
//! | neither | nothing; what is behind a control socket that takes no caller is left alone, and not forgotten |
//!
//! A process is signalled by a descriptor that was opened before it was looked at, so no other process can be meant. One that is neither
//! the record's nor in the domain's cgroup nor listens in the domain's directory, which is root's alone, is left as it is.

use std::io::ErrorKind;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use vmm_control::ENDED_IN_ORDER;

use super::capture::Capture;
use super::cgroup::Cgroups;
use super::lifecycle::Exit;
use super::process::{Identity, VmmProcess, start_time};
use super::record::VmmRecord;
use base::layout::Layout;
use base::sockets::connect;

/// What an earlier agent left of one domain's VMM.
#[derive(Debug)]
pub enum EarlierVmm {
    /// The domain has no VMM.
    Nothing,
    /// Its VMM runs on.
    Running(VmmProcess, Box<VmmRecord>),
    /// Its VMM runs, and is to be ended because of this. Its record, if there is one that can be read.
    ToEnd(VmmProcess, &'static str, Option<Box<VmmRecord>>),
    /// Something is behind its VMM's control socket, and nobody can say what: it takes no caller, and no cgroup names it.
    Unreachable,
    /// Its VMM ended while no agent ran.
    Ended(Exit, Box<VmmRecord>),
}

/// Why a VMM is ended that had not answered.
const UNANSWERED: &str = "it had not started its guest yet when the earlier agent ended";
/// Why a VMM is ended of which nothing certain is known.
const UNKNOWN: &str = "there is no record of it that fits";

/// Why a VMM is ended whose program cannot be seen.
const UNSEEN: &str = "its main thread has ended, and others run on";

/// Looks for the VMM of a domain.
#[must_use]
pub fn find(layout: &Layout, cgroups: Option<&Cgroups>, domain: &str) -> EarlierVmm {
    let record = VmmRecord::read(layout, domain).unwrap_or_else(|error| {
        let path = layout.vmm_record(domain);
        tracing::warn!(domain, "cannot read {}: {error}", path.display());
        None
    });
    let recorded = record.as_ref().and_then(|record| VmmProcess::find(record.identity));
    match (record, recorded) {
        (Some(record), Some(vmm)) if record.is_of(&vmm) => {
            // What was asked of it was asked of this process, if it is still there.
            if !vmm.is_alive() {
                return ended(layout, record);
            }
            match record.answered {
                true => EarlierVmm::Running(vmm, Box::new(record)),
                false => EarlierVmm::ToEnd(vmm, UNANSWERED, Some(Box::new(record))),
            }
        }
        (Some(record), Some(vmm)) if record.may_be_of(&vmm) => {
            EarlierVmm::ToEnd(vmm, UNSEEN, Some(Box::new(record)))
        }
        (record, _) => match (unrecorded(layout, cgroups, domain).into_iter().next(), record) {
            (Some(vmm), record) => EarlierVmm::ToEnd(vmm, UNKNOWN, record.map(Box::new)),
            (None, Some(record)) => ended(layout, record),
            (None, None) => match listener(&layout.vmm_socket(domain)) {
                Listener::Nobody => EarlierVmm::Nothing,
                Listener::Process(_) | Listener::Unknown => EarlierVmm::Unreachable,
            },
        },
    }
}

/// Returns the processes that are a domain's though no record says so: those in its cgroup, and whoever listens on its VMM's control socket.
#[must_use]
pub fn unrecorded(layout: &Layout, cgroups: Option<&Cgroups>, domain: &str) -> Vec<VmmProcess> {
    let socket = layout.vmm_socket(domain);
    let within = || cgroups.map(|groups| groups.processes(domain)).unwrap_or_default();
    let listens = |pid| listener(&socket) == Listener::Process(pid);
    let listening = match listener(&socket) {
        Listener::Process(pid) => Some(pid),
        Listener::Nobody | Listener::Unknown => None,
    };
    let others = within().into_iter().filter(|pid| Some(*pid) != listening);
    // Whoever listens first: it is the VMM, and what else is in its group goes with it.
    let found = listening.into_iter().chain(others).filter_map(|pid| {
        let start = start_time(pid)?;
        let found = VmmProcess::find(Identity { pid, start })?;
        // Between the look and the descriptor the number may have become another's, who then is neither.
        (within().contains(&pid) || listens(pid)).then_some(found)
    });
    found.collect()
}

/// The process that listens at a VMM's control socket.
#[derive(Debug, PartialEq, Eq)]
enum Listener {
    Nobody,
    Process(i32),
    /// There is a process, which accepts no connection.
    Unknown,
}

fn listener(path: &Path) -> Listener {
    let stream = match connect(path) {
        Ok(stream) => stream,
        Err(error) => {
            let nobody = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound);
            return if nobody { Listener::Nobody } else { Listener::Unknown };
        }
    };
    match getsockopt(&stream, sockopt::PeerCredentials) {
        Ok(peer) if peer.pid() > 0 => Listener::Process(peer.pid()),
        _ => Listener::Unknown,
    }
}

fn ended(layout: &Layout, record: VmmRecord) -> EarlierVmm {
    let log = layout.vmm_log(record.domain());
    let last = Capture::open(&log).ok().and_then(|log| log.last_words());
    EarlierVmm::Ended(by_last_words(last.as_deref()), Box::new(record))
}

/// Returns how a VMM ended that is nobody's child, by the last line of its log.
#[must_use]
pub fn by_last_words(last: Option<&str>) -> Exit {
    match last {
        Some(ENDED_IN_ORDER) => Exit::PoweredOff,
        Some(line) => Exit::Failed(format!("the VMM ended; the last it said: {line}")),
        None => Exit::Failed("the VMM ended, and its log does not say why".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LaunchRecord;
    use std::io::PipeWriter;
    use std::time::{Duration, Instant};

    /// Makes the VMM of a domain that has answered, by its record; it is whatever `script` is.
    fn recorded(script: &str) -> (VmmProcess, PipeWriter, Layout, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["clinical"]).unwrap();
        let (_, log) = Capture::create(&layout.vmm_log("clinical")).unwrap();
        let arguments = ["-c".into(), script.into()];
        let (vmm, input) = VmmProcess::start(Path::new("/bin/sh"), &arguments, log).unwrap();
        (vmm, input, layout, dir)
    }

    fn write_down(vmm: &VmmProcess, layout: &Layout) {
        let started = LaunchRecord {
            spec: String::new(),
            sandbox_id: None,
            functions: Vec::new(),
            image: None,
        };
        let mut record = VmmRecord::new("clinical", vmm, started);
        record.complete(vmm);
        record.write(layout).unwrap();
    }

    #[track_caller]
    fn wait_for(holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it has not come about in a minute"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_vmm_whose_main_thread_has_ended_while_others_run_on_is_ended_and_not_taken_for_gone() {
        let (mut vmm, input, layout, _dir) = recorded(
            r#"exec python3 -c '
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
import sys; sys.stdin.read()
ctypes.CDLL(None).syscall(60, 0)'"#,
        );
        let stat = format!("/proc/{}/stat", vmm.identity().pid);
        let shown = |what: &str| std::fs::read_to_string(&stat).unwrap().contains(what);
        wait_for(|| shown("(python3)"));
        write_down(&vmm, &layout);
        assert!(matches!(find(&layout, None, "clinical"), EarlierVmm::Running(..)));
        drop(input);
        wait_for(|| shown(") Z "));
        let EarlierVmm::ToEnd(found, UNSEEN, Some(_)) = find(&layout, None, "clinical") else {
            panic!("its guest runs on");
        };
        found.kill();
        wait_for(|| !found.is_alive());
        assert!(matches!(find(&layout, None, "clinical"), EarlierVmm::Ended(..)));
        while vmm.ended(|| unreachable!("it is a child")).is_none() {}
    }

    #[test]
    fn what_is_behind_a_socket_that_takes_no_caller_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["clinical"]).unwrap();
        let find = || find(&layout, None, "clinical");
        assert!(matches!(find(), EarlierVmm::Nothing));
        let socket = layout.vmm_socket("clinical");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut callers = Vec::new();
        while let Ok(caller) = connect(&socket) {
            callers.push(caller);
        }
        assert!(matches!(find(), EarlierVmm::Unreachable));
        drop(listener);
        // Another test's child has a copy of the listener from its fork to its exec.
        wait_for(|| matches!(find(), EarlierVmm::Nothing));
    }
}
