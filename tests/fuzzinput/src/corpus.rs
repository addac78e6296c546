//! The inputs that fuzz targets begin with, run by ordinary tests too.
//!
//! `FOLDER/fuzz/corpus/TARGET` holds a few small files for each target in `FOLDER/fuzz/fuzz_targets`. `scripts/fuzz` begins with them. A test of the folder's calls
//! [`run`] with the functions that the targets call, so that an input which breaks one is seen without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A target by its name, and the function that it calls.
pub type Target = (&'static str, fn(&[u8]));

/// How many files a target has: enough to reach different places, few enough to know each.
const FILES: RangeInclusive<usize> = 3..=10;
/// Bytes of a file: the beginning of a bundle, a cursor. All others are much smaller, as a fuzzer finds more with those.
const FILE_MAX: usize = 20 << 10;
/// Bytes of all files of a folder, as they are in the repository.
const FOLDER_MAX: usize = 100 << 10;

/// Runs each file of `fuzz/corpus` through its target's function. Returns how many there are.
///
/// # Errors
/// A target has no function here or no corpus, a function or a corpus no target, or a corpus is not of the size that it should have.
///
/// # Panics
/// A function does; the file is then named on standard error.
pub fn run(fuzz: &Path, targets: &[Target]) -> Result<usize, String> {
    let known: BTreeSet<String> = targets.iter().map(|(name, _)| (*name).to_owned()).collect();
    let sources = names(&fuzz.join("fuzz_targets"))?;
    let built = sources.iter().filter_map(|name| name.strip_suffix(".rs")).map(str::to_owned);
    same("fuzz_targets", &built.collect(), &known)?;
    same("corpus", &names(&fuzz.join("corpus"))?, &known)?;
    let (mut count, mut bytes) = (0, 0);
    for (target, function) in targets {
        let folder = fuzz.join("corpus").join(target);
        let files = names(&folder)?;
        if !FILES.contains(&files.len()) {
            let (least, most) = (FILES.start(), FILES.end());
            return Err(format!("{}: keep {least} to {most} files", folder.display()));
        }
        for file in files {
            let path = folder.join(file);
            let input = fs::read(&path).map_err(|error| named(&path, &error))?;
            if input.len() > FILE_MAX {
                return Err(format!("{}: has more than {FILE_MAX} bytes", path.display()));
            }
            (count, bytes) = (count + 1, bytes + input.len());
            let running = Running(path);
            function(&input);
            drop(running);
        }
    }
    if bytes > FOLDER_MAX {
        return Err(format!("{}: has more than {FOLDER_MAX} bytes", fuzz.join("corpus").display()));
    }
    Ok(count)
}

/// Says which file it was if its function panics.
struct Running(PathBuf);

impl Drop for Running {
    #[allow(clippy::print_stderr, reason = "a test's output is where its reader looks")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {}", self.0.display());
        }
    }
}

fn names(folder: &Path) -> Result<BTreeSet<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| named(folder, &error))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(|error| named(folder, &error))
}

fn named(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn same(what: &str, found: &BTreeSet<String>, known: &BTreeSet<String>) -> Result<(), String> {
    let others: Vec<&str> = found.symmetric_difference(known).map(String::as_str).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(format!("only in {what}, or only in the test: {}", others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &[u8]) {}

    fn picky(input: &[u8]) {
        assert_ne!(input, b"bad");
    }

    /// A folder with a target of this name and a corpus of these files.
    fn folder(target: &str, files: &[&[u8]]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fuzz_targets")).unwrap();
        fs::write(dir.path().join("fuzz_targets").join(format!("{target}.rs")), "").unwrap();
        fs::create_dir_all(dir.path().join("corpus").join(target)).unwrap();
        for (at, file) in files.iter().enumerate() {
            fs::write(dir.path().join(format!("corpus/{target}/{at}")), file).unwrap();
        }
        dir
    }

    #[test]
    fn every_file_of_a_corpus_is_given_to_its_function() {
        let dir = folder("picky", &[b"", b"good", b"better"]);
        assert_eq!(run(dir.path(), &[("picky", picky)]), Ok(3));
    }

    #[test]
    #[should_panic(expected = "left != right")]
    fn a_file_that_breaks_its_function_fails_the_test() {
        let dir = folder("picky", &[b"", b"good", b"bad"]);
        let _ = run(dir.path(), &[("picky", picky)]);
    }

    #[test]
    fn a_target_without_function_corpus_or_source_is_said() {
        let dir = folder("one", &[b"", b"a", b"b"]);
        let found = run(dir.path(), &[]).unwrap_err();
        assert_eq!(found, "only in fuzz_targets, or only in the test: one");
        let found = run(dir.path(), &[("one", nothing), ("two", nothing)]).unwrap_err();
        assert_eq!(found, "only in fuzz_targets, or only in the test: two");
        fs::write(dir.path().join("fuzz_targets/two.rs"), "").unwrap();
        let found = run(dir.path(), &[("one", nothing), ("two", nothing)]).unwrap_err();
        assert_eq!(found, "only in corpus, or only in the test: two");
    }

    #[test]
    fn a_corpus_that_is_too_small_or_too_large_is_said() {
        let few = folder("one", &[b"", b"a"]);
        let found = run(few.path(), &[("one", nothing)]).unwrap_err();
        assert!(found.ends_with("keep 3 to 10 files"), "{found}");
        let large = folder("one", &[b"", b"a", &[0; FILE_MAX + 1]]);
        let found = run(large.path(), &[("one", nothing)]).unwrap_err();
        assert!(found.ends_with("2: has more than 20480 bytes"), "{found}");
    }
}
