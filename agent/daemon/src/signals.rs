//! The signals by which the agent is told to end.

use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What comes so soon after the first signal is the same request: `timeout` signals a program and then its group, a terminal that is closed
/// its shell's jobs and then all of it. The guests would be ended unsaved by it.
const SAME_REQUEST: Duration = Duration::from_millis(250);

/// The signals the agent acts on, taken from the event loop. Threads made later inherit the block.
pub(super) struct Signals {
    pub(super) fd: SignalFd,
    /// When somebody first wanted the agent gone with its guests.
    stopped: Option<Moment>,
}

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShutdownRequest {
    /// The guests are shut down, and the agent ends; the second time, at once.
    Stop,
    /// The agent ends, and the guests run on.
    Leave,
}

impl Signals {
    pub(super) fn block() -> Result<Self, Errno> {
        // A terminal that is closed is no reason to leave guests behind: SIGHUP stops in order, too.
        let stop = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let others = [Signal::SIGUSR1, Signal::SIGCHLD];
        let mut set: SigSet = stop.into_iter().chain(others).collect();
        if cfg!(feature = "panics") {
            set.add(Signal::SIGUSR2);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, stopped: None })
    }

    /// Takes what came. A terminal that is closed wants the agent gone once.
    pub(super) fn take_request(&mut self) -> Option<ShutdownRequest> {
        let mut request = None;
        while let Ok(Some(info)) = self.fd.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or_default();
            let now = Moment::now();
            let stop = match (Signal::try_from(signal), self.stopped) {
                (Ok(Signal::SIGCHLD), _) => continue,
                (Ok(Signal::SIGUSR1), _) => {
                    request = request.or(Some(ShutdownRequest::Leave));
                    continue;
                }
                #[cfg(feature = "panics")]
                #[expect(clippy::panic, reason = "what the feature is for")]
                (Ok(Signal::SIGUSR2), _) => panic!("a fault of the agent's, by a test"),
                (_, None) => true,
                (Ok(Signal::SIGHUP), Some(_)) => false,
                (_, Some(first)) => now >= first + SAME_REQUEST,
            };
            if stop {
                self.stopped.get_or_insert(now);
                request = Some(ShutdownRequest::Stop);
            }
        }
        request
    }
}
