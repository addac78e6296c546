//! Whether a source is in a test binary at all: a module, of a module, of a crate of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item};

use crate::Outcome;

/// Modules that a crate begins with.
const ROOTS: [&str; 2] = ["lib", "main"];

/// The crates of the workspace.
pub(super) struct Modules {
    members: Vec<PathBuf>,
}

impl Modules {
    /// Reads which crates the workspace below this folder has.
    pub(super) fn of(root: &Path) -> Outcome<Self> {
        let document: DocumentMut = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
        let members = document.get("workspace").and_then(|workspace| workspace.get("members"));
        let members = members.and_then(Item::as_array).into_iter().flatten();
        let members = members.filter_map(|member| Some(root.join(member.as_str()?)));
        Ok(Self { members: members.collect() })
    }

    /// Checks that a source is compiled into the tests of its crate.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn check(&self, source: &Path) -> Result<(), String> {
        let member = source.ancestors().find(|folder| folder.join("Cargo.toml").exists());
        let Some(member) = member.filter(|member| self.members.iter().any(|one| one == member))
        else {
            return Err("it is in no crate of the workspace".to_owned());
        };
        check_below(member, source)
    }
}

fn check_below(member: &Path, source: &Path) -> Result<(), String> {
    let Some((folder, name)) = source.parent().zip(source.file_stem().and_then(|it| it.to_str()))
    else {
        return Err("it has no name".to_owned());
    };
    let at = |path: &str| member.join(path);
    let is_root = ROOTS.contains(&name);
    // `src/lib.rs`, `src/bin/a.rs`, `tests/a.rs`, `tests/a/main.rs`.
    let of_tests = folder == at("tests") || folder == at("src/bin");
    if of_tests || is_root && (folder == at("src") || folder.parent() == Some(&at("tests"))) {
        return Ok(());
    }
    // `a/mod.rs` is the module `a` of the folder above, `a/b.rs` the module `b` of `a`.
    let (module, within) = match (name, folder.parent().zip(folder.file_name())) {
        ("mod", Some((above, folder))) => (folder.to_str().unwrap_or_default(), above),
        _ => (name, folder),
    };
    let beside = ["mod", "lib", "main"].map(|name| within.join(name).with_extension("rs"));
    let parents = beside.into_iter().chain([within.with_extension("rs")]);
    for parent in parents.filter(|parent| parent.as_path() != source) {
        if fs::read_to_string(&parent).is_ok_and(|text| declares(&text, module)) {
            return check_below(member, &parent);
        }
    }
    Err(format!("no module that is compiled whenever there are tests has `mod {module};`"))
}

/// Returns whether a source has this module whenever tests are compiled.
fn declares(text: &str, module: &str) -> bool {
    let mut conditions = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            conditions.push(line);
            continue;
        }
        let words = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
        let is_it = words.is_some_and(|(visible, name)| {
            name == module && (visible.is_empty() || visible.starts_with("pub"))
        });
        if is_it {
            return conditions.iter().all(|condition| holds_in_tests(condition));
        }
        conditions.clear();
    }
    false
}

/// Returns whether an attribute lets a module be there in every build of tests.
fn holds_in_tests(attribute: &str) -> bool {
    match attribute.strip_prefix("#[cfg(") {
        Some(condition) => condition == "test)]" || condition.starts_with("any(test,"),
        None => !attribute.starts_with("#[cfg_attr("),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says by panicking what it did not expect")]
mod tests {
    use super::*;

    #[test]
    fn a_source_shows_something_only_as_a_module_of_a_module_of_a_crate_that_is_tested() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (path, text) in [
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
            ("a/Cargo.toml", ""),
            (
                "a/src/lib.rs",
                "pub mod b;\nmod gone {}\n#[cfg(feature = \"x\")]\nmod odd;\n// mod idle;\n",
            ),
            ("a/src/b.rs", "#[cfg(test)]\nmod tests;\n"),
            ("a/src/b/tests.rs", "mod deep;\n"),
            ("a/src/b/tests/deep.rs", ""),
            ("a/src/odd/mod.rs", "mod within;\n"),
            ("a/src/odd/within.rs", ""),
            ("a/src/idle.rs", ""),
            ("a/tests/whole.rs", ""),
            ("a/tests/parts/main.rs", "mod part;\n"),
            ("a/tests/parts/part.rs", ""),
            ("a/tests/parts/left.rs", ""),
            ("out/Cargo.toml", ""),
            ("out/src/lib.rs", ""),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let modules = Modules::of(root).unwrap();
        let is_compiled = |path: &str| modules.check(&root.join(path)).is_ok();
        for path in [
            "a/src/lib.rs",
            "a/src/b.rs",
            "a/src/b/tests.rs",
            "a/src/b/tests/deep.rs",
            "a/tests/whole.rs",
            "a/tests/parts/main.rs",
            "a/tests/parts/part.rs",
        ] {
            assert!(is_compiled(path), "{path}");
        }
        for path in [
            "a/src/odd/mod.rs",
            "a/src/odd/within.rs",
            "a/src/idle.rs",
            "a/tests/parts/left.rs",
            "out/src/lib.rs",
        ] {
            assert!(!is_compiled(path), "{path}");
        }
    }
}
