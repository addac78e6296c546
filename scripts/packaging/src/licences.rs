//! The licence texts of what is linked, each once, with the crates that it is for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::linked::{Crate, LinkedCrates};
use crate::{PackagingError, file};

/// How the files begin, in lower case, in which crates have their licences.
const NAMES: [&str; 6] = ["licence", "license", "copying", "copyright", "notice", "unlicense"];
/// Of crates that bring no text along.
const MIT: &str = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

/// Returns one text with a list of crates and their licences before it.
pub(crate) fn texts(linked: &LinkedCrates) -> Result<String, PackagingError> {
    let foreign: Vec<&Crate> = linked.crates.iter().filter(|found| !found.ours).collect();
    let mut page = "Crates that are linked into the programs of this package, and their licences.\n\
                    The Rust standard library's are in rust-standard-library.html.gz, the C library's in libc.txt.gz.\n\n"
        .to_owned();
    for found in &foreign {
        let _ = writeln!(page, "{} {}: {}", found.name, found.version, found.licence);
    }
    // The same text is there once, at its first crate's place.
    let mut order: Vec<String> = Vec::new();
    let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in &foreign {
        for text in of(found)? {
            let named = crates.entry(text.clone()).or_default();
            if named.is_empty() {
                order.push(text);
            }
            named.push(format!("{} {}", found.name, found.version));
        }
    }
    for text in order {
        let named = crates.get(&text).map(|named| named.join(", ")).unwrap_or_default();
        let _ = write!(page, "\n{}\n{named}\n\n{text}", "=".repeat(80));
    }
    Ok(page)
}

/// Returns a crate's texts, in the order of their files' names.
fn of(found: &Crate) -> Result<Vec<String>, PackagingError> {
    let failed = |source| file("read", &found.folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(&found.folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|begins| name.starts_with(begins)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut texts = Vec::new();
    for path in files {
        let bytes = fs::read(&path).map_err(|source| file("read", &path, source))?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        texts.push(format!("{}\n", text.trim_end()));
    }
    if texts.is_empty() {
        if found.licence != "MIT" || found.authors.is_empty() {
            let what = format!(
                "its sources hold no licence text, and only that of MIT with named authors is known here (licence: {}): add it in scripts/packaging/src/licences.rs",
                found.licence
            );
            return Err(PackagingError::Crate { crate_name: found.key(), what });
        }
        texts.push(format!("MIT License\n\nCopyright (c) {}\n\n{MIT}", found.authors.join(", ")));
    }
    Ok(texts)
}
