//! The bill of materials: CycloneDX 1.5, as JSON. It has no time and no random number in it, so that the same sources give the same bytes.

use serde_json::{Value, json};

use crate::linked::{Crate, LinkedCrates};

/// Returns what a package's programs are made of: the crates, the Rust standard library and the C library.
pub(crate) fn of(package: &str, linked: &LinkedCrates, libc: &str) -> Value {
    let rust = linked.rustc.split(' ').nth(1).unwrap_or_default();
    let mut components: Vec<Value> = linked.crates.iter().map(component).collect();
    components.push(json!({
        "type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": rust,
        "description": linked.rustc,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        "purl": format!("pkg:generic/rust-std@{rust}"),
    }));
    components.push(json!({
        "type": "library", "bom-ref": "glibc", "name": "glibc", "version": libc,
        "licenses": [{ "expression": "LGPL-2.1-or-later" }],
        "purl": format!("pkg:deb/debian/glibc@{}?arch=source", encoded(libc)),
    }));
    let mut top: Vec<String> =
        linked.crates.iter().filter(|found| found.ours).map(reference).collect();
    top.extend(["rust-std".to_owned(), "glibc".to_owned()]);
    let mut dependencies = vec![json!({ "ref": package, "dependsOn": top })];
    dependencies.extend(linked.crates.iter().map(|found| {
        let used: Vec<String> = linked
            .crates
            .iter()
            .filter(|other| found.uses.contains(&other.key()))
            .map(reference)
            .collect();
        json!({ "ref": reference(found), "dependsOn": used })
    }));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": package, "name": package,
                "version": linked.version,
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(found: &Crate) -> Value {
    let mut component = json!({
        "type": "library", "bom-ref": reference(found), "name": found.name, "version": found.version,
        "licenses": [{ "expression": found.licence }],
        // Ours are in no registry; the name is still what a scanner looks for.
        "purl": format!("pkg:cargo/{}@{}", found.name, encoded(&found.version)),
    });
    if let Some(checksum) = &found.checksum {
        set(&mut component, "hashes", json!([{ "alg": "SHA-256", "content": checksum }]));
    }
    if let Some(repository) = &found.repository {
        set(&mut component, "externalReferences", json!([{ "type": "vcs", "url": repository }]));
    }
    component
}

fn set(component: &mut Value, key: &str, value: Value) {
    if let Some(fields) = component.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

fn reference(found: &Crate) -> String {
    format!("{}@{}", found.name, found.version)
}

/// Returns a version in a package URL: what has a meaning there is escaped.
fn encoded(version: &str) -> String {
    version.replace('+', "%2B").replace(':', "%3A").replace('~', "%7E")
}
