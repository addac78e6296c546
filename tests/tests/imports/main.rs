//! No module of the workspace imports, through whatever way round, a module that imports it: each can be read after those below it.
//!
//! A folder is one module with what is in it. What a folder's first file (`mod.rs`, or the file of its name) holds belongs to all modules in the
//! folder, which may use it; between modules of one folder, and between what is in them, imports go one way. Counted are `use` declarations and
//! paths in code and in macros, and names that come from importing everything of a module, each
//! followed through re-exports to where a thing is defined. Left out is what is compiled for tests alone.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: it may end on what it cannot read"
)]

mod graph;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the files that crates of a package begin with.
fn roots(package: &Path) -> Vec<PathBuf> {
    let src = package.join("src");
    let mut roots = vec![src.join("lib.rs"), src.join("main.rs")];
    for entry in fs::read_dir(src.join("bin")).into_iter().flatten().flatten() {
        let path = entry.path();
        roots.push(if path.is_dir() { path.join("main.rs") } else { path });
    }
    roots.retain(|root| root.is_file());
    roots.sort();
    roots
}

/// Returns the folders of the workspace's packages.
fn packages(workspace: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(workspace.join("Cargo.toml")).expect("the workspace's manifest");
    let manifest: toml_edit::DocumentMut = text.parse().expect("a manifest is TOML");
    let members = manifest.get("workspace").and_then(|table| table.get("members"));
    let members = members.and_then(|members| members.as_array()).expect("the workspace's members");
    members.iter().filter_map(|member| Some(workspace.join(member.as_str()?))).collect()
}

#[test]
fn no_module_imports_what_imports_it() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let (mut modules, mut circles) = (0, Vec::new());
    for root in packages(workspace).iter().flat_map(|package| roots(package)) {
        let krate = source::Crate::read(&root);
        modules += krate.modules().count();
        let name = root.strip_prefix(workspace).unwrap_or(&root).display().to_string();
        circles
            .extend(graph::circles(&krate).into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(modules > 400, "only {modules} modules were found");
    assert!(circles.is_empty(), "{} circles of imports:\n{}", circles.len(), circles.join("\n"));
}

fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    graph::circles(&source::Crate::read(&dir.path().join("lib.rs")))
}

#[test]
fn a_circle_is_found_through_reexports_paths_and_macros_and_printed() {
    for (one, other) in [
        ("use crate::b::B;", "use super::a::A;"),
        ("use crate::B;", "fn f() { crate::a::g() }"),
        ("macro_rules! m { () => { $crate::b::g() } }", "use crate::{a::{self, A as Other}, c};"),
    ] {
        let root = "pub mod a;\nmod b;\nmod c;\npub use b::B;\n";
        let found = circles_of(&[("lib.rs", root), ("a.rs", one), ("b.rs", other), ("c.rs", "")]);
        assert_eq!(found.len(), 1, "{one} {other}");
        let text = found.concat();
        assert!(text.contains("a -> b") && text.contains("b -> a"), "{text}");
    }
    // The modules are others, the folders are the same.
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a/mod.rs", "mod x;\nmod y;"),
        ("a/x.rs", "use crate::b::x;"),
        ("a/y.rs", ""),
        ("b/mod.rs", "mod x;\nmod y;"),
        ("b/x.rs", ""),
        ("b/y.rs", "use crate::a::y;"),
    ];
    assert_eq!(circles_of(&files).len(), 1);
}

#[test]
fn a_circle_is_found_through_imports_of_everything() {
    for (root, one, other) in [
        // What the root has from importing everything of a module.
        ("pub use b::*;", "use crate::B;", "use crate::a::A;"),
        ("pub use c::*;", "use crate::B;", "use crate::a::A;"),
        // What a module has from its parent, which has it from a sibling.
        ("use b::B;", "use super::*;\nfn f(_: B) {}", "use super::a::A;"),
        ("pub use b::*;", "use crate::*;\nfn f() { g(); }", "use super::a::A;"),
        // Importing everything of each other.
        ("", "use crate::b::*;", "use crate::a::*;"),
    ] {
        let root = format!("mod a;\nmod b;\nmod c;\n{root}");
        let one = format!("{one}\npub struct A;");
        let other = format!("{other}\npub struct B;\npub fn g() {{}}");
        let files = [
            ("lib.rs", &*root),
            ("a.rs", &*one),
            ("b.rs", &*other),
            ("c.rs", "pub use super::b::*;"),
        ];
        let found = circles_of(&files);
        assert_eq!(found.len(), 1, "{root} {one} {other}");
        let text = found.concat();
        assert!(text.contains("a -> b") && text.contains("b -> a"), "{text}");
    }
    // Names of its own, fields, and variables that are called as something that is imported with everything else.
    let files = [
        ("lib.rs", "mod a;\nmod b;\npub use b::*;"),
        ("a.rs", "use crate::*;\npub struct B;\nfn f(c: &C) { let g = c.g; B; h(g) }\nfn h() {}"),
        ("b.rs", "use crate::a::A;\npub struct B;\npub fn g() {}\npub fn h() {}"),
    ];
    assert_eq!(circles_of(&files), Vec::<String>::new());
}

#[test]
fn a_circle_is_found_through_what_a_feature_alone_has_compiled_and_through_attributes_for_tests() {
    for (condition, found) in [
        ("cfg(test)", 0),
        ("cfg(all(test, feature = \"fuzzing\"))", 0),
        ("cfg(any(test, all(test, unix)))", 0),
        ("cfg(any(test, feature = \"fuzzing\"))", 1),
        ("cfg(any(test, feature = \"fuzzing\",))", 1),
        ("cfg(all(unix, any(test, feature = \"fuzzing\")))", 1),
        ("cfg(feature = \"test\")", 1),
        ("cfg(not(test))", 1),
        ("cfg_attr(test, derive(Debug))", 1),
    ] {
        let one = format!("#[{condition}]\npub mod x;\n#[{condition}]\nuse crate::b::B;");
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a/mod.rs", &*one),
            ("a/x.rs", ""),
            ("b.rs", "use crate::a::A;"),
        ];
        assert_eq!(circles_of(&files).len(), found, "{condition}");
    }
}

#[test]
fn what_a_folder_shares_and_what_only_tests_import_is_no_circle() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\npub struct Root;"),
        (
            "a/mod.rs",
            "mod x;\nuse x::X;\npub struct Shared;\n#[cfg(test)]\nmod tests { use crate::b::B; }",
        ),
        ("a/x.rs", "use super::Shared;\nuse crate::Root;\n/// [`crate::b::B`]\npub struct X;"),
        (
            "b.rs",
            "use crate::a::Shared;\n#[cfg(test)]\nuse crate::a::nothing;\nfn f() { \"crate::a\"; }",
        ),
    ];
    assert_eq!(circles_of(&files), Vec::<String>::new());
}
