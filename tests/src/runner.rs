//! Runs tests in order on one PC and prints what a test runner prints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::{Failure, Outcome};

/// A test: its name, a sentence, and what it does with the PC.
pub type Test<T> = (&'static str, fn(&T) -> Outcome);

/// How often a PC that died is replaced in one run.
const REPLACEMENTS_MAX: u32 = 2;

/// Powers a PC on for the tests, and says whether it still answers.
pub trait Place: Sized {
    /// Powers it on.
    fn start() -> Outcome<Self>;
    /// Whether it still answers.
    fn answers(&self) -> bool;
}

/// Runs the tests whose names contain a word of the command line, or all; `false` when one failed. `--rounds=N` runs
/// each of them N times, to look for one that fails now and then.
///
/// A test that fails on a PC that no longer answers is run once more on a new one: emulated processors
/// are not perfect, and a fault of ours fails there again. What happened to the first is printed.
pub fn run<T: Place>(tests: &[Test<T>]) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let rounds = std::env::args().find_map(|a| a.strip_prefix("--rounds=")?.parse().ok());
    let chosen: Vec<_> = tests
        .iter()
        .filter(|(name, _)| words.is_empty() || words.iter().any(|w| name.contains(w.as_str())))
        .flat_map(|test| std::iter::repeat_n(test, rounds.unwrap_or(1)))
        .collect();
    let mut place = match T::start() {
        Ok(place) => Some(place),
        Err(Failure(error)) => {
            println!("test the_simulated_ward_pc_starts ... FAILED\n{error}");
            println!("\ntest result: FAILED. 0 passed; 1 failed");
            return false;
        }
    };
    println!("\nrunning {} tests", chosen.len());
    let mut failures = Vec::new();
    let mut replacements = 0;
    for (name, test) in &chosen {
        let start = Instant::now();
        let attempt = |place: &mut Option<T>| match place {
            Some(place) => catch_unwind(AssertUnwindSafe(|| test(place)))
                .unwrap_or_else(|_| Err(Failure("it panicked".into()))),
            None => Err(Failure("there is no PC to run it on".into())),
        };
        let mut outcome = attempt(&mut place);
        if let (Err(Failure(error)), Some(former)) = (&outcome, &place)
            && replacements < REPLACEMENTS_MAX
            && !former.answers()
        {
            println!("test {name}: the simulated PC died, once more on a new one\n{error}");
            replacements += 1;
            drop(place.take()); // its memory is free before the next one starts
            place = T::start().inspect_err(|Failure(error)| println!("{error}")).ok();
            outcome = attempt(&mut place);
        }
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("test {name} ... ok ({seconds:.1}s)"),
            Err(failure) => {
                println!("test {name} ... FAILED ({seconds:.1}s)\n{}", failure.0);
                failures.push((name, failure));
            }
        }
    }
    for (name, Failure(text)) in &failures {
        println!("\n---- {name} ----\n{text}");
    }
    if replacements > 0 {
        println!("\n{replacements} simulated PCs died and were replaced");
    }
    let (failed, passed) = (failures.len(), chosen.len() - failures.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    failed == 0
}
