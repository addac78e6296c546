//! Runs tests in order on one PC and prints what a test runner prints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::{Failure, Outcome};

/// A test: its name, a sentence, and what it does with the PC.
pub type Test<T> = (&'static str, fn(&T) -> Outcome);

/// Runs the tests whose names contain a word of the command line, or all; `false` when one failed.
pub fn run<T>(context: &T, tests: &[Test<T>]) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<_> = tests
        .iter()
        .filter(|(name, _)| words.is_empty() || words.iter().any(|w| name.contains(w.as_str())))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failures = Vec::new();
    for (name, test) in &chosen {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| test(context)))
            .unwrap_or_else(|_| Err(Failure("it panicked".into())));
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
    let (failed, passed) = (failures.len(), chosen.len() - failures.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    failed == 0
}
