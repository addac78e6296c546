//! `packaging DIR`: writes what `scripts/package` puts into the Debian packages besides the programs, as far as it follows from the sources.
//!
//! | below DIR | what | from |
//! | --- | --- | --- |
//! | `man/bulkhead*.{1,8}` | manual pages, one for each command | the command lines' own definitions (clap) |
//! | `completions/{bulkhead,_bulkhead,bulkhead.fish}` | completions for bash, zsh and fish | the same |
//! | `<package>/third-party-licences.txt` | licence texts of every crate that is linked | `cargo tree`, `cargo metadata`, the crates' sources |
//! | `<package>/sbom.cdx.json` | bill of materials, CycloneDX 1.5 | the same, and `Cargo.lock` |
//!
//! The same sources and the same toolchain give the same bytes, wherever the sources lie. Not shipped itself.
#![forbid(unsafe_code)]

mod bill;
mod licences;
mod linked;
mod manual;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use linked::LinkedCrates;

/// The packages, and of which crates of ours their programs are made.
const PACKAGES: [(&str, &[&str]); 2] =
    [("bulkhead", &["bulkhead-agent", "bulkhead-vmm"]), ("bulkhead-tools", &["bulkhead-cli"])];

/// Writes man pages, completions, licence texts and bills of materials for the Debian packages.
#[derive(Debug, Parser)]
struct Args {
    /// Where to: a folder, made if it is not there
    directory: PathBuf,
    /// The workspace's root folder
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Version of the C library that is linked statically, as dpkg names it
    #[arg(long, value_name = "VERSION")]
    libc: String,
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
enum PackagingError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted with the file, for the message.
        what: &'static str,
        /// The file that it was attempted with.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A program of the toolchain.
    #[error("`{command}` failed: {why}")]
    Toolchain {
        command: String,
        /// What the program wrote to standard error.
        why: String,
    },
    /// A crate is not as a package needs it.
    #[error("{crate_name}: {what}")]
    Crate {
        crate_name: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
}

fn main() -> ExitCode {
    match write_all(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packaging: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(args: &Args) -> Result<(), PackagingError> {
    let directory = &args.directory;
    manual::pages(&folder(&directory.join("man"))?)?;
    manual::completions(&folder(&directory.join("completions"))?)?;
    for (package, crates) in PACKAGES {
        let folder = folder(&directory.join(package))?;
        let linked = LinkedCrates::read(&args.root, crates)?;
        write(&folder.join("third-party-licences.txt"), licences::texts(&linked)?.as_bytes())?;
        let bill = bill::of(package, &linked, &args.libc);
        write(&folder.join("sbom.cdx.json"), format!("{bill:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Makes a folder, and those above it.
fn folder(path: &Path) -> Result<PathBuf, PackagingError> {
    fs::create_dir_all(path).map_err(|source| file("make the folder", path, source))?;
    Ok(path.to_owned())
}

fn write(path: &Path, content: &[u8]) -> Result<(), PackagingError> {
    fs::write(path, content).map_err(|source| file("write", path, source))
}

fn file(what: &'static str, path: &Path, source: io::Error) -> PackagingError {
    PackagingError::File { what, path: path.to_owned(), source }
}
