//! What the guest's kernel tells, and the programs beside it.

use std::fs;
use std::process::Command;

/// Returns how many seconds ago the kernel started; 0 if it does not tell.
pub(crate) fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Returns the first line of one of its files; empty without the file.
pub(crate) fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Runs a program that has to succeed.
pub(crate) fn run(argv: &[&str]) -> Result<String, String> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let output = Command::new(program).args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} ended with {}: {said}", argv.join(" "), output.status))
    }
}
