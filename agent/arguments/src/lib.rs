//! The command line of `bulkhead-agent`: what it runs, and what it does instead. Its manual page is made of it. What `bulkhead` hands on to it, that
//! program takes by the same types.
//!
//! [`Arguments`] are the program's, of which `scripts/package` makes its manual page; [`AgentCommand`] is what it does in place of running domains. [`PathArguments`] and
//! [`Files`] are shared: each file or folder that may be named has its default of `base::defaults`, so that agent, command line and `doctor` look in one
//! place. `clap` ends a command line that makes no sense with status 2 and what would; nothing was begun then.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

use std::path::PathBuf;

use base::defaults;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

/// Run this PC's domains, each in a VMM of its own, and mediate between them as the policy says.
/// Runs in the foreground and logs to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead-agent",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGTERM, SIGINT or SIGHUP asks every guest to shut down, gives the devices back and ends; a second one does not wait for the guests. SIGUSR1 ends the agent alone: the guests run on, and the next agent takes them up.\n\nExit status: 0 stopped, everything put back, or the guests left running as asked; 1 it could not run, or not everything was put back (the message says what to do); 2 bad usage."
)]
pub struct Arguments {
    /// Something else than that.
    #[command(subcommand)]
    pub instead: Option<AgentCommand>,
    #[command(flatten)]
    pub places: PathArguments,
    /// How much to say on standard error; the VMMs say as much
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub log_level: Level,
}

/// What is done instead of running domains.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Examine this PC and print what is found as JSON: what `bulkhead doctor` shows
    Doctor(DoctorArguments),
    /// Set this PC up, or take that back: what `bulkhead setup` starts. Asks on standard error, and prints what was done as JSON
    Setup(SetupArguments),
    /// Prepare this PC for its domains early at a boot, as `bulkhead-claim.service` does: say what the host's services keep off, and
    /// reserve NICs that have no driver yet for vfio-pci
    ///
    /// Besides SAID it writes /run/udev/rules.d/72-bulkhead-nics.rules and /run/systemd/network/00-bulkhead-nics.network, by which
    /// NetworkManager and systemd-networkd leave the domains' NICs alone, and the `driver_override` of those NICs in sysfs. A boot undoes
    /// all of it. Not to be tried on a PC that is in use
    Claim(ClaimArguments),
}

/// What is read, and where it is written.
#[derive(Debug, clap::Args)]
pub struct ClaimArguments {
    /// Where what the host's services keep off is said
    pub said: PathBuf,
    /// The machine file
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    pub machine: PathBuf,
    /// Where relative images lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    pub images: PathBuf,
}

/// What is examined, and whether it is mended.
#[derive(Debug, clap::Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    pub places: PathArguments,
    /// Mend what can be mended without a decision or a restart, and examine again
    #[arg(long)]
    pub fix: bool,
}

/// How this PC is set up. `bulkhead setup` takes the same, and hands it on.
#[derive(Debug, clap::Args)]
pub struct SetupArguments {
    /// The answer file: what would be asked otherwise
    #[arg(long, value_name = "FILE", conflicts_with = "undo")]
    pub answers: Option<PathBuf>,
    /// Show every change, and make none
    #[arg(long)]
    pub dry_run: bool,
    /// Make the changes without asking whether to
    #[arg(long)]
    pub yes: bool,
    /// Take back everything that setup changed, also after a crash half-way
    #[arg(long)]
    pub undo: bool,
    /// Move state and images onto this block device, encrypted (LUKS2), opened by the TPM where there is one
    #[arg(long, value_name = "VOLUME", conflicts_with = "undo")]
    pub encrypt_state: Option<PathBuf>,
    /// The same block device once more, if what is on it may be lost
    #[arg(long, value_name = "VOLUME", requires = "encrypt_state")]
    pub erase: Option<PathBuf>,
    #[command(flatten)]
    pub files: Files,
}

/// Where everything is that a PC is run by.
#[derive(Debug, clap::Args)]
pub struct PathArguments {
    #[command(flatten)]
    pub files: Files,
    /// Sockets, and what does not outlive a restart of the PC
    #[arg(long, value_name = "DIR", default_value_os = defaults::runtime().as_os_str())]
    pub runtime: PathBuf,
    /// The VMM [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub vmm: Option<PathBuf>,
}

/// The files and directories of a PC that both programs can be given others of.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// The machine file, which says which hardware this PC has; setup writes it
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    pub machine: PathBuf,
    /// The policy, which says which domains there are and what may cross between them
    #[arg(long, value_name = "FILE", default_value_os = defaults::policy().as_os_str())]
    pub policy: PathBuf,
    /// Where relative kernels, initrds and disks lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    pub images: PathBuf,
    /// The agent's state directory, which outlives a restart of the PC: the audit log is in it, and what setup changed
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    pub state: PathBuf,
}

impl Files {
    /// Returns each with its option, for another program's command line.
    #[must_use]
    pub fn options(&self) -> [(&'static str, Option<&PathBuf>); 4] {
        let Self { machine, policy, images, state } = self;
        [
            ("--machine", Some(machine)),
            ("--policy", Some(policy)),
            ("--images", Some(images)),
            ("--state", Some(state)),
        ]
    }
}

/// How much is said.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Level {
    /// Errors alone.
    Error,
    /// Errors, and what somebody should look at.
    Warn,
    /// Errors, warnings, and what happens.
    Info,
    /// All of that, and how it happens.
    Debug,
    /// All that there is: for developers.
    Trace,
}

impl Level {
    /// Returns the filter that writes this much of the log.
    #[must_use]
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// Returns the word for it on a command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Returns the command line's definition, from which its manual pages are made.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}
