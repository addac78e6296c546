//! `bulkhead`: the command line of a ward PC.
//!
//! ```text
//!  status, start, usb, ... --> control::client --> the agent's control socket
//!  policy check, trust show, ... --> policy    (no agent needed)
//!  audit show, verify, ... --> audit           (no agent needed)
//!  images pack, install, ...  --> images      (no agent needed)
//!  program pack, install, ... --> program     (no agent needed)
//!  doctor, setup           --> bulkhead-agent doctor, bulkhead-agent setup: programs that examine and change this PC (no agent needed)
//!                  |
//!                  +--> answer: text for people, or one JSON object (`--json`), and the exit status
//! ```
//!
//! Exit status: 0 yes or done; 1 the answer is no, or the thing is invalid; 2 bad usage, or no agent, or no program that examines this PC. See
//! [`answer`].
//!
//! Every command has `--json`, whose object has `ok` and `error` beside the command's own keys. What comes from elsewhere (names of devices, lines of a log,
//! texts of files) passes through the crate `printable` before it reaches a terminal.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

mod answer;
mod audit;
mod bundles;
mod clipboard;
mod doctor;
mod domains;
mod examiner;
mod explain;
mod images;
mod in_force;
mod page;
mod passphrase;
mod pc_trust;
mod plain;
mod policy;
mod program;
mod progress;
mod replay;
mod setup;
mod signing;
mod status;
mod trust;
mod unechoed;
mod usb;
mod values;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::policy::diagnostic::without_secrets;
use arguments::SetupArguments;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use printable::StyledPage;

use answer::{Failure, Outcome};

use base::defaults;
use base::terminal::colours;
use control::client::ask;
use control::commands::{Request, about};
use control::protocol::Answer;
use printable::explain;

/// What a person new to it wants first.
const AFTER_HELP: &str = "\
Examples:
  bulkhead doctor                              is this PC fit? each finding with its remedy
  bulkhead status                              what runs, and what is wrong
  bulkhead switch internet                     bring a domain to the front
  bulkhead restart clinical                    shut a domain down and run it again
  bulkhead renew internet                      throw away what a desktop wrote that keeps nothing
  bulkhead usb list                            which devices are there, who has them, and why
  bulkhead break-glass --reason 'system down'  what the policy keeps for emergencies
  bulkhead policy new policy.toml              a policy to start from
  bulkhead policy check policy.toml            is it fit to be signed?
  bulkhead images list                         which guest images are installed, and in force
  bulkhead audit show                          what happened
  bulkhead help policy                         more on a command

Exit status: 0 yes or done; 1 the answer is no, or something is invalid; 2 bad usage, or no agent is running.";

/// See and steer the domains of this PC.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    after_help = AFTER_HELP
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print JSON for scripts; each answer has "ok", whether the exit status is 0, and "error", why it is not, or null
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// The agent's runtime directory
    #[arg(long, global = true, display_order = 900, value_name = "DIR", env = "BULKHEAD_RUNTIME", default_value_os = defaults::runtime().as_os_str())]
    runtime: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = about("status"))]
    Status(status::StatusArgs),
    #[command(about = about("start"))]
    Start {
        /// The domain's name, as in the machine file
        domain: String,
    },
    #[command(about = about("stop"))]
    Stop {
        /// The domain's name, as in the machine file
        domain: String,
        /// Switch it off without asking its guest
        #[arg(long)]
        now: bool,
    },
    #[command(about = about("restart"))]
    Restart {
        /// The domain's name, as in the machine file
        domain: String,
    },
    #[command(about = about("renew"))]
    Renew {
        /// The domain's name, as in the machine file
        domain: String,
    },
    #[command(about = about("reset"))]
    Reset {
        /// The domain's name, as in the machine file
        domain: String,
    },
    #[command(flatten)]
    Plain(plain::Plain),
    /// Copy and paste between domains where there is no seat
    #[command(subcommand)]
    Clipboard(clipboard::ClipboardCommand),
    /// See USB devices, and attach or detach them by hand
    #[command(subcommand)]
    Usb(usb::UsbCommand),
    #[command(about = about("break-glass"))]
    BreakGlass(usb::BreakGlassArgs),
    /// Check, explain and compare separation policies; needs no agent
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Say who may sign policies, guest images, Bulkhead's package and the trust store itself, and how many must; needs no agent
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Make, sign, install and activate guest images; needs no agent that runs
    #[command(subcommand)]
    Images(images::ImagesCommand),
    /// Update Bulkhead itself by a signed bundle, go back, and make and sign such bundles; needs no agent that runs
    #[command(subcommand)]
    Program(program::ProgramCommand),
    /// Look into the audit log: is it whole, what is in it, for the monitoring centre; needs no agent
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Examine this PC's fitness, each finding with its remedy; needs no agent
    Doctor(doctor::DoctorArgs),
    /// Set this PC up: propose its machine file, show every change, make it once you agree, and take it back with --undo; needs no agent that runs
    #[command(after_help = setup::AFTER_HELP)]
    Setup(SetupArguments),
}

/// Returns the command line's definition, from which manual pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().len() <= 1 {
        // Nothing was asked for: what can be, with examples, rather than a line that says so.
        complain(&Cli::command().render_help().to_string());
        return ExitCode::from(2);
    }
    let Cli { common, command } = match Cli::try_parse() {
        Ok(understood) => understood,
        Err(error) => return answer::misunderstood(&error),
    };
    let outcome = match &command {
        Command::Status(args) => status::run(&common, args),
        Command::Start { domain } => domains::start(&common, domain),
        Command::Stop { domain, now } => domains::stop(&common, domain, *now),
        Command::Restart { domain } => domains::restart(&common, domain),
        Command::Renew { domain } => domains::renew(&common, domain),
        Command::Reset { domain } => domains::reset(&common, domain),
        Command::Plain(command) => plain::run(&common, command),
        Command::Clipboard(command) => clipboard::run(&common, command),
        Command::Usb(command) => usb::run(&common, command),
        Command::BreakGlass(args) => usb::break_glass(&common, args),
        Command::Policy(command) => policy::run(&common, command),
        Command::Trust(command) => trust::run(&common, command),
        Command::Images(command) => images::run(&common, command),
        Command::Program(command) => program::run(&common, command),
        Command::Audit(command) => audit::run(&common, command),
        Command::Doctor(args) => doctor::run(&common, args),
        Command::Setup(args) => setup::run(&common, args),
    };
    outcome.into()
}

impl Common {
    /// Asks the agent; says why not if it refuses or is not there.
    fn ask(&self, request: &Request) -> Result<Answer, Outcome> {
        match ask(&self.runtime, request) {
            Ok(answer) if answer.ok => Ok(answer),
            Ok(answer) => {
                let refusal = answer.error.unwrap_or_else(|| "it gave no reason".to_owned());
                Err(self.fail(Failure::No, &refusal))
            }
            Err(error) => Err(self.fail(Failure::NoAgent, &explain(&error))),
        }
    }
}

/// Prints to standard output.
fn print(text: &str) {
    write(io::stdout(), &printable::page(text));
}

/// Prints to standard output, in colours of our own.
fn print_styled(page: &StyledPage) {
    write(io::stdout(), page);
}

/// Prints to standard error.
fn complain(text: &str) {
    write(io::stderr(), &printable::page(text));
}

/// Prints to standard error, in colours of our own.
fn complain_styled(page: &StyledPage) {
    write(io::stderr(), page);
}

/// Writes what was made fit to be shown, without an officer's secret key that somebody named or pasted where it does not belong; a reader
/// that went away is no error.
fn write(mut to: impl Write, text: &str) {
    let _ = to.write_all(without_secrets(text).as_bytes()).and_then(|()| to.flush());
}

/// Waits, and returns whether anybody still reads standard output.
fn pause(time: Duration) -> bool {
    let out = io::stdout();
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    // Interrupted, it was a short one.
    !matches!(poll(&mut fds, time), Ok(1))
}

/// Returns a time for people: `3 min 12 s`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every command that does something, by its words.
    fn leaves(command: &clap::Command, words: &[String]) -> Vec<(Vec<String>, clap::Command)> {
        let below = command.get_subcommands().map(|sub| {
            let words = [words, &[sub.get_name().to_owned()]].concat();
            leaves(sub, &words)
        });
        let below: Vec<_> = below.flatten().collect();
        if below.is_empty() { vec![(words.to_vec(), command.clone())] } else { below }
    }

    #[test]
    fn every_option_that_takes_a_value_says_in_words_what_it_takes() {
        let mut tried = 0;
        for (words, command) in leaves(&Cli::command(), &["bulkhead".to_owned()]) {
            let options =
                command.get_arguments().filter(|option| option.get_action().takes_values());
            for option in options.filter_map(clap::Arg::get_long) {
                for wrong in ["x", "-1", "99999999999999999999", ""] {
                    let argv = words.iter().cloned().chain([format!("--{option}={wrong}")]);
                    let Err(error) = Cli::try_parse_from(argv) else { continue };
                    let error = error.to_string();
                    for bare in
                        ["invalid digit", "too large to fit", "from empty string", "is not in"]
                    {
                        assert!(!error.contains(bare), "{words:?} --{option}={wrong}: {error}");
                    }
                    tried += 1;
                }
            }
        }
        assert!(tried > 40, "{tried}");
    }

    #[test]
    fn break_glass_takes_a_reason_or_its_end_and_not_both() {
        for (words, is_understood) in [
            ("break-glass --reason fire", true),
            ("break-glass --end", true),
            ("break-glass", false),
            ("break-glass --end --reason fire", false),
        ] {
            let argv = std::iter::once("bulkhead").chain(words.split(' '));
            assert_eq!(Cli::try_parse_from(argv).is_ok(), is_understood, "{words}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_refused_with_its_range_and_an_example() {
        for (option, says) in [
            ("status --watch=x", "write one from 1 to 3600, such as 2"),
            ("status --watch=0", "write one from 1 to 3600, such as 2"),
            (
                "policy keygen k --name a --passphrase-fd=x",
                "write one from 0 to 2147483647, such as 3",
            ),
            (
                "policy passphrase k --new-passphrase-fd=-1",
                "write one from 0 to 2147483647, such as 3",
            ),
        ] {
            let argv = std::iter::once("bulkhead").chain(option.split(' '));
            let error = Cli::try_parse_from(argv).unwrap_err().to_string();
            assert!(error.contains(says), "{option}: {error}");
        }
    }
}
