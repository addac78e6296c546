//! The imports between a crate's modules, and the circles in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Crate, Name};

/// Between modules of one folder: which imports which, and an import that shows it.
type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// Returns one circle for each folder that has any, each import with what shows it.
pub(crate) fn circles(krate: &Crate) -> Vec<String> {
    let mut folders: BTreeMap<Name, Imports> = BTreeMap::new();
    for from in krate.modules() {
        for (path, to) in krate.used_by(from) {
            // The folder that has both, each in another module of it.
            let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
                let folder = from.iter().take(shared).cloned().collect();
                let shown = format!("{} uses {path}", from.join("::"));
                let imports = folders.entry(folder).or_default().entry(one.clone()).or_default();
                imports.entry(other.clone()).or_insert(shown);
            }
        }
    }
    folders.values().filter_map(circle).map(|circle| print(&circle)).collect()
}

/// Returns a circle: from, to, and what shows it.
fn circle(imports: &Imports) -> Option<Vec<[&str; 3]>> {
    let mut done = BTreeSet::new();
    imports.keys().find_map(|start| walk(imports, start, &mut Vec::new(), &mut done))
}

fn walk<'g>(
    imports: &'g Imports,
    module: &'g str,
    way: &mut Vec<[&'g str; 3]>,
    done: &mut BTreeSet<&'g str>,
) -> Option<Vec<[&'g str; 3]>> {
    if let Some(begin) = way.iter().position(|[from, ..]| *from == module) {
        return way.get(begin..).map(<[_]>::to_vec);
    }
    if done.contains(module) {
        return None;
    }
    for (to, shown) in imports.get(module).into_iter().flatten() {
        way.push([module, to, shown]);
        let found = walk(imports, to, way, done);
        if found.is_some() {
            return found;
        }
        way.pop();
    }
    done.insert(module);
    None
}

fn print(circle: &[[&str; 3]]) -> String {
    let one = |[from, to, shown]: &[&str; 3]| format!("\n    {from} -> {to}: {shown}");
    circle.iter().map(one).collect()
}
