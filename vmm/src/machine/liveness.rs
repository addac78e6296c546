//! Tells threads that hang from threads that have nothing to do.
//!
//! ```text
//!  status asked --> look: has each thread come round since the last look?
//!                     yes, or it rests  --> it lives
//!                     no                --> wake it; eight looks in a row without a round: it hangs
//! ```
//! Each thread has a [`Heartbeat`] of its own, so that none can answer for another. The main loop looks when it is asked for its status; whether
//! the main loop itself hangs is seen by who asks. Looks are counted rather than seconds, as a VMM that was stopped as a whole, or slept with
//! its PC, was not able to come round.

use std::time::{Duration, Instant};

use vmm_control::HungThread;

use crate::heartbeat::Heartbeat;

/// Between two looks, at least: whoever asks more often gets the last one's finding.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Looks in a row at which a thread has not come round, until it counts as hung: at least half a minute.
const LOOKS_MAX: u32 = 8;

/// The threads of a VMM that are watched.
#[derive(Default)]
pub(super) struct Liveness {
    threads: Vec<WatchedThread>,
    last_look: Option<Instant>,
}

/// What a thread serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreadDuty {
    /// It waits for nothing but the guest.
    Guest,
    /// A file of the host's as well, whose disk may take as long as it likes.
    HostFile,
}

struct WatchedThread {
    name: String,
    serves: ThreadDuty,
    heartbeat: Heartbeat,
    /// Wakes the thread, so that it beats if it can.
    wake: Box<dyn Fn() + Send>,
    /// Its beats at the last look.
    seen: u64,
    /// When it was first woken of all the times in a row that it was woken in vain, and how often that was.
    woken: Option<(Instant, u32)>,
}

impl Liveness {
    /// Watches a thread; `wake` makes it beat within moments, and never blocks.
    pub(super) fn watch(
        &mut self,
        name: String,
        serves: ThreadDuty,
        heartbeat: Heartbeat,
        wake: impl Fn() + Send + 'static,
    ) {
        let (wake, seen) = (Box::new(wake), heartbeat.count());
        self.threads.push(WatchedThread { name, serves, heartbeat, wake, seen, woken: None });
    }

    /// Looks at every thread, and returns one that hangs: one that waits for nothing of the host's if there is one.
    pub(super) fn look(&mut self, now: Instant) -> Option<HungThread> {
        let early = |last: Instant| now.saturating_duration_since(last) < LOOK_EVERY;
        if !self.last_look.is_some_and(early) {
            self.last_look = Some(now);
            self.threads.iter_mut().for_each(|thread| thread.look(now));
        }
        let hung = |serves| {
            let mut threads = self.threads.iter().filter(move |thread| thread.serves == serves);
            threads.find_map(|thread| thread.hung(now))
        };
        hung(ThreadDuty::Guest).or_else(|| hung(ThreadDuty::HostFile))
    }
}

impl WatchedThread {
    fn look(&mut self, now: Instant) {
        let seen = std::mem::replace(&mut self.seen, self.heartbeat.count());
        if seen != self.seen || self.heartbeat.is_resting() {
            self.woken = None;
            return;
        }
        let (since, times) = self.woken.unwrap_or((now, 0));
        self.woken = Some((since, times.saturating_add(1)));
        (self.wake)();
    }

    fn hung(&self, now: Instant) -> Option<HungThread> {
        // At the look after a wake it is seen whether that was in vain.
        let (since, _) = self.woken.filter(|(_, times)| *times > LOOKS_MAX)?;
        Some(HungThread {
            thread: self.name.clone(),
            seconds: now.saturating_duration_since(since).as_secs(),
            waits_for_host: self.serves == ThreadDuty::HostFile,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A thread that comes round when it is woken, until it hangs.
    struct Thread {
        heartbeat: Heartbeat,
        hangs: Arc<AtomicBool>,
    }

    fn watched(liveness: &mut Liveness, name: &str, serves: ThreadDuty) -> Thread {
        let thread = Thread { heartbeat: Heartbeat::default(), hangs: Arc::default() };
        let (heartbeat, hangs) = (thread.heartbeat.clone(), thread.hangs.clone());
        let wake = move || {
            if !hangs.load(Ordering::Relaxed) {
                heartbeat.beat();
            }
        };
        liveness.watch(name.to_owned(), serves, thread.heartbeat.clone(), wake);
        thread
    }

    /// Looks each five seconds from `from` on, so many times; returns the first finding and when it was.
    fn looks(liveness: &mut Liveness, from: Instant, times: u32) -> Option<(Duration, HungThread)> {
        (0..times).find_map(|time| {
            let passed = Duration::from_secs(5) * time;
            liveness.look(from + passed).map(|hung| (passed, hung))
        })
    }

    #[test]
    fn a_thread_that_is_woken_in_vain_for_half_a_minute_hangs_whatever_the_others_do() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        let vcpu = watched(&mut liveness, "vcpu0", ThreadDuty::Guest);
        let busy = watched(&mut liveness, "vcpu1", ThreadDuty::Guest);
        assert_eq!(looks(&mut liveness, start, 100), None, "idle threads live");
        vcpu.hangs.store(true, Ordering::Relaxed);
        let later = start + Duration::from_secs(1000);
        let found = (0..20).find_map(|time| {
            busy.heartbeat.beat();
            let passed = Duration::from_secs(5) * time;
            liveness.look(later + passed).map(|hung| (passed, hung))
        });
        let (after, hung) = found.unwrap();
        assert_eq!((hung.thread.as_str(), hung.waits_for_host), ("vcpu0", false));
        assert!((30..=60).contains(&after.as_secs()), "{after:?}");
        assert!(hung.seconds >= 30, "{hung:?}");
        vcpu.heartbeat.beat();
        assert_eq!(liveness.look(later + Duration::from_secs(200)), None, "it has come round");
    }

    #[test]
    fn a_thread_that_rests_does_not_hang_nor_do_questions_make_time_pass() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        let vcpu = watched(&mut liveness, "vcpu0", ThreadDuty::Guest);
        vcpu.hangs.store(true, Ordering::Relaxed);
        for millis in 0..3000 {
            assert_eq!(liveness.look(start + Duration::from_millis(millis)), None);
        }
        vcpu.heartbeat.rest();
        assert_eq!(looks(&mut liveness, start + Duration::from_secs(4), 100), None);
        vcpu.heartbeat.wake();
        let (after, _) = looks(&mut liveness, start + Duration::from_secs(1000), 100).unwrap();
        assert!(after >= Duration::from_secs(30), "{after:?}");
    }

    #[test]
    fn a_vmm_that_was_stopped_for_an_hour_has_no_thread_that_hangs() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        let thread = watched(&mut liveness, "gpu", ThreadDuty::Guest);
        thread.hangs.store(true, Ordering::Relaxed);
        assert_eq!(liveness.look(start), None);
        let later = start + Duration::from_secs(3600);
        assert_eq!(liveness.look(later), None, "it could not come round");
        thread.hangs.store(false, Ordering::Relaxed);
        assert_eq!(looks(&mut liveness, later + Duration::from_secs(5), 100), None);
    }

    #[test]
    fn of_two_that_hang_the_one_that_another_vmm_would_not_wait_for_is_told() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        let disk = watched(&mut liveness, "blk0", ThreadDuty::HostFile);
        disk.hangs.store(true, Ordering::Relaxed);
        let (_, hung) = looks(&mut liveness, start, 100).unwrap();
        assert!(hung.thread == "blk0" && hung.waits_for_host, "{hung:?}");
        let screen = watched(&mut liveness, "gpu", ThreadDuty::Guest);
        screen.hangs.store(true, Ordering::Relaxed);
        for time in 0..20 {
            let _ = liveness.look(start + Duration::from_secs(1000 + 5 * time));
        }
        let hung = liveness.look(start + Duration::from_secs(2000)).unwrap();
        assert!(hung.thread == "gpu" && !hung.waits_for_host, "{hung:?}");
    }
}
