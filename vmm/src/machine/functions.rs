//! What the host says about passed-through functions while the guest runs: that one failed, and that it
//! wants one back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vfio::{Notices, VfioFunction};

/// Tokens of the two notices.
const ERROR: u32 = 0;
const RELEASE: u32 = 1;

/// The watch over one function, in the main loop.
pub(super) struct FunctionNotices {
    function: Arc<Mutex<VfioFunction>>,
    notices: Notices,
}

impl FunctionNotices {
    pub(super) fn new(function: Arc<Mutex<VfioFunction>>) -> io::Result<Self> {
        let notices = function.lock().unwrap_or_else(PoisonError::into_inner).notices()?;
        Ok(Self { function, notices })
    }
}

impl MutEventSubscriber for FunctionNotices {
    fn init(&mut self, ops: &mut EventOps) {
        for (fd, token) in [(&self.notices.error, ERROR), (&self.notices.release, RELEASE)] {
            if let Some(fd) = fd
                && let Err(error) = ops.add(Events::with_data(fd, token, EventSet::IN))
            {
                tracing::error!(%error, "what the host says about a passed-through function is not heard");
            }
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps) {
        let mut function = self.function.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel signals again for as long as it waits; each is answered once.
        match events.data() {
            ERROR => {
                let _ = self.notices.error.as_ref().map(vmm_sys_util::eventfd::EventFd::read);
                function.link_error();
            }
            _ => {
                let _ = self.notices.release.as_ref().map(vmm_sys_util::eventfd::EventFd::read);
                function.release();
            }
        }
    }
}
