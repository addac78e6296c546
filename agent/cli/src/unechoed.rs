//! Asks on the terminal without showing what is typed, and leaves the terminal as it was however that ends.
//!
//! While it asks, the terminal shows nothing. A signal that ends the program would leave it so, and whoever sits there would type blindly
//! from then on. So the signals are held back meanwhile; a thread that waits for them puts the terminal right before it lets one through.
//! Ctrl-C is no signal then: `rpassword` reads it, and raises SIGINT for its own thread, where it is held back until the terminal is as it was.

use std::fs::File;
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// What ends a program that has no handler for it, and can be held back.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Asks a question; the answer is not shown.
///
/// # Errors
/// There is no terminal, or it is gone.
pub(super) fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    let _held = BlockedSignals::from_here()?;
    rpassword::prompt_password(question).map(Zeroizing::new)
}

/// The ending signals are held back from this thread until it is dropped.
struct BlockedSignals {
    before: SigSet,
}

impl BlockedSignals {
    fn from_here() -> io::Result<Self> {
        static WATCHED: AtomicBool = AtomicBool::new(false);
        let ending: SigSet = ENDING.into_iter().collect();
        let this = Self { before: ending.thread_swap_mask(SigmaskHow::SIG_BLOCK)? };
        if !WATCHED.swap(true, Ordering::Relaxed) {
            let terminal = File::options().read(true).write(true).open("/dev/tty")?;
            let settings = tcgetattr(&terminal)?;
            thread::Builder::new()
                .name("terminal".to_owned())
                .spawn(move || end_in_order(&ending, &terminal, &settings))?;
        }
        Ok(this)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // One that came meanwhile takes effect now.
        let _ = self.before.thread_set_mask();
    }
}

fn end_in_order(ending: &SigSet, terminal: &File, settings: &Termios) {
    let Ok(signal) = ending.wait() else { return };
    // A program in the background may put the terminal right, too.
    let _ = SigSet::from(Signal::SIGTTOU).thread_block();
    let _ = tcsetattr(terminal, SetArg::TCSANOW, settings);
    let _ = SigSet::from(signal).thread_unblock();
    let _ = raise(signal);
    // It is ignored here. Whoever goes on typing would be seen to.
    process::exit(128 + signal as i32);
}
