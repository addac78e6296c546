//! Looks at what the simulated processors do when an answer takes long.
//!
//! What will never be answered ends the question at once, and the PC with it: a processor sleeps while an interrupt is in service, as Linux ends an
//! interrupt before it sleeps; one is at the same instruction with interrupts off, a look and the next (a guest that waits for what only the code
//! under its interrupt could do: docs/design/decisions/0037-no-interrupt-twice.md says whose fault that was); and on an instruction-counted PC, where nothing takes as long, one that
//! ran in circles at two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::patience::patience;
use crate::qmp::Qmp;

/// QEMU's second monitor, in the PC's folder; the first is the tests'.
pub(crate) const MONITOR: &str = "monitor";
/// What an answer takes when something is wrong.
const LONG: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_secs(1);
/// Times the processor is looked at.
const SAMPLES: usize = 16;
/// Processors of a PC, at most.
const PROCESSORS_MAX: usize = 2;
/// Which question is open.
pub(crate) struct Watch {
    open: Mutex<Option<(Instant, String)>>,
    /// Where the answer comes from; shut down when there will be none.
    channel: UnixStream,
    /// Nothing takes as long as a second look at a processor that runs in circles.
    brief: bool,
    /// While the open question took long, the processor was busy: something ran in circles.
    circles: AtomicBool,
    /// Where a processor stood with interrupts off while the open question took long.
    stood: Mutex<BTreeSet<String>>,
    /// Such a question was never answered.
    lost: AtomicBool,
}

/// A question until its answer.
pub(crate) struct Watched<'a>(&'a Watch);

impl Watched<'_> {
    /// Takes it that there is no answer, and will be none.
    pub(crate) fn failed(&self) {
        if self.0.circles.load(Ordering::Relaxed) {
            self.0.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Watch {
    /// Watches over the questions of the PC in `dir` that are asked by `channel`; on a `brief` one nothing takes long.
    pub(crate) fn start(dir: &Path, channel: UnixStream, brief: bool) -> Outcome<Arc<Self>> {
        let this = Arc::new(Self {
            open: Mutex::default(),
            channel,
            brief,
            circles: AtomicBool::default(),
            stood: Mutex::default(),
            lost: AtomicBool::default(),
        });
        let weak = Arc::downgrade(&this);
        let mut qemu = Qmp::connect(&dir.join(MONITOR))?;
        std::thread::spawn(move || keep(&weak, &mut qemu));
        Ok(this)
    }

    /// Watches over a question, which is open until what this returns is dropped.
    pub(crate) fn over(&self, question: &Value) -> Watched<'_> {
        self.set(Some((Instant::now(), question.to_string().chars().take(200).collect())));
        Watched(self)
    }

    /// Returns whether a question was never answered as something ran in circles. When the processor slept it was something of ours that did not
    /// wake.
    pub(crate) fn lost_one(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Keeps what was seen of the processors while the open question took long.
    fn looked(&self, look: &Look) {
        let circles = look.busy * 4 >= SAMPLES * 3;
        let again = self.circles.swap(circles, Ordering::Relaxed) && circles;
        let mut stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = !stood.is_disjoint(&look.stands);
        stood.clone_from(&look.stands);
        let why = match look.asleep_in_service {
            Some(_) => "a processor sleeps with an interrupt in service",
            None if stands => "a processor stands at one instruction with interrupts off",
            None if again && self.brief => "a processor runs in circles",
            None => return,
        };
        eprintln!("{why}: this PC will not answer any more");
        self.lost.store(true, Ordering::Relaxed);
        let _ = self.channel.shutdown(Shutdown::Both);
    }

    fn set(&self, open: Option<(Instant, String)>) {
        self.circles.store(false, Ordering::Relaxed);
        self.stood.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// Returns the question that has been open for long; it counts anew from now on.
    fn late(&self) -> Option<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, question) =
            open.as_mut().filter(|(since, _)| since.elapsed() >= patience(LONG))?;
        *since = Instant::now();
        Some(question.clone())
    }
}

fn keep(watch: &Weak<Watch>, qemu: &mut Qmp) {
    while let Some(watch) = watch.upgrade() {
        if let Some(question) = watch.late() {
            eprintln!("no answer for {:?} to {question}", patience(LONG));
            match look(qemu) {
                Ok(seen) => {
                    eprintln!(
                        "{}the busier processor: {} times of {SAMPLES}",
                        seen.seen, seen.busy
                    );
                    watch.looked(&seen);
                }
                Err(error) => eprintln!("QEMU does not answer: {}", error.0),
            }
        }
        drop(watch);
        std::thread::sleep(LOOK);
    }
}

/// What there was to see.
struct Look {
    /// How often the busiest processor was busy.
    busy: usize,
    /// A processor that slept all the time while an interrupt, and always the same, was in service.
    asleep_in_service: Option<usize>,
    /// Instructions at which a processor was with interrupts off in half of the looks: the PC's own kernel has the other half.
    stands: BTreeSet<String>,
    /// Where each processor was, for who reads it.
    seen: String,
}

fn look(qemu: &mut Qmp) -> Outcome<Look> {
    let (mut seen, mut busy) = (String::new(), Vec::<usize>::new());
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let before: Vec<String> = (0..PROCESSORS_MAX).map(|n| in_service(qemu, n)).collect();
    for sample in 0..SAMPLES {
        let registers = qemu.monitor("info registers -a")?;
        for (processor, line) in registers.lines().filter(|line| line.contains("RIP=")).enumerate()
        {
            if sample % 5 == 0 {
                seen += &format!("{processor}: {line}\n");
            }
            if let Some(place) = with_interrupts_off(line) {
                *places.entry(place).or_default() += 1;
            }
            busy.resize(busy.len().max(processor + 1), 0);
            if let Some(busy) =
                busy.get_mut(processor).filter(|_| line.trim_end().ends_with("HLT=0"))
            {
                *busy += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(7));
    }
    seen += &qemu.monitor("x /6i $pc").unwrap_or_default();
    // What a lock is that is waited for is in the registers.
    let registers = qemu.monitor("info registers -a").unwrap_or_default();
    for line in registers.lines().filter(|line| line.starts_with('R') || line.starts_with("CR0")) {
        seen += &format!("{line}\n");
    }
    let mut asleep_in_service = None;
    for (processor, (busy, before)) in busy.iter().zip(&before).enumerate() {
        // An interrupt that is requested and not taken by a processor that sleeps was lost.
        let local_apic = qemu.monitor(&format!("info lapic {processor}")).unwrap_or_default();
        for line in
            local_apic.lines().filter(|line| ["ISR", "IRR"].iter().any(|w| line.contains(w)))
        {
            seen += &format!("{processor}: {}\n", line.trim());
        }
        if *busy == 0 && before.contains(char::is_numeric) && *before == in_service(qemu, processor)
        {
            asleep_in_service = Some(processor);
        }
    }
    let stands = places.into_iter().filter(|(_, times)| *times * 2 >= SAMPLES);
    let stands = stands.map(|(place, _)| place).collect();
    Ok(Look { busy: busy.into_iter().max().unwrap_or(0), asleep_in_service, stands, seen })
}

/// Returns where a processor that does not sleep is, if it takes no interrupts: of `RIP=ffffffff81159637 RFL=00000002 [-------] ... HLT=0`.
fn with_interrupts_off(line: &str) -> Option<String> {
    /// The interrupt flag among the processor's flags.
    const INTERRUPTS: u64 = 1 << 9;
    let word = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
    let flags = u64::from_str_radix(word("RFL=")?, 16).ok()?;
    let is_off = flags & INTERRUPTS == 0 && word("HLT=")? == "0";
    is_off.then(|| word("RIP=").map(str::to_owned)).flatten()
}

/// Returns the vectors of the interrupts that a processor's local APIC has in service, as QEMU prints them: empty, or `(none)`, without any.
fn in_service(qemu: &mut Qmp, processor: usize) -> String {
    let local_apic = qemu.monitor(&format!("info lapic {processor}")).unwrap_or_default();
    let line = local_apic.lines().find_map(|line| line.trim().strip_prefix("ISR"));
    line.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_counts_when_interrupts_are_off_and_the_processor_does_not_sleep() {
        let line = |flags: &str, asleep: u8| {
            format!("RIP=ffffffff81159637 RFL={flags} [---] CPL=0 II=0 A20=1 SMM=0 HLT={asleep}")
        };
        let place = Some("ffffffff81159637".to_owned());
        assert_eq!(with_interrupts_off(&line("00000002", 0)), place);
        assert_eq!(with_interrupts_off(&line("00000046", 0)), place);
        assert_eq!(with_interrupts_off(&line("00000202", 0)), None);
        assert_eq!(with_interrupts_off(&line("00000002", 1)), None);
        assert_eq!(with_interrupts_off("RIP=1"), None);
    }
}
