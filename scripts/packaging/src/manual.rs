//! Manual pages and completions, from the command lines' own definitions.

use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::{PackagingError, write};

/// Writes a page for each program and each of its commands: `bulkhead-policy-check.1`.
pub(crate) fn pages(directory: &Path) -> Result<(), PackagingError> {
    for (program, section) in [
        (cli::command(), "1"),
        (arguments::command(), "8"),
        (vmm::cli::command(), "1"),
        (worker(), "8"),
    ] {
        page(&whole(program), section, directory)?;
    }
    Ok(())
}

/// Returns the worker's command line. It is so short that the program itself reads it without clap, which it does not link.
fn worker() -> Command {
    Command::new("bulkhead-worker")
        .about("Decode one picture that is pasted between domains, and end")
        .long_about(
            "Decode one picture that is pasted between domains, and end. bulkhead-agent starts it for each picture, with two files in memory: standard input holds the picture as it was copied, standard output takes it as a PNG with the same pixels and nothing else. It closes its sandbox before it reads its first byte. Nobody else has a use for it.",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(clap::Arg::new("version").long("version").action(clap::ArgAction::Version).help("Print version"))
        .after_help("Exit status: 0 the answer is written; anything else, or a signal, is no answer, and the picture is not pasted.")
}

/// Writes completions of `bulkhead`, which is what a person types, under the names that the shells look for.
pub(crate) fn completions(directory: &Path) -> Result<(), PackagingError> {
    for (shell, name) in
        [(Shell::Bash, "bulkhead"), (Shell::Zsh, "_bulkhead"), (Shell::Fish, "bulkhead.fish")]
    {
        let mut script = Vec::new();
        generate(shell, &mut cli::command(), "bulkhead", &mut script);
        write(&directory.join(name), &script)?;
    }
    Ok(())
}

/// Returns the command line as its user has it: names of commands in full, what every command takes with each.
fn whole(program: Command) -> Command {
    // `help` would be a page that says nothing.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    program
}

fn page(command: &Command, section: &str, directory: &Path) -> Result<(), PackagingError> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let source = concat!("Bulkhead ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).section(section).manual("Bulkhead").source(source).date("");
    let mut text = Vec::new();
    let path = directory.join(format!("{name}.{section}"));
    man.render(&mut text).map_err(|source| crate::file("write", &path, source))?;
    write(&path, &text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, section, directory)?;
    }
    Ok(())
}
