//! `bulkhead program`: bundles of Bulkhead's own package are made, signed and installed. The work is the crate `program`'s.

mod office;
mod pc;

use std::path::{Path, PathBuf};

use ::program::manifest::{Head, Manifest};
use clap::{Args, Subcommand};
use policy::signature::Purpose;
use printable::explain;
use serde_json::{Value, json};

use super::bundles::{self, BundleWording, CheckArgs, SignArgs};
use super::{Common, Failure, Outcome, passphrase};
use crate::images::serial;
use crate::progress::size;

/// What to do with updates of Bulkhead itself.
#[derive(Debug, Subcommand)]
pub(super) enum ProgramCommand {
    /// Make a bundle of Bulkhead's Debian package, and sign it; needs no ward PC
    Pack(PackArgs),
    /// Show what a bundle says of itself, read it to its end, and add an officer's signature to it; needs no ward PC
    Sign(SignArgs),
    /// Show what a bundle says of itself, signed or not, and read it to its end: is it whole, and have enough trusted officers signed it? Installs nothing; needs no ward PC
    Check(CheckArgs),
    /// Keep a bundle once it is found signed, and have its package installed under running desktops; it goes back by itself if its agent does not work
    Install {
        /// The program bundle's file
        file: PathBuf,
        /// Install it with the next start of the agent, as at a boot
        #[arg(long)]
        later: bool,
        /// Install it though there is nothing to go back to
        #[arg(long)]
        no_way_back: bool,
        #[command(flatten)]
        pc: pc::Pc,
    },
    /// Show what is installed, by which bundle, what was before, and what is under way
    Status {
        #[command(flatten)]
        pc: pc::Pc,
    },
    /// Install the version before again, unless it is below the floor
    Rollback {
        #[command(flatten)]
        pc: pc::Pc,
    },
    /// Call off the update that waits: only while nothing of it was begun
    Cancel {
        #[command(flatten)]
        pc: pc::Pc,
    },
    /// Install what waits, or go on with what was interrupted: what bulkhead-update.service runs
    Apply {
        #[command(flatten)]
        pc: pc::Pc,
    },
}

/// What a bundle is made of.
#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// The bundle that is made, in the place of one that is there and not signed
    file: PathBuf,
    /// The package, bulkhead_VERSION_amd64.deb; its version is read from it
    #[arg(long, value_name = "DEB")]
    package: PathBuf,
    /// Its serial, higher than that of the bundle before: the minute in which it was made, as in 202611290900
    #[arg(long, value_name = "N", value_parser = serial)]
    serial: u64,
    /// The lowest serial that may come onto a PC once this bundle is installed there; also for going back
    #[arg(long, value_name = "N", value_parser = serial, default_value = "1")]
    floor: u64,
    /// The officer's secret key; without one the bundle is signed later, by `bulkhead program sign`
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: passphrase::Source,
}

pub(super) fn run(common: &Common, command: &ProgramCommand) -> Outcome {
    let written = match command {
        ProgramCommand::Install { pc, .. }
        | ProgramCommand::Rollback { pc }
        | ProgramCommand::Cancel { pc }
        | ProgramCommand::Apply { pc } => Some(pc),
        _ => None,
    };
    if let Some(Err(away)) = written.map(pc::Pc::state_is_there) {
        return common.fail(Failure::No, &explain(&away));
    }
    match command {
        ProgramCommand::Pack(args) => office::pack(common, args),
        ProgramCommand::Sign(args) => bundles::sign::<Manifest>(common, args),
        ProgramCommand::Check(args) => bundles::check::<Manifest>(common, args),
        ProgramCommand::Install { file, later, no_way_back, pc } => {
            pc::install(common, pc, file, *later, *no_way_back)
        }
        ProgramCommand::Status { pc } => pc::status(common, pc),
        ProgramCommand::Rollback { pc } => pc::roll_back(common, pc),
        ProgramCommand::Cancel { pc } => pc::cancel(common, pc),
        ProgramCommand::Apply { pc } => pc::apply(common, pc),
    }
}

impl BundleWording for Manifest {
    const COMMAND: &'static str = "program";
    const PURPOSE: Purpose = Purpose::Program;
    const FOLLOWING: (&'static str, &'static str) = ("bundle", "bundles");

    fn described(&self) -> String {
        let Self { serial, floor, version, architecture, package } = self;
        format!(
            "program bulkhead {version} ({architecture}), serial {serial}, floor {floor}: {}",
            size(package.size)
        )
    }

    fn shown(head: &Head) -> String {
        format!(
            "{}\npackage: SHA-256 {}\nmanifest: SHA-256 {}\n",
            head.manifest.described(),
            head.manifest.package.sha256,
            head.digest()
        )
    }

    fn report(head: &Head) -> Value {
        let manifest = &head.manifest;
        json!({
            "serial": manifest.serial, "floor": manifest.floor, "version": manifest.version.as_str(), "architecture": manifest.architecture.to_string(),
            "bytes": manifest.package.size, "package": manifest.package.sha256,
        })
    }

    fn threshold_warning(needed: usize, trust: &Path) -> Option<String> {
        (needed == 1).then(|| {
            format!(
                "by {} one officer alone can bring any program onto the PCs: `bulkhead trust threshold {0} program=2`",
                trust.display()
            )
        })
    }
}
