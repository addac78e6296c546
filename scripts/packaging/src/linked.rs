//! Which crates are in a program: what `cargo tree` says is linked for the PC's target, with what `cargo metadata` knows of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use toml_edit::DocumentMut;

use crate::{PackagingError, file};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A crate that is linked.
#[derive(Debug, Clone)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its licence, as an SPDX expression.
    pub(crate) licence: String,
    /// Who wrote it, as far as its manifest says.
    pub(crate) authors: Vec<String>,
    /// Where its sources are developed.
    pub(crate) repository: Option<String>,
    /// SHA-256 of what the registry delivered; ours have none.
    pub(crate) checksum: Option<String>,
    /// Whether it is one of ours.
    pub(crate) ours: bool,
    /// Where its sources lie.
    pub(crate) folder: PathBuf,
    /// Crates that it uses and that are linked, by [`Crate::key`].
    pub(crate) uses: BTreeSet<String>,
}

impl Crate {
    /// Returns name and version, by which it is told from every other.
    pub(crate) fn key(&self) -> String {
        key(&self.name, &self.version)
    }
}

/// What is linked into the programs of a package.
#[derive(Debug)]
pub(crate) struct LinkedCrates {
    /// The crates, in the order of their names.
    pub(crate) crates: Vec<Crate>,
    /// Version of the workspace.
    pub(crate) version: String,
    /// What `rustc --version` says: its standard library is linked.
    pub(crate) rustc: String,
}

impl LinkedCrates {
    /// Asks cargo what the crates `of` are made of.
    pub(crate) fn read(root: &Path, of: &[&str]) -> Result<Self, PackagingError> {
        let mut tree =
            cargo(root, &["tree", "--edges", "normal,no-proc-macro", "--target", TARGET]);
        tree.args(["--prefix", "none", "--no-dedupe", "--format", "{p}"]);
        for name in of {
            tree.args(["--package", name]);
        }
        let names: BTreeSet<String> = output(&mut tree)?.lines().filter_map(tree_line).collect();
        let filter = format!("--filter-platform={TARGET}");
        let metadata = output(&mut cargo(root, &["metadata", "--format-version=1", &filter]))?;
        let metadata: Value = serde_json::from_str(&metadata).map_err(|error| {
            PackagingError::Toolchain { command: "cargo metadata".into(), why: error.to_string() }
        })?;
        let checksums = checksums(root)?;
        let uses = uses(&metadata);
        let mut crates = BTreeMap::new();
        for package in list(&metadata, "packages") {
            let found = describe(package, &names, &checksums, &uses)?;
            crates.extend(found.map(|found| (found.key(), found)));
        }
        let missing: Vec<&String> =
            names.iter().filter(|name| !crates.contains_key(*name)).collect();
        if let Some(name) = missing.first() {
            let what = "cargo tree has it and cargo metadata has not: are both of one toolchain?";
            return Err(PackagingError::Crate {
                crate_name: (*name).clone(),
                what: what.to_owned(),
            });
        }
        let version = crates.values().find(|found| found.ours).map(|ours| ours.version.clone());
        let rustc = output(Command::new("rustc").arg("--version"))?.trim().to_owned();
        Ok(Self {
            crates: crates.into_values().collect(),
            version: version.unwrap_or_default(),
            rustc,
        })
    }
}

fn key(name: &str, version: &str) -> String {
    format!("{name} {version}")
}

/// Reads `name v1.2.3 (...)`, as `cargo tree` prints it.
fn tree_line(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    Some(key(name, version))
}

fn describe(
    package: &Value,
    names: &BTreeSet<String>,
    checksums: &BTreeMap<String, String>,
    uses: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Option<Crate>, PackagingError> {
    let (name, version) = (text(package, "name"), text(package, "version"));
    let key = key(name, version);
    if !names.contains(&key) {
        return Ok(None);
    }
    let Some(licence) = package.get("license").and_then(Value::as_str) else {
        let what = "its manifest names no licence: it may not be shipped".to_owned();
        return Err(PackagingError::Crate { crate_name: key, what });
    };
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let used = uses.get(text(package, "id")).into_iter().flatten();
    let authors = list(package, "authors").filter_map(Value::as_str).map(str::to_owned);
    Ok(Some(Crate {
        name: name.to_owned(),
        version: version.to_owned(),
        // The older way to write OR.
        licence: licence.replace('/', " OR "),
        authors: authors.collect(),
        repository: package.get("repository").and_then(Value::as_str).map(str::to_owned),
        checksum: checksums.get(&key).cloned(),
        ours: package.get("source").is_none_or(Value::is_null),
        folder: manifest.parent().unwrap_or(Path::new("")).to_owned(),
        uses: used.filter(|key| names.contains(*key)).cloned().collect(),
    }))
}

/// Returns which crate is used by which, by its id; what only builds or tests is left out.
fn uses(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let keys: BTreeMap<&str, String> = list(metadata, "packages")
        .map(|package| (text(package, "id"), key(text(package, "name"), text(package, "version"))))
        .collect();
    let normal = |dependency: &&Value| {
        list(dependency, "dep_kinds").any(|kind| kind.get("kind").is_none_or(Value::is_null))
    };
    let nodes = metadata.get("resolve").into_iter().flat_map(|resolve| list(resolve, "nodes"));
    nodes
        .map(|node| {
            let used = list(node, "deps").filter(normal);
            let used = used.filter_map(|dependency| keys.get(text(dependency, "pkg")).cloned());
            (text(node, "id").to_owned(), used.collect())
        })
        .collect()
}

/// Returns what `Cargo.lock` says the registry delivered.
fn checksums(root: &Path) -> Result<BTreeMap<String, String>, PackagingError> {
    let path = root.join("Cargo.lock");
    let lock = fs::read_to_string(&path).map_err(|source| file("read", &path, source))?;
    let lock: DocumentMut = lock.parse().map_err(|error: toml_edit::TomlError| {
        PackagingError::Toolchain { command: path.display().to_string(), why: error.to_string() }
    })?;
    let packages = lock.get("package").and_then(|packages| packages.as_array_of_tables());
    let entry = |package: &toml_edit::Table| {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some((key(&text("name")?, &text("version")?), text("checksum")?))
    };
    Ok(packages.into_iter().flatten().filter_map(entry).collect())
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).args(["--locked", "--offline"]).current_dir(root);
    cargo
}

fn output(command: &mut Command) -> Result<String, PackagingError> {
    let name = format!("{command:?}");
    let failed = |why: String| PackagingError::Toolchain { command: name.clone(), why };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(failed(said));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_names_a_crate_and_its_version() {
        assert_eq!(tree_line("nix v0.31.3").as_deref(), Some("nix 0.31.3"));
        assert_eq!(tree_line("agent v0.2.0 (/a/b)").as_deref(), Some("agent 0.2.0"));
        assert_eq!(tree_line(""), None);
    }
}
