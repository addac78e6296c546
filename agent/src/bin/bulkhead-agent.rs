//! The daemon of a ward PC: see `daemon`.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use base::defaults;
use base::layout::Layout;
use base::secrets::NoDump;
use clap::{Parser, Subcommand, ValueEnum};
use daemon::Options;
use doctor::{Papers, Patient};
use ratelimit::Rate;
use tracing::level_filters::LevelFilter;

const PROGRAM: &str = "bulkhead-agent";
/// Lines from any one place in the code. What a VMM says has a limit of its own for each domain.
const LINES: Rate = Rate { burst: 64, every: Duration::from_secs(1) };

/// Run this PC's domains, each in a VMM of its own, and mediate between them as the policy says.
/// Runs in the foreground and logs to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead-agent",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGTERM, SIGINT or SIGHUP asks every guest to shut down, gives the devices back and ends; a second one does not wait for the guests. SIGUSR1 ends the agent alone: the guests run on, and the next agent takes them up.\n\nExit status: 0 stopped, everything put back, or the guests left running as asked; 1 it could not run, or not everything was put back (the message says what to do); 2 bad usage."
)]
struct Args {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Which hardware this PC has
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// What may cross between domains
    #[arg(long, value_name = "FILE", default_value_os = defaults::policy().as_os_str())]
    policy: PathBuf,
    /// Where relative kernels, initrds and disks lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    images: PathBuf,
    /// What outlives a restart of the PC
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
    /// Sockets, and what does not outlive a restart of the PC
    #[arg(long, value_name = "DIR", default_value_os = defaults::runtime().as_os_str())]
    runtime: PathBuf,
    /// The VMM [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
    /// How much to say on standard error; the VMMs say as much
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    log_level: Level,
}

/// What is done instead of running domains.
#[derive(Debug, Subcommand)]
enum Instead {
    /// Examine this PC and print what is found as JSON: what `bulkhead doctor` shows
    Doctor(DoctorArgs),
}

/// What the doctor looks at.
#[derive(Debug, clap::Args)]
struct DoctorArgs {
    /// The machine file
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// The policy
    #[arg(long, value_name = "FILE", default_value_os = defaults::policy().as_os_str())]
    policy: PathBuf,
    /// Where relative images lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    images: PathBuf,
    /// The agent's state directory, where the audit log is
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
    /// The agent's runtime directory
    #[arg(long, value_name = "DIR", default_value_os = defaults::runtime().as_os_str())]
    runtime: PathBuf,
    /// The VMM [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Instead::Doctor(args)) = args.instead {
        return examine(args);
    }
    logging::install_panic_hook(PROGRAM);
    if logging::init(args.log_level.filter(), LINES).is_err() {
        // There is nobody to tell: standard error is closed.
        return ExitCode::FAILURE;
    }
    // What both desktops show and copy passes through this process, and the log's key is in it.
    if let Err(error) = NoDump::ensure() {
        tracing::warn!("a core dump of this program could hold patients' data: {error}");
    }
    // The VMMs are started in `/`, so what they are handed must be absolute.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let options = Options {
        machine: args.machine,
        policy: args.policy,
        layout: Layout {
            images: absolute(args.images),
            state: absolute(args.state),
            runtime: absolute(args.runtime),
        },
        vmm: args.vmm,
        log_level: args.log_level.word().to_owned(),
    };
    match daemon::run(&options) {
        Ok(()) => {
            logging::farewell("");
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::farewell(daemon::failure(&error, PROGRAM));
            ExitCode::FAILURE
        }
    }
}

/// Prints what the doctor finds.
fn examine(args: DoctorArgs) -> ExitCode {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let papers = Papers {
        machine: args.machine,
        policy: args.policy,
        images: absolute(args.images),
        state: absolute(args.state),
        runtime: args.runtime,
        vmm: args.vmm,
    };
    let findings = doctor::examine(&Patient::this_pc(), &papers);
    let printed = serde_json::to_vec(&findings)
        .map_err(io::Error::other)
        .and_then(|text| io::stdout().write_all(&text));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever asked is gone.
        Err(_) => ExitCode::FAILURE,
    }
}
