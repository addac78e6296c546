//! Looks at what the simulated processors do when an answer takes long.
//!
//! What will never be answered ends the question at once, and the PC with it: a processor sleeps while an interrupt is in service, as Linux ends an
//! interrupt before it sleeps; one sleeps, a look and the next, with interrupts on and the same one requested of it
//! (docs/design/decisions/0089-a-processor-that-is-not-woken.md); one is at the same instruction with interrupts off, a look and the next (a guest that
//! waits for what only the code under its interrupt could do: docs/design/decisions/0037-no-interrupt-twice.md says whose fault that was); and on an
//! instruction-counted PC, where nothing takes as long, one that ran in circles at two looks.

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
/// When a processor that sleeps over an interrupt is looked at again.
const AGAIN: Duration = Duration::from_secs(5);
/// Vectors below are exceptions, which Linux has its processors never take as interrupts: one stays requested for good.
const INTERRUPT_MIN: u8 = 32;
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
    /// What of the last look holds at the next one too only if there will be no answer, while the open question took long.
    stuck: Mutex<BTreeSet<Stuck>>,
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
            stuck: Mutex::default(),
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

    /// Returns whether a question was never answered as the emulator's processors failed. Where one only slept, something of ours did not wake.
    pub(crate) fn lost_one(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Keeps what was seen of the processors while the open question took long.
    fn looked(&self, look: &Look) {
        let circles = look.busy * 4 >= SAMPLES * 3;
        let again = self.circles.swap(circles, Ordering::Relaxed) && circles;
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let still = stuck.intersection(&look.stuck).next().cloned();
        stuck.clone_from(&look.stuck);
        let why = match (look.asleep_in_service, still) {
            (Some(_), _) => "a processor sleeps with an interrupt in service",
            (None, Some(Stuck::Stands(_))) => {
                "a processor stands at one instruction with interrupts off"
            }
            (None, Some(Stuck::Sleeps(..))) => "a processor sleeps and does not take an interrupt",
            (None, None) if again && self.brief => "a processor runs in circles",
            (None, None) => return,
        };
        eprintln!("{why}: this PC will not answer any more");
        self.lost.store(true, Ordering::Relaxed);
        let _ = self.channel.shutdown(Shutdown::Both);
    }

    fn set(&self, open: Option<(Instant, String)>) {
        self.circles.store(false, Ordering::Relaxed);
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// Has the open question count as open for long again after this time.
    fn late_again_in(&self, time: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((since, _)), Some(earlier)) =
            (open.as_mut(), (Instant::now() + time).checked_sub(patience(LONG)))
        {
            *since = earlier;
        }
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
                    if seen.stuck.iter().any(|stuck| matches!(stuck, Stuck::Sleeps(..))) {
                        watch.late_again_in(AGAIN);
                    }
                }
                Err(error) => eprintln!("QEMU does not answer: {}", error.0),
            }
        }
        drop(watch);
        std::thread::sleep(LOOK);
    }
}

/// What a processor that works does not do for long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stuck {
    /// It was at this instruction with interrupts off in half of the samples: the PC's own kernel has the other half.
    Stands(String),
    /// This processor slept all the time, with interrupts on, while this vector was requested of it.
    Sleeps(usize, u8),
}

/// What there was to see.
struct Look {
    /// How often the busiest processor was busy.
    busy: usize,
    /// A processor that slept all the time while an interrupt, and always the same, was in service.
    asleep_in_service: Option<usize>,
    /// What a processor that works does not do for long.
    stuck: BTreeSet<Stuck>,
    /// Where each processor was, for who reads it.
    seen: String,
}

fn look(qemu: &mut Qmp) -> Outcome<Look> {
    let (mut seen, mut busy) = (String::new(), Vec::<usize>::new());
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let apics: Vec<String> = (0..PROCESSORS_MAX).map(|n| local_apic(qemu, n)).collect();
    let mut requested: Vec<Vec<u8>> = apics.iter().map(|apic| vectors(apic, "IRR")).collect();
    let mut closed = [false; PROCESSORS_MAX];
    for sample in 0..SAMPLES {
        let registers = qemu.monitor("info registers -a")?;
        // A processor in 32-bit code has another line.
        let lines = registers.lines().filter(|line| line.contains("RIP=") || line.contains("EIP="));
        for (processor, line) in lines.enumerate() {
            if sample % 5 == 0 {
                seen += &format!("{processor}: {line}\n");
            }
            if let Some(place) = with_interrupts_off(line) {
                *places.entry(place).or_default() += 1;
            }
            if let Some(closed) = closed.get_mut(processor) {
                *closed |= !has_interrupts_on(line);
            }
            busy.resize(busy.len().max(processor + 1), 0);
            if let Some(busy) =
                busy.get_mut(processor).filter(|_| line.trim_end().ends_with("HLT=0"))
            {
                *busy += 1;
            }
        }
        for (processor, requested) in requested.iter_mut().enumerate() {
            let now =
                if requested.is_empty() { String::new() } else { local_apic(qemu, processor) };
            let now = vectors(&now, "IRR");
            requested.retain(|vector| now.contains(vector));
        }
        std::thread::sleep(Duration::from_millis(7));
    }
    seen += &qemu.monitor("x /6i $pc").unwrap_or_default();
    // What a lock is that is waited for is in the registers.
    let registers = qemu.monitor("info registers -a").unwrap_or_default();
    for line in registers.lines().filter(|line| line.starts_with('R') || line.starts_with("CR0")) {
        seen += &format!("{line}\n");
    }
    let (mut asleep_in_service, mut stuck) = (None, BTreeSet::new());
    for (processor, busy) in busy.iter().enumerate() {
        let local_apic = local_apic(qemu, processor);
        // What it has to do, and whether it takes interrupts.
        let registers = ["ISR", "IRR", "SPIV", "TPR", "PPR"];
        for line in local_apic.lines().filter(|line| registers.iter().any(|w| line.contains(w))) {
            seen += &format!("{processor}: {}\n", line.trim());
        }
        if *busy > 0 {
            continue;
        }
        let in_service = vectors(&local_apic, "ISR");
        let before = apics.get(processor).map(|apic| vectors(apic, "ISR"));
        if !in_service.is_empty() && before.as_ref() == Some(&in_service) {
            asleep_in_service = Some(processor);
        }
        if closed.get(processor) == Some(&false) {
            let still = requested.get(processor).into_iter().flatten();
            let still = still.filter(|vector| **vector >= INTERRUPT_MIN);
            stuck.extend(still.map(|vector| Stuck::Sleeps(processor, *vector)));
        }
    }
    let stands = places.into_iter().filter(|(_, times)| *times * 2 >= SAMPLES);
    stuck.extend(stands.map(|(place, _)| Stuck::Stands(place)));
    Ok(Look { busy: busy.into_iter().max().unwrap_or(0), asleep_in_service, stuck, seen })
}

/// Returns what stands behind `key` in a line of registers: `RIP=ffffffff81159637 RFL=00000002 [-------] ... HLT=0`.
fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key))
}

/// Returns whether a processor takes interrupts, by its flags.
fn has_interrupts_on(line: &str) -> bool {
    /// The interrupt flag among the processor's flags.
    const INTERRUPTS: u64 = 1 << 9;
    let flags = word(line, "RFL=").and_then(|flags| u64::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & INTERRUPTS != 0)
}

/// Returns where a processor that does not sleep is, if it takes no interrupts.
fn with_interrupts_off(line: &str) -> Option<String> {
    let is_off =
        word(line, "RFL=").is_some() && !has_interrupts_on(line) && word(line, "HLT=")? == "0";
    is_off.then(|| word(line, "RIP=").map(str::to_owned)).flatten()
}

/// Returns what QEMU prints of a processor's local APIC.
fn local_apic(qemu: &mut Qmp, processor: usize) -> String {
    qemu.monitor(&format!("info lapic {processor}")).unwrap_or_default()
}

/// Returns the vectors in a register of a local APIC, as QEMU prints it: `IRR  37 42(level) 236`, or `ISR  (none)`.
fn vectors(local_apic: &str, register: &str) -> Vec<u8> {
    let line = local_apic.lines().find_map(|line| line.trim().strip_prefix(register));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.trim_end_matches("(level)").parse().ok()).collect()
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
        assert!(
            has_interrupts_on(&line("00000212", 1)) && !has_interrupts_on(&line("00000012", 1))
        );
    }

    #[test]
    fn a_processor_that_sleeps_over_the_same_interrupt_twice_ends_the_question() {
        let look = |stuck: &Stuck| Look {
            busy: 0,
            asleep_in_service: None,
            stuck: BTreeSet::from([stuck.clone()]),
            seen: String::new(),
        };
        let timer = Stuck::Sleeps(0, 236);
        for (first, second, is_lost) in [
            (timer.clone(), timer.clone(), true),
            (timer.clone(), Stuck::Sleeps(1, 236), false),
            (timer, Stuck::Sleeps(0, 251), false),
        ] {
            let (channel, _other) = UnixStream::pair().unwrap();
            let watch = Watch {
                open: Mutex::default(),
                channel,
                brief: false,
                circles: AtomicBool::default(),
                stuck: Mutex::default(),
                lost: AtomicBool::default(),
            };
            watch.looked(&look(&first));
            assert!(!watch.lost_one());
            watch.looked(&look(&second));
            assert_eq!(watch.lost_one(), is_lost, "{first:?}, {second:?}");
        }
    }

    #[test]
    fn an_apics_vectors_are_read_as_they_are_printed() {
        let printed =
            "dumping local APIC state for CPU 0\n\nISR\t (none)\nIRR\t 37 42 236(level) 251\n";
        assert_eq!(vectors(printed, "IRR"), [37, 42, 236, 251]);
        assert_eq!(vectors(printed, "ISR"), [0_u8; 0]);
        assert_eq!(vectors("", "IRR"), [0_u8; 0]);
    }
}
