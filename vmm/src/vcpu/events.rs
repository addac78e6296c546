//! What only the main loop can decide, from whoever it comes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::power::Request;

/// Something only the main loop can decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The VMM cannot go on; what to tell the person who runs it.
    Failed(String),
    /// The person who runs the VMM wants it to end.
    Stop,
    /// The guest wants to be off or to start anew; so does a triple fault.
    Guest(Request),
}

/// One slot a kind of asker, so that none hides another: a guest that resets itself in a loop does
/// not swallow what a person typed.
#[derive(Default)]
struct Pending {
    failed: Option<String>,
    stop: bool,
    /// The first request of the run that goes on now.
    guest: Option<Request>,
}

/// The events that the main loop has not taken yet, and what wakes it for them.
pub struct Events {
    pending: Mutex<Pending>,
    wake: EventFd,
}

impl Events {
    /// Makes the events. `wake` is signalled when there is something to [`Events::take`].
    pub fn new(wake: EventFd) -> Self {
        Self { pending: Mutex::new(Pending::default()), wake }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports an event. Of what a guest wants, the first counts until it is taken.
    pub fn raise(&self, event: Event) {
        let mut pending = self.lock();
        match event {
            Event::Failed(why) => {
                pending.failed.get_or_insert(why);
            }
            Event::Stop => pending.stop = true,
            Event::Guest(request) => {
                pending.guest.get_or_insert(request);
            }
        }
        drop(pending);
        // The counter cannot overflow: the main loop drains it.
        let _ = self.wake.write(1);
    }

    /// Reports that the VMM cannot go on.
    pub fn failed(&self, why: String) {
        self.raise(Event::Failed(why));
    }

    /// Takes the weightiest of what waits. The main loop calls it until there is nothing.
    pub fn take(&self) -> Option<Event> {
        let _ = self.wake.read();
        let mut pending = self.lock();
        if let Some(why) = pending.failed.take() {
            return Some(Event::Failed(why));
        }
        if std::mem::take(&mut pending.stop) {
            return Some(Event::Stop);
        }
        pending.guest.take().map(Event::Guest)
    }

    /// Ends the run that goes on now, with all vCPUs stopped, in the main loop: it is over, and
    /// with it whatever its guest still wanted. A second vCPU's power-off, asked for while the
    /// first one's reset was on its way, is not for the guest that starts next.
    pub fn end_run(&self) {
        self.lock().guest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Events {
        Events::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn what_a_guest_wanted_before_its_reset_does_not_reach_the_guest_that_starts_next() {
        for late in [Event::Guest(Request::PowerOff), Event::Guest(Request::Reset)] {
            let events = events();
            events.raise(Event::Guest(Request::Reset));
            assert_eq!(events.take(), Some(Event::Guest(Request::Reset)));
            events.raise(late);
            events.end_run();
            assert_eq!(events.take(), None);
        }
    }

    #[test]
    fn a_reset_swallows_neither_a_failure_nor_a_person_who_wants_the_end() {
        let events = events();
        events.raise(Event::Guest(Request::Reset));
        events.raise(Event::Stop);
        events.raise(Event::Failed("first".into()));
        events.raise(Event::Failed("second".into()));
        events.end_run();
        assert_eq!(events.take(), Some(Event::Failed("first".into())));
        assert_eq!(events.take(), Some(Event::Stop));
        assert_eq!(events.take(), None);
    }

    #[test]
    fn of_what_a_guest_wants_the_first_counts() {
        let events = events();
        events.raise(Event::Guest(Request::PowerOff));
        events.raise(Event::Guest(Request::Reset));
        assert_eq!(events.take(), Some(Event::Guest(Request::PowerOff)));
        assert_eq!(events.take(), None);
    }
}
