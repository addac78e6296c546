//! One thread at a time gives a function to somebody or takes it back: workers of two domains may both be at one that was one's and is the
//! other's now.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{HandoverError, PciAddress};

/// Which functions somebody is at.
#[derive(Default)]
pub(super) struct FunctionLocks {
    taken: Mutex<BTreeSet<PciAddress>>,
    given_up: Condvar,
}

/// A function is its holder's to change.
pub(super) struct FunctionLock<'a> {
    locks: &'a FunctionLocks,
    address: PciAddress,
}

impl FunctionLocks {
    /// Waits until nobody is at the function.
    ///
    /// # Errors
    /// Somebody still is after this time.
    pub(super) fn wait(
        &self,
        address: PciAddress,
        most: Duration,
    ) -> Result<FunctionLock<'_>, HandoverError> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = self
            .given_up
            .wait_timeout_while(taken, most, |taken| taken.contains(&address))
            .unwrap_or_else(PoisonError::into_inner);
        match taken.insert(address) {
            true => Ok(FunctionLock { locks: self, address }),
            false => Err(HandoverError::Busy { address }),
        }
    }
}

impl Drop for FunctionLock<'_> {
    fn drop(&mut self) {
        self.locks.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
        self.locks.given_up.notify_all();
    }
}
