//! The gate between the main loop and the vCPU threads: who may run, and who starts anew first.
//!
//! ```text
//!             open(Some(entry))           every vCPU is set up          close, park
//!  AtTheGate ------------------> Starting ---------------------> Running ----------+
//!      ^  |                                                         ^              |
//!      |  +------------------------- open(None) --------------------+              |
//!      +---------------------------------------------------------------------------+
//! ```
//! Nothing here is an edge that a thread has to be awake for. What a vCPU has to do is kept in its
//! place until the vCPU itself says that it is done, so a thread that is late (it was just created,
//! or the host is busy) finds it whenever it comes. And no vCPU enters the guest before all of them
//! are set up: the boot vCPU's start-up message to another would be overwritten by the other's
//! still restoring its registers.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::primitives::atomic::{AtomicBool, Ordering};
use super::primitives::{Condvar, Mutex, MutexGuard};
use crate::boot::Entry;

/// What a vCPU's thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Put the vCPU into its reset state, at this entry.
    Start(Entry),
    /// Enter the guest for as long as [`Member::may_run`].
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberState {
    /// At the gate, or on the way there for the first time.
    AtTheGate,
    /// At the gate by its own decision: it does not run before the next opening.
    Parked,
    Starting,
    Running,
    Gone,
}

#[derive(Debug)]
struct Slot {
    place: MemberState,
    /// The start this vCPU has not carried out yet.
    start: Option<Entry>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    open: bool,
    ended: bool,
}

impl Inner {
    /// Returns whether every vCPU that is left is set up.
    fn all_set_up(&self) -> bool {
        self.slots.iter().all(|slot| slot.place == MemberState::Gone || slot.start.is_none())
    }

    fn anyone_busy(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot.place, MemberState::Starting | MemberState::Running))
    }
}

/// The main loop's side.
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether the guest may be entered: open, and every vCPU set up. Looked at after each exit.
    may_run: AtomicBool,
}

/// One vCPU thread's side. Dropping it says that the thread ends.
pub struct Member {
    gate: Arc<Gate>,
    index: usize,
}

impl Gate {
    /// Makes a closed gate with one member for each of `vcpus` threads.
    pub fn new(vcpus: usize) -> (Arc<Self>, Vec<Member>) {
        let slot = || Slot { place: MemberState::AtTheGate, start: None };
        let slots = std::iter::repeat_with(slot).take(vcpus).collect();
        let gate = Arc::new(Self {
            inner: Mutex::new(Inner { slots, open: false, ended: false }),
            changed: Condvar::new(),
            may_run: AtomicBool::new(false),
        });
        let member = |index| Member { gate: Arc::clone(&gate), index };
        let members = (0..vcpus).map(member).collect();
        (gate, members)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes [`Gate::may_run`] what `inner` says and wakes whoever waits for a change.
    fn publish(&self, inner: &Inner) {
        let may_run = inner.open && !inner.ended && inner.all_set_up();
        self.may_run.store(may_run, Ordering::Release);
        self.changed.notify_all();
    }

    /// Lets all vCPUs run, from `start` if there is one, once all of them are set up.
    pub fn open(&self, start: Option<Entry>) {
        let mut inner = self.lock();
        inner.open = true;
        for slot in &mut inner.slots {
            slot.start = start.or(slot.start);
            if slot.place == MemberState::Parked {
                slot.place = MemberState::AtTheGate;
            }
        }
        self.publish(&inner);
    }

    /// Returns whether the guest runs: open, and every vCPU was set up.
    pub fn is_running(&self) -> bool {
        self.may_run.load(Ordering::Acquire)
    }

    /// Closes the gate and waits until no vCPU is in the guest or being set up. `kick` is called
    /// again and again until then: a thread may look at [`Member::may_run`] just before the gate
    /// closes and enter the guest just after a kick.
    pub fn close(&self, kick: impl Fn()) {
        let mut inner = self.lock();
        inner.open = false;
        self.publish(&inner);
        while inner.anyone_busy() {
            drop(inner);
            kick();
            inner = self.lock();
            if inner.anyone_busy() {
                let (next, _) = self
                    .changed
                    .wait_timeout(inner, KICK_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner);
                inner = next;
            }
        }
    }

    /// Lets no member have another job.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        self.publish(&inner);
    }
}

const KICK_INTERVAL: Duration = Duration::from_millis(1);

impl Member {
    /// Says that the last job is done and waits for the next; `None` when the machine ends.
    pub fn next_job(&mut self) -> Option<Job> {
        let mut inner = self.gate.lock();
        let slot = inner.slots.get_mut(self.index)?;
        match slot.place {
            MemberState::Starting => (slot.place, slot.start) = (MemberState::AtTheGate, None),
            MemberState::Running => slot.place = MemberState::AtTheGate,
            MemberState::AtTheGate | MemberState::Parked | MemberState::Gone => {}
        }
        self.gate.publish(&inner);
        loop {
            if inner.ended {
                return None;
            }
            let (open, all_set_up) = (inner.open, inner.all_set_up());
            let slot = inner.slots.get_mut(self.index)?;
            match (open, slot.start) {
                (true, Some(entry)) => {
                    slot.place = MemberState::Starting;
                    return Some(Job::Start(entry));
                }
                (true, None) if all_set_up && slot.place == MemberState::AtTheGate => {
                    slot.place = MemberState::Running;
                    return Some(Job::Run);
                }
                _ => {}
            }
            inner = self.gate.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns whether to enter the guest once more.
    pub fn may_run(&self) -> bool {
        self.gate.is_running()
    }

    /// Parks this vCPU, which cannot go on by itself: its next job is to wait for the next opening.
    pub fn park(&mut self) {
        self.set_place(MemberState::Parked);
    }

    fn set_place(&self, place: MemberState) {
        let mut inner = self.gate.lock();
        if let Some(slot) = inner.slots.get_mut(self.index) {
            slot.place = place;
        }
        self.gate.publish(&inner);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_place(MemberState::Gone);
    }
}

#[cfg(test)]
mod tests {
    use super::super::primitives::atomic::AtomicUsize;
    use super::super::primitives::model;
    use super::super::primitives::thread::{self, JoinHandle};
    use super::*;

    const ENTRY: Entry = Entry::Pvh { rip: 0 };

    /// What the vCPU threads of a model do and did.
    struct Seen {
        /// Members that carried out the start of this opening.
        set_up: AtomicUsize,
        /// Members in the guest now.
        inside: AtomicUsize,
        /// Times the guest was entered; the model waits for it.
        entered: Mutex<usize>,
        more: Condvar,
        /// The guest does nothing but wait for a kick.
        guest: Mutex<()>,
        kicked: Condvar,
    }

    impl Seen {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                set_up: AtomicUsize::new(0),
                inside: AtomicUsize::new(0),
                entered: Mutex::new(0),
                more: Condvar::new(),
                guest: Mutex::new(()),
                kicked: Condvar::new(),
            })
        }

        fn run_guest(&self, member: &Member) {
            self.inside.fetch_add(1, Ordering::SeqCst);
            *self.entered.lock().unwrap() += 1;
            self.more.notify_all();
            let mut guest = self.guest.lock().unwrap();
            while member.may_run() {
                guest = self.kicked.wait(guest).unwrap();
            }
            drop(guest);
            self.inside.fetch_sub(1, Ordering::SeqCst);
        }

        fn kick(&self) {
            drop(self.guest.lock().unwrap());
            self.kicked.notify_all();
        }

        fn close(&self, gate: &Gate) {
            gate.close(|| self.kick());
            assert_eq!(self.inside.load(Ordering::SeqCst), 0, "nobody runs while it is closed");
        }

        /// Waits until every vCPU has entered. A lost vCPU never enters, and the model checker reports that this waits for ever.
        fn wait_for_entries(&self, count: usize) {
            let mut entered = self.entered.lock().unwrap();
            while *entered < count {
                entered = self.more.wait(entered).unwrap();
            }
        }
    }

    /// Spawns a vCPU thread as in `Vcpu::run`.
    fn spawn(mut member: Member, seen: &Arc<Seen>, vcpus: usize) -> JoinHandle<()> {
        let seen = Arc::clone(seen);
        thread::spawn(move || {
            while let Some(job) = member.next_job() {
                match job {
                    Job::Start(_) => {
                        seen.set_up.fetch_add(1, Ordering::SeqCst);
                    }
                    Job::Run => {
                        assert_eq!(seen.set_up.load(Ordering::SeqCst) % vcpus, 0, "all or none");
                        seen.run_guest(&member);
                    }
                }
            }
        })
    }

    fn end(gate: &Gate, seen: &Seen, threads: Vec<JoinHandle<()>>) {
        seen.close(gate);
        gate.end();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn in_no_order_of_events_does_a_vcpu_miss_the_start_or_run_before_all_are_set_up() {
        model(2, || {
            let (gate, members) = Gate::new(2);
            let seen = Seen::new();
            let threads = members.into_iter().map(|m| spawn(m, &seen, 2)).collect();
            gate.open(Some(ENTRY));
            seen.wait_for_entries(2);
            end(&gate, &seen, threads);
            assert_eq!(seen.set_up.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn a_start_is_kept_for_a_vcpu_that_comes_after_the_gate_closed_and_opened_again() {
        model(3, || {
            let (gate, members) = Gate::new(1);
            let seen = Seen::new();
            let threads = members.into_iter().map(|m| spawn(m, &seen, 1)).collect();
            gate.open(Some(ENTRY));
            seen.close(&gate);
            let before = *seen.entered.lock().unwrap();
            gate.open(None);
            seen.wait_for_entries(before + 1);
            end(&gate, &seen, threads);
            assert_eq!(seen.set_up.load(Ordering::SeqCst), 1, "set up once, and not left out");
        });
    }

    #[test]
    fn every_reset_starts_every_vcpu_once_more() {
        model(3, || {
            let (gate, members) = Gate::new(1);
            let seen = Seen::new();
            let threads = members.into_iter().map(|m| spawn(m, &seen, 1)).collect();
            gate.open(Some(ENTRY));
            seen.wait_for_entries(1);
            seen.close(&gate);
            gate.open(Some(ENTRY));
            seen.wait_for_entries(2);
            end(&gate, &seen, threads);
            assert_eq!(seen.set_up.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn a_parked_vcpu_runs_again_only_when_the_gate_opens_again() {
        model(3, || {
            let (gate, members) = Gate::new(1);
            let runs = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&runs);
            let threads: Vec<_> = members
                .into_iter()
                .map(|mut member| {
                    let count = Arc::clone(&count);
                    thread::spawn(move || {
                        while let Some(job) = member.next_job() {
                            if job == Job::Run {
                                count.fetch_add(1, Ordering::SeqCst);
                                member.park();
                            }
                        }
                    })
                })
                .collect();
            gate.open(None);
            gate.close(|| {});
            assert!(runs.load(Ordering::SeqCst) <= 1);
            gate.open(None);
            gate.close(|| {});
            gate.end();
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(runs.load(Ordering::SeqCst) <= 2);
        });
    }

    #[test]
    fn a_vcpu_that_ends_holds_nobody_up() {
        model(2, || {
            let (gate, mut members) = Gate::new(2);
            let seen = Seen::new();
            let gone = members.pop();
            let failing = thread::spawn(move || drop(gone));
            let threads = members.into_iter().map(|m| spawn(m, &seen, 1)).collect();
            gate.open(Some(ENTRY));
            seen.wait_for_entries(1);
            failing.join().unwrap();
            end(&gate, &seen, threads);
        });
    }
}
