//! Programs of the distribution, as an administrator runs them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Where the distribution's programs for an administrator are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Which variables of the caller's a program gets.
const LANGUAGE: [&str; 2] = ["LANG", "LANGUAGE"];
/// Characters of what a program said that are quoted.
const SAID_MAX: usize = 300;

/// Runs a program of the distribution and waits for its end.
///
/// # Errors
/// It is not there, or says that it failed; the error quotes the last line of what it said.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let words = || format!("`{program} {}`", arguments.join(" "));
    // By it update-grub chooses the boot menu's language; messages are in English all the same.
    let language = LANGUAGE.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(language)
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        // Ctrl+C is for whoever started it: a boot menu is made to its end.
        .process_group(0)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", words())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    let last = printable::line(last.trim()).up_to(SAID_MAX);
    Err(io::Error::other(format!("{} failed ({}): {last}", words(), output.status)))
}
