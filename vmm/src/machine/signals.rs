//! Signals, as events of the main loop.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::control::MachineControl;

/// What comes so soon after the first SIGTERM is the same wish: `timeout` signals a program and then its group.
const SAME_WISH: Duration = Duration::from_millis(250);

fn handled() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

/// Blocks the signals this VMM reads as events; threads started later inherit it.
pub(super) fn block() -> io::Result<()> {
    let mut set = handled();
    // A client that hangs up is an error of one write, not the end of the VMM.
    set.add(Signal::SIGPIPE);
    // So is a file that may not become longer (`sandbox::enter`).
    set.add(Signal::SIGXFSZ);
    set.thread_block().map_err(io::Error::from)
}

/// SIGTERM presses the power button and gives the guest so long to shut down; a second one ends the VMM, as SIGINT and
/// SIGHUP do at once.
pub(super) struct Signals {
    fd: SignalFd,
    control: Arc<MachineControl>,
    patience: Duration,
    /// When SIGTERM first came.
    asked: Option<Instant>,
}

impl Signals {
    pub(super) fn new(control: Arc<MachineControl>, patience: Duration) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { fd: SignalFd::with_flags(&handled(), flags)?, control, patience, asked: None })
    }
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new_raw(self.fd.as_raw_fd(), EventSet::IN)) {
            tracing::error!(%error, "signals are not received");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let terminate = i32::try_from(info.ssi_signo) == Ok(libc::SIGTERM);
            if terminate && self.asked.is_some_and(|first| first.elapsed() < SAME_WISH) {
                continue;
            }
            if terminate && self.asked.is_none() {
                self.asked = Some(Instant::now());
                tracing::info!(
                    "pressing the guest's power button; it has {} s to shut down, signal again to stop it at once",
                    self.patience.as_secs()
                );
                self.control.give_up_after(self.patience);
                if let Err(error) = self.control.press_power_button() {
                    tracing::warn!(error);
                    self.control.stop();
                }
            } else {
                self.control.stop();
            }
        }
    }
}
