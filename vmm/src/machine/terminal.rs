//! The terminal while the guest's serial port is on it.

use std::io::{self, IsTerminal};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use vmm_control::SerialSpec;

/// Raw mode as long as this lives.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts the terminal into a mode in which every key goes to the guest, and leaves output as it is. `None` where there is no terminal.
    pub(super) fn enter(serial: &SerialSpec) -> Option<Self> {
        if *serial != SerialSpec::Stdio || !io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags = before.output_flags;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
