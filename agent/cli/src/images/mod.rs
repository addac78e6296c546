//! `bulkhead images`: bundles of guest images are made and signed, and installed on a PC. The work is the crate `images`'s.

mod installed;
mod office;
mod store;

use std::path::{Path, PathBuf};

use ::images::bundle::Head;
use ::images::digest::Digest;
use ::images::manifest::{HEALTH, ImageName, Manifest, Part, Version};
use base::{defaults, state_volume};
use clap::{Args, Subcommand};
use policy::signature::Purpose;
use printable::explain;
use serde_json::{Value, json};
use vmm_control::MemorySize;

use super::bundles::{self, BundleWording, CheckArgs, SignArgs};
use super::progress::size;
use super::{Common, Failure, Outcome, passphrase};

/// What to do with guest images.
#[derive(Debug, Subcommand)]
pub(super) enum ImagesCommand {
    /// Make a bundle of a guest's files, and sign it; needs no ward PC
    Pack(PackArgs),
    /// Show what a bundle says of itself, read it to its end, and add an officer's signature to it; needs no ward PC
    Sign(SignArgs),
    /// Show what a bundle says of itself, signed or not, and read it to its end: is it whole, and have enough trusted officers signed it? Installs nothing; needs no ward PC
    Check(CheckArgs),
    /// Copy a bundle into this PC's store once it is found signed; it comes into force by `activate`, and an interrupted installation is gone on with
    Install {
        /// The image bundle's file
        file: PathBuf,
        #[command(flatten)]
        pc: Pc,
    },
    /// Show what is installed, what is in force, and who signed it
    List {
        #[command(flatten)]
        pc: Pc,
    },
    /// Read what is installed to its end: is it what was signed, and are its signatures enough?
    Verify {
        /// The image; all of them when left out
        name: Option<ImageName>,
        #[command(flatten)]
        pc: Pc,
    },
    /// Let an installed image come into force at the next start of its domains
    Activate {
        /// The image's name, as in `images list`
        name: ImageName,
        /// Its serial; the newest when left out
        #[arg(value_parser = serial)]
        serial: Option<u64>,
        #[command(flatten)]
        pc: Pc,
    },
    /// Take back an activation: the image that was in force before comes into force at the next start, unless it is below the floor; without one before it none
    Rollback {
        /// The image's name, as in `images list`
        name: ImageName,
        #[command(flatten)]
        pc: Pc,
    },
    /// Remove an image that is neither in force nor used by a domain; one that is not the newest cannot be installed again, and without the one before nothing can be rolled back
    Remove {
        /// The image's name, as in `images list`
        name: ImageName,
        /// The serial of the version
        #[arg(value_parser = serial)]
        serial: u64,
        #[command(flatten)]
        pc: Pc,
    },
}

/// Names the store of images that a command works on.
#[derive(Debug, Args)]
pub(super) struct Pc {
    /// Where the images are
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    images: PathBuf,
    /// The machine file; the trust store is beside it
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// The agent's state directory, where a trust store is remembered
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
}

/// What a bundle is made of.
#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// The bundle that is made, in the place of one that is there and not signed
    file: PathBuf,
    /// What machine.toml calls the image
    #[arg(long)]
    name: ImageName,
    /// Its serial, higher than that of the bundle before: the minute in which it was built, as in 202611290900
    #[arg(long, value_name = "N", value_parser = serial)]
    serial: u64,
    /// The lowest serial that may come into force once this bundle is installed
    #[arg(long, value_name = "N", value_parser = serial, default_value = "1")]
    floor: u64,
    /// The guest's kernel: a bzImage (vmlinuz), or a PVH ELF file (vmlinux)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A raw disk that it may only read; may be given again, in the order in which the guest sees them
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// The kernel command line
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "cmdline_file")]
    cmdline: String,
    /// Read it from the first line of FILE
    #[arg(long, value_name = "FILE")]
    cmdline_file: Option<PathBuf>,
    /// The root hash that the command line gives as `verity.hash=`, by which the guest checks its first disk; the PC reads what no root hash covers at each start, at most 4 GiB
    #[arg(long, value_name = "HASH")]
    verity: Option<Digest>,
    /// In how many seconds after its start the guest writes `up` to its port org.bulkhead.health; a new image whose guest does not goes back by
    /// itself to the one before
    #[arg(long, value_name = "SECONDS", value_parser = health)]
    health: Option<u16>,
    /// The oldest version of Bulkhead that can run it
    #[arg(long, value_name = "VERSION")]
    needs_bulkhead: Option<Version>,
    /// The least memory that a domain with it must have
    #[arg(long, value_name = "SIZE")]
    needs_memory: Option<MemorySize>,
    /// The officer's secret key; without one the bundle is signed later, by `bulkhead images sign`
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: passphrase::Source,
}

impl PackArgs {
    /// Returns its files, in the order of the bundle.
    fn files(&self) -> Vec<(Part, PathBuf)> {
        let kernel = [(Part::Kernel, self.kernel.clone())];
        let initrd = self.initrd.iter().map(|path| (Part::Initrd, path.clone()));
        let disks =
            (1_u8..).zip(&self.disk).map(|(number, path)| (Part::Disk(number), path.clone()));
        kernel.into_iter().chain(initrd).chain(disks).collect()
    }
}

/// Reads a serial.
pub(crate) fn serial(text: &str) -> Result<u64, notation::Mistake> {
    notation::whole(text, 1..=policy::SERIAL_MAX, 7)
}

/// Reads in how many seconds a guest is up.
fn health(text: &str) -> Result<u16, notation::Mistake> {
    notation::whole(text, HEALTH, 180)
}

pub(super) fn run(common: &Common, command: &ImagesCommand) -> Outcome {
    let written = match command {
        ImagesCommand::Install { pc, .. }
        | ImagesCommand::Activate { pc, .. }
        | ImagesCommand::Rollback { pc, .. }
        | ImagesCommand::Remove { pc, .. } => Some(pc),
        _ => None,
    };
    if let Some(Err(away)) = written.map(|pc| state_volume::is_there(&pc.state)) {
        return common.fail(Failure::No, &explain(&away));
    }
    match command {
        ImagesCommand::Pack(args) => office::pack(common, args),
        ImagesCommand::Sign(args) => bundles::sign::<Manifest>(common, args),
        ImagesCommand::Check(args) => bundles::check::<Manifest>(common, args),
        ImagesCommand::Install { file, pc } => store::install(common, pc, file),
        ImagesCommand::List { pc } => installed::list(common, pc),
        ImagesCommand::Verify { name, pc } => installed::verify(common, pc, name.as_ref()),
        ImagesCommand::Activate { name, serial, pc } => store::activate(common, pc, name, *serial),
        ImagesCommand::Rollback { name, pc } => store::roll_back(common, pc, name),
        ImagesCommand::Remove { name, serial, pc } => store::remove(common, pc, name, *serial),
    }
}

impl BundleWording for Manifest {
    const COMMAND: &'static str = "images";
    const PURPOSE: Purpose = Purpose::Image;
    const FOLLOWING: (&'static str, &'static str) = ("bundle of this name", "bundles of this name");

    fn described(&self) -> String {
        let Self { name, serial, floor, members, .. } = self;
        let parts: Vec<String> = members.iter().map(|member| member.part.to_string()).collect();
        format!(
            "image {name}, serial {serial}, floor {floor}: {}, {}",
            parts.join(", "),
            size(self.total())
        )
    }

    fn shown(head: &Head) -> String {
        let Self { cmdline, verity, needs, members, .. } = &head.manifest;
        let hashed = members.iter().filter(|it| {
            matches!(it.part, Part::Disk(_)) && !head.manifest.is_checked_by_guest(it.part)
        });
        let hashed: Vec<String> = hashed.map(|member| member.part.to_string()).collect();
        let covered = match verity {
            Some(root) => format!("{root}, by which the guest checks disk1"),
            None => "none".to_owned(),
        };
        let at_start = match hashed.as_slice() {
            [] => String::new(),
            disks => format!("; each start reads {} whole", disks.join(", ")),
        };
        let health =
            head.manifest.health.map(|seconds| format!("a guest that is up in {seconds} s"));
        let needs = [
            needs.bulkhead.map(|version| format!("Bulkhead {version}")),
            needs.memory.map(|size| format!("a memory of {size}")),
            health,
        ];
        let needs: Vec<String> = needs.into_iter().flatten().collect();
        let needs = if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") };
        format!(
            "{}\ncommand line: {cmdline}\nroot hash: {covered}{at_start}\nneeds: {needs}\nmanifest: SHA-256 {}\n",
            head.manifest.described(),
            head.digest()
        )
    }

    fn report(head: &Head) -> Value {
        let manifest = &head.manifest;
        json!({
            "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "bytes": manifest.total(),
            "cmdline": manifest.cmdline, "verity": manifest.verity, "needs_bulkhead": manifest.needs.bulkhead.map(|it| it.to_string()),
            "needs_memory": manifest.needs.memory.map(|it| it.to_string()), "health": manifest.health,
        })
    }

    /// Returns `None`: what an image can do is what its domain may.
    fn threshold_warning(_: usize, _: &Path) -> Option<String> {
        None
    }
}
