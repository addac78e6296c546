//! The daemon of a ward PC: see `daemon`.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arguments::{
    AgentCommand, Arguments, ClaimArguments, DoctorArguments, Files, PathArguments, SetupArguments,
};
use base::layout::Layout;
use base::secrets::NoDump;
use clap::Parser;
use control::findings::Diagnosis;
use control::setup_report::SetupReport;
use daemon::Options;
use doctor::{InputFiles, SystemPaths};
use handover::sysfs::HostSysfs;
use nix::unistd::Uid;
use ratelimit::Rate;
use serde::Serialize;
use setup::dialogue::Terminal;
use setup::effects::ThisPc;
use setup::{Caller, Pc};
use systemd::claim;

const PROGRAM: &str = "bulkhead-agent";
/// Lines from any one place in the code. What a VMM says has a limit of its own for each domain.
const LINES: Rate = Rate { burst: 64, every: Duration::from_secs(1) };

fn main() -> ExitCode {
    let args = Arguments::parse();
    let claims = match args.instead {
        Some(AgentCommand::Doctor(args)) => return examine(args),
        Some(AgentCommand::Setup(args)) => return set_up(args),
        Some(AgentCommand::Claim(args)) => Some(args),
        None => None,
    };
    logging::install_panic_hook(PROGRAM);
    if logging::init(args.log_level.filter(), LINES).is_err() {
        // There is nobody to tell: standard error is closed.
        return ExitCode::FAILURE;
    }
    if let Some(args) = claims {
        return prepare(&args);
    }
    // What both desktops show and copy passes through this process, and the log's key is in it.
    if let Err(error) = NoDump::ensure() {
        tracing::warn!("a core dump of this program could hold patients' data: {error}");
    }
    // The VMMs are started in `/`, so what they are handed must be absolute.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let PathArguments { files: Files { machine, policy, images, state }, runtime, vmm } =
        args.places;
    let options = Options {
        machine,
        policy,
        layout: Layout {
            images: absolute(images),
            state: absolute(state),
            runtime: absolute(runtime),
        },
        vmm,
        log_level: args.log_level.word().to_owned(),
    };
    match daemon::run(&options) {
        Ok(()) => {
            logging::write_last("");
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::write_last(daemon::failure(&error, PROGRAM));
            ExitCode::FAILURE
        }
    }
}

/// Prepares this PC at its boot.
fn prepare(args: &ClaimArguments) -> ExitCode {
    let places = claim::ClaimPaths { markers: &args.said, runtime: Path::new("/run") };
    match claim::run(&args.machine, &args.images, &places, &HostSysfs::system()) {
        Ok(()) => {
            logging::write_last("");
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::write_last(claim::failure(&error, PROGRAM));
            ExitCode::FAILURE
        }
    }
}

/// Examines this PC, and prints what the doctor finds.
fn examine(DoctorArguments { places, fix }: DoctorArguments) -> ExitCode {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let PathArguments { files: Files { machine, policy, images, state }, runtime, vmm } = places;
    let (images, state) = (absolute(images), absolute(state));
    let inputs = InputFiles { machine, policy, images, state, runtime, vmm };
    let examine = || doctor::examine(&SystemPaths::this_pc(), &inputs);
    print(&match fix {
        true => doctor::repair::mend(examine, &mut base::programs::run),
        false => Diagnosis { findings: examine(), repairs: Vec::new() },
    })
}

/// Sets this PC up, and prints what was done.
fn set_up(args: SetupArguments) -> ExitCode {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let options = setup::Options {
        answers: args.answers,
        dry_run: args.dry_run,
        yes: args.yes,
        undo: args.undo,
        encrypt_state: args.encrypt_state,
        erase: args.erase,
        // They are noted for another day, on which it may be started elsewhere.
        machine: absolute(args.files.machine),
        policy: args.files.policy,
        images: absolute(args.files.images),
        state: absolute(args.files.state),
    };
    let ssh_connection = std::env::var("SSH_CONNECTION").ok();
    let caller = Caller { is_root: Uid::effective().is_root(), ssh_connection };
    let report: SetupReport =
        setup::run(&Pc::this_pc(), &caller, &options, &mut Terminal, &mut ThisPc);
    print(&report)
}

/// Prints for the command line, which started this.
fn print(what: &impl Serialize) -> ExitCode {
    let printed = serde_json::to_vec(what)
        .map_err(io::Error::other)
        .and_then(|text| io::stdout().write_all(&text));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever asked is gone.
        Err(_) => ExitCode::FAILURE,
    }
}
