//! Runs the tests on simulated ward PCs, one or several side by side, prints what a test runner prints and keeps how long each took.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ward::{Addresses, Ward};
use crate::wardpc::NO_ANSWER;
use crate::{Failure, Outcome};

/// A test in the simulated ward PC; [`tests_macros::ward_test`] makes it of a function.
pub struct WardTest {
    /// What the runner prints: the function's name, a sentence.
    pub name: &'static str,
    /// The requirements it shows to be met.
    pub shows: &'static [&'static str],
    /// The file, from the root of the repository, and the line.
    pub place: (&'static str, u32),
    /// Whether it runs a second time where addresses are short.
    pub also_with_39_bit_addresses: bool,
    /// Whether it is left to runs in full, and to who names it.
    pub in_full: bool,
    /// What it does.
    pub body: Body,
}

/// What a test does, and with which PC.
pub enum Body {
    /// With the PC that the tests share.
    Shared(fn(&Ward) -> Outcome),
    /// With one that it starts itself: no other is there meanwhile but those of tests beside it.
    Own(fn() -> Outcome),
}

/// Every test of the binary that is linked.
#[linkme::distributed_slice]
pub static WARD_TESTS: [WardTest];

/// Returns the tests in the order in which they stand in the sources.
pub fn in_order() -> Vec<&'static WardTest> {
    let mut tests: Vec<_> = WARD_TESTS.iter().collect();
    tests.sort_by_key(|test| test.place);
    tests
}

/// How often PCs that died are replaced in one run.
const REPLACEMENTS_MAX: u32 = 2;
/// After how many PCs that no longer answered the rest is not run: each costs minutes, and something is wrong with all of them.
const LOST_MAX: u32 = 5;
/// What a VMM says of a guest that faulted three times over. Debian's kernels do not; an emulated processor that loses its way does.
const TRIPLE_FAULT: &str = "the guest faulted three times over";
/// How many of the slowest tests are named at the end.
const SLOWEST: usize = 5;

/// A test and the PC it wants: none, if it starts one of its own.
#[derive(Clone, Copy)]
struct Case {
    test: &'static WardTest,
    wants: Option<Addresses>,
}

impl Case {
    fn name(&self) -> String {
        match self.wants {
            Some(Addresses::Bits39) => format!("{}_with_39_bit_addresses", self.test.name),
            Some(Addresses::Ordinary) | None => self.test.name.to_owned(),
        }
    }
}

/// What the command line asks for.
struct Options {
    words: Vec<String>,
    rounds: usize,
    pcs: usize,
    list: bool,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let number = |flag: &str| {
            // What somebody asks for stands behind what the script does.
            arguments.iter().rev().find_map(|a| a.strip_prefix(flag)?.parse().ok()).unwrap_or(1)
        };
        Self {
            words: arguments.iter().filter(|a| !a.starts_with('-')).cloned().collect(),
            rounds: number("--rounds="),
            pcs: number("--pcs="),
            list: arguments.iter().any(|a| a == "--list"),
        }
    }

    /// Returns those whose names contain a word, or all that belong to this run, as often as they are to run.
    fn cases(&self) -> VecDeque<Case> {
        let tests = in_order();
        let shared = |test: &&WardTest| matches!(test.body, Body::Shared(_));
        let case = |wants| move |&test: &&'static WardTest| Case { test, wants };
        let ordinary =
            tests.iter().filter(|test| shared(test)).map(case(Some(Addresses::Ordinary)));
        let narrow = tests.iter().filter(|test| test.also_with_39_bit_addresses);
        let own = tests.iter().filter(|test| !shared(test)).map(case(None));
        ordinary
            .chain(narrow.map(case(Some(Addresses::Bits39))))
            .chain(own)
            .filter(|case| {
                let name = case.name();
                if self.words.is_empty() {
                    return is_in_full() || !case.test.in_full;
                }
                self.words.iter().any(|word| name.contains(word.as_str()))
            })
            .flat_map(|case| std::iter::repeat_n(case, self.rounds))
            .collect()
    }
}

/// A run, as the threads share it.
#[derive(Default)]
struct Run {
    waiting: VecDeque<Case>,
    passed: Vec<(String, f64)>,
    failed: Vec<(String, String)>,
    replacements: u32,
    lost: u32,
    ledger: Option<File>,
}

impl Run {
    /// Returns the next test for somebody who has this PC; of the others only when none is left for it.
    fn next(&mut self, has: Option<Addresses>) -> Option<Case> {
        let fits = self.waiting.iter().position(|case| has.is_some() && has == case.wants);
        self.waiting.remove(fits.unwrap_or(0))
    }

    fn ended(&mut self, case: &Case, outcome: Outcome, seconds: f64) {
        let name = case.name();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        if let Some(ledger) = &mut self.ledger {
            let _ = writeln!(ledger, "{}\t{name}\t{word}\t{seconds:.1}", label());
        }
        match outcome {
            Ok(()) => {
                println!("test {name} ... ok ({seconds:.1}s)");
                self.passed.push((name, seconds));
            }
            Err(Failure(text)) => {
                println!("test {name} ... FAILED ({seconds:.1}s)\n{text}");
                self.failed.push((name, text));
            }
        }
    }
}

/// Runs the tests whose names contain a word of the command line, or all; `false` when one failed.
///
/// `--rounds=N` runs each of them N times, to look for one that fails now and then; `--pcs=N` takes N PCs side by side; `--list` only
/// prints the names. Each test's time is kept in `target/test-times/ward-pc.tsv`.
///
/// A test that fails on a PC that no longer answers, or whose guest faulted three times over, is run once more on a new one: emulated
/// processors are not perfect, and a fault of ours fails there again. What happened to the first is printed.
pub fn run() -> bool {
    let options = Options::read();
    let waiting = options.cases();
    if options.list {
        waiting.iter().for_each(|case| println!("{}: test", case.name()));
        return true;
    }
    let started = Instant::now();
    let count = waiting.len();
    println!("\nrunning {count} tests");
    let run = Mutex::new(Run { waiting, ledger: ledger().ok(), ..Run::default() });
    std::thread::scope(|scope| {
        for number in 1..=options.pcs.clamp(1, count.max(1)) {
            let name = if options.pcs > 1 { format!("PC {number}") } else { String::new() };
            let spawned =
                std::thread::Builder::new().name(name).spawn_scoped(scope, || at_one_pc(&run));
            if let Err(error) = spawned {
                eprintln!("no thread for a PC: {error}");
            }
        }
    });
    let run = run.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(run, started.elapsed().as_secs_f64())
}

fn locked(run: &Mutex<Run>) -> std::sync::MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one test after the other, on a PC of its own.
fn at_one_pc(run: &Mutex<Run>) {
    let mut pc: Option<(Addresses, Ward)> = None;
    loop {
        let next = locked(run).next(pc.as_ref().map(|(addresses, _)| *addresses));
        let Some(case) = next else { return };
        if pc.as_ref().is_none_or(|(addresses, _)| Some(*addresses) != case.wants) {
            drop(pc.take()); // its memory is free before the next one starts
        }
        if let (Some(addresses), None) = (case.wants, &pc) {
            // QEMU itself dies now and then; a fault of ours keeps the second one from starting, too.
            let started = Ward::start(addresses).or_else(|Failure(error)| {
                if !may_replace(run) {
                    return Err(Failure(error));
                }
                println!("a simulated PC did not start, once more\n{error}");
                Ward::start(addresses)
            });
            match started {
                Ok(ward) => pc = Some((addresses, ward)),
                Err(Failure(error)) => {
                    println!("test the_simulated_ward_pc_starts ... FAILED\n{error}");
                    let mut run = locked(run);
                    run.failed.push(("the_simulated_ward_pc_starts".into(), error));
                    run.waiting.push_front(case);
                    return;
                }
            }
        }
        let start = Instant::now();
        let mut outcome = attempt(case, pc.as_ref());
        if let (Err(Failure(error)), Some((_, former))) = (&outcome, &pc)
            && (error.contains(TRIPLE_FAULT) || !former.pc.answers())
        {
            // Whatever becomes of this test: the next one gets a PC that answers.
            drop(pc.take());
            if may_replace(run) {
                println!(
                    "test {}: the simulated PC or its processors failed, once more on a new one\n{error}",
                    case.name()
                );
                pc = case.wants.and_then(|addresses| {
                    let started = Ward::start(addresses);
                    let started = started.inspect_err(|Failure(error)| println!("{error}"));
                    Some((addresses, started.ok()?))
                });
                outcome = attempt(case, pc.as_ref());
                if outcome.is_err() && pc.as_ref().is_none_or(|(_, ward)| !ward.pc.answers()) {
                    drop(pc.take());
                }
            }
        }
        if let Err(Failure(error)) = &outcome
            && case.wants.is_none()
            && (error.contains(TRIPLE_FAULT) || error.contains(NO_ANSWER))
            && may_replace(run)
        {
            println!("test {}: its simulated PC failed, once more\n{error}", case.name());
            outcome = attempt(case, None);
        }
        let mut run = locked(run);
        run.lost += u32::from(case.wants.is_some() && pc.is_none());
        let enough = run.lost > LOST_MAX;
        run.ended(&case, outcome, start.elapsed().as_secs_f64());
        if enough {
            println!("more than {LOST_MAX} simulated PCs no longer answered: the rest is not run");
            return;
        }
    }
}

fn attempt(case: Case, pc: Option<&(Addresses, Ward)>) -> Outcome {
    let body = || match (&case.test.body, pc) {
        (Body::Shared(body), Some((_, ward))) => body(ward),
        (Body::Shared(_), None) => Err(Failure("there is no PC to run it on".into())),
        (Body::Own(body), _) => body(),
    };
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(Failure("it panicked".into())))
}

/// Returns whether one more PC may be replaced; it then counts.
fn may_replace(run: &Mutex<Run>) -> bool {
    let mut run = locked(run);
    let may = run.replacements < REPLACEMENTS_MAX;
    run.replacements += u32::from(may);
    may
}

fn report(mut run: Run, seconds: f64) -> bool {
    for (name, text) in &run.failed {
        println!("\n---- {name} ----\n{text}");
    }
    if run.replacements > 0 {
        println!("\n{} simulated PCs died and were replaced", run.replacements);
    }
    run.passed.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    println!("\nthe slowest:");
    for (name, seconds) in run.passed.iter().take(SLOWEST) {
        println!("{seconds:7.1}s {name}");
    }
    // A PC that did not start leaves its tests to the others; without others they were not run.
    for case in &run.waiting {
        println!("not run: {}", case.name());
    }
    let (passed, failed) = (run.passed.len(), run.failed.len() + run.waiting.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.0}s"
    );
    failed == 0
}

/// Returns what this run is called in the ledger: `scripts/test` says the time, the commit and the build.
fn label() -> String {
    std::env::var("BULKHEAD_TEST_RUN").unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("by hand, {}", since.as_secs())
    })
}

/// Returns whether this run does in full what the ordinary one does in part: `scripts/test acceptance` and `soak` say so.
pub fn is_in_full() -> bool {
    std::env::var_os("BULKHEAD_IN_FULL").is_some()
}

/// Returns whether the programs under test are the ones of the fast loop (`scripts/build e2e`), not the delivered ones.
pub fn is_fast_build() -> bool {
    std::env::var("BULKHEAD_TEST_RUN").is_ok_and(|run| run.ends_with("\te2e"))
}

/// Returns the ledger of all runs: run, test, outcome and seconds a line.
fn ledger() -> io::Result<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = root.join("target/test-times");
    fs::create_dir_all(&folder)?;
    OpenOptions::new().create(true).append(true).open(folder.join("ward-pc.tsv"))
}
