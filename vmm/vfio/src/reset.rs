//! Resetting a function, with a result that counts.
//!
//! A NIC that changes owner carries the last owner's state: queues that still point into memory,
//! firmware that still runs, a MAC address that still answers. So it is reset before a guest gets it
//! and after, and one that cannot be reset is not handed over.
//!
//! ```text
//!   function reset known? --yes--> VFIO_DEVICE_RESET ---------> ok, or refuse
//!          | no
//!   bus reset hits this guest's group only? --yes--> hot reset --> ok, or refuse
//!          | no
//!        refuse, and name the neighbours
//! ```

use std::io;
use std::time::Duration;

use hostpci::Address;

use crate::hardware::Hardware;

/// The kernel answers EAGAIN while something else holds the function's lock; that passes.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Why a function was not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The reset was tried and failed.
    #[error(
        "{address} did not reset, so it may still act for its last owner and is not handed over: switch the PC off and on again; if that does not help, use another card"
    )]
    Failed {
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no way to reset it.
    #[error(
        "{address} has no way to be reset, so it cannot change hands safely and is not handed over: use a card that supports function-level reset (FLR)"
    )]
    Impossible {
        address: Address,
        /// Why a bus reset is out of the question.
        #[source]
        source: io::Error,
    },
    /// Resetting it would reset others.
    #[error("{}", neighbours(*address, others))]
    Neighbours {
        address: Address,
        /// What would be reset with it.
        others: Vec<Address>,
    },
}

fn neighbours(address: Address, others: &[Address]) -> String {
    let list: Vec<_> = others.iter().map(Address::to_string).collect();
    format!(
        "{address} can only be reset together with {}, so it is not handed over: move the card to a slot of its own, or use one that supports function-level reset (FLR)",
        list.join(", ")
    )
}

/// Resets the function at `address`. Its interrupts are off already.
pub(crate) fn reset(hardware: &dyn Hardware, address: Address) -> Result<(), ResetError> {
    let failed = |source| ResetError::Failed { address, source };
    if hardware.has_function_reset() {
        return patiently(|| hardware.function_reset()).map_err(failed);
    }
    let scope =
        hardware.bus_reset_scope().map_err(|source| ResetError::Impossible { address, source })?;
    let others: Vec<_> = scope.into_iter().filter(|other| *other != address).collect();
    if !others.is_empty() {
        return Err(ResetError::Neighbours { address, others });
    }
    patiently(|| hardware.bus_reset()).map_err(failed)
}

fn patiently(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests;
