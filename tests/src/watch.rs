//! Looks at what the simulated processor does when an answer takes long, and has it forget its translations.
//!
//! TCG now and then keeps the translation of code that has been changed since (docs/design/decisions/0007-two-simulated-processors.md): a kernel
//! then takes a breakpoint that is no longer there, for ever. A processor in single steps translates anew.

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
/// How long it goes in single steps: long enough to come round any loop.
const STEPS: Duration = Duration::from_millis(300);

/// Which question is open.
#[derive(Default)]
pub(crate) struct Watch {
    open: Mutex<Option<(Instant, String)>>,
    /// While the open question took long, the processor was busy: something ran in circles.
    circles: AtomicBool,
    /// Such a question was never answered.
    lost: AtomicBool,
}

/// A question until its answer.
pub(crate) struct Watched<'a>(&'a Watch);

impl Watched<'_> {
    /// There is no answer, and will be none.
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
    pub(crate) fn start(dir: &Path) -> Outcome<Arc<Self>> {
        let this = Arc::new(Self::default());
        let weak = Arc::downgrade(&this);
        let mut qemu = Qmp::connect(&dir.join(MONITOR))?;
        std::thread::spawn(move || keep(&weak, &mut qemu));
        Ok(this)
    }

    /// A question is open until what this returns is dropped.
    pub(crate) fn over(&self, question: &Value) -> Watched<'_> {
        self.set(Some((Instant::now(), question.to_string().chars().take(200).collect())));
        Watched(self)
    }

    /// Whether a question was never answered as something ran in circles, although the processor had translated anew. When the processor slept
    /// it was something of ours that did not wake.
    pub(crate) fn lost_one(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn set(&self, open: Option<(Instant, String)>) {
        self.circles.store(false, Ordering::Relaxed);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// The question that has been open for long; it counts anew from now on.
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
            match look_and_translate_anew(qemu) {
                Ok((busy, seen)) => {
                    watch.circles.store(busy * 4 >= SAMPLES * 3, Ordering::Relaxed);
                    eprintln!(
                        "{seen}the busier processor: {busy} times of {SAMPLES}; both have translated anew"
                    );
                }
                Err(error) => eprintln!("QEMU does not answer: {}", error.0),
            }
        }
        drop(watch);
        std::thread::sleep(LOOK);
    }
}

/// How often the busiest processor was busy; where each of them is, and at what code the first.
fn look_and_translate_anew(qemu: &mut Qmp) -> Outcome<(usize, String)> {
    let (mut seen, mut busy) = (String::new(), Vec::new());
    for _ in 0..SAMPLES {
        let registers = qemu.monitor("info registers -a")?;
        for (processor, line) in registers.lines().filter(|line| line.contains("RIP=")).enumerate()
        {
            seen += &format!("{processor}: {line}\n");
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
    // An interrupt that is requested and not taken by a processor that sleeps was lost (`crate::interrupts`).
    for processor in 0..busy.len() {
        let local_apic = qemu.monitor(&format!("info lapic {processor}")).unwrap_or_default();
        for line in
            local_apic.lines().filter(|line| ["ISR", "IRR"].iter().any(|w| line.contains(w)))
        {
            seen += &format!("{processor}: {}\n", line.trim());
        }
    }
    qemu.monitor("one-insn-per-tb on")?;
    std::thread::sleep(STEPS);
    qemu.monitor("one-insn-per-tb off")?;
    Ok((busy.into_iter().max().unwrap_or(0), seen))
}
