//! What is installed on a PC: listed, and read to its end.

use ::images::digest::Digest;
use ::images::manifest::ImageName;
use ::images::record::ImageState;
use ::images::store::standing;
use serde::Serialize;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, print};
use super::Pc;
use super::store::Records;
use crate::progress::{Progress, size};
use printable::explain;

/// What there is to say of one installed image.
#[derive(Serialize)]
struct ListedImage {
    name: String,
    serial: u64,
    state: ImageState,
    floor: u64,
    bytes: u64,
    /// It is in force, and would not come into force any more.
    below_floor: bool,
    signers: Vec<String>,
    /// The public keys of those.
    keys: Vec<String>,
    /// The serial of the trust store by which their signatures counted.
    trust: Option<u64>,
    /// The digest of its manifest, as `check` and `sign` show it.
    manifest: Digest,
    /// The domain whose guest has to come up first, if it is in force.
    tried_in: Option<String>,
    /// Why it could not come into force with the last start, if it is to.
    refused: Option<String>,
}

pub(super) fn list(common: &Common, pc: &Pc) -> Outcome {
    let Records { records, problems } = match pc.records(None) {
        Ok(found) => found,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let mut images = Vec::new();
    for (name, record) in &records {
        images.extend(record.installed().map(|(serial, state, entry)| {
            ListedImage {
                name: name.to_string(),
                serial,
                state,
                floor: record.floor(),
                bytes: entry.size,
                below_floor: serial < record.floor(),
                signers: entry.signers.clone(),
                keys: entry.keys.clone(),
                trust: entry.trust,
                manifest: entry.manifest,
                tried_in: record
                    .tried_in()
                    .filter(|_| state == ImageState::InForce)
                    .map(str::to_owned),
                refused: record
                    .refused()
                    .filter(|refused| refused.serial == serial)
                    .map(|refused| format!("at a start of {}: {}", refused.domain, refused.why)),
            }
        }));
    }
    let interrupted = pc.store().interrupted().unwrap_or_default();
    let verdict = verdict(&problems);
    let names: Vec<&str> = interrupted.iter().map(|(name, _)| name.as_str()).collect();
    common.answer(verdict, &json!({"images": images, "interrupted": names}), || {
        told(&problems);
        if problems.is_empty() || !images.is_empty() {
            print(&table(&images));
        }
        for it in &images {
            print(&format!("{} {}: manifest SHA-256 {}\n", it.name, it.serial, it.manifest));
        }
        for it in &images {
            if let Some(why) = &it.refused {
                print(&format!("{} {} could not come into force {why}\n", it.name, it.serial));
            }
        }
        for (name, place) in &interrupted {
            print(&format!(
                "{name}: a command is at work, or was interrupted, and left {}: `bulkhead images install` with its bundle goes on; to give it up, delete that folder\n",
                place.display()
            ));
        }
    })
}

/// Joins what is wrong with images into one error, once all were looked at.
fn verdict(problems: &[String]) -> Result<(), String> {
    match problems {
        [] => Ok(()),
        problems => Err(problems.join("; ")),
    }
}

fn told(problems: &[String]) {
    for problem in problems {
        complain(&format!("bulkhead: {problem}\n"));
    }
}

fn table(images: &[ListedImage]) -> String {
    if images.is_empty() {
        return "no image is installed; `bulkhead images install FILE` installs a bundle\n"
            .to_owned();
    }
    let head = ["NAME", "SERIAL", "STATE", "FLOOR", "SIZE", "SIGNED BY"].map(str::to_owned);
    let row = |it: &ListedImage| {
        [
            it.name.clone(),
            it.serial.to_string(),
            match (it.state, &it.tried_in) {
                (ImageState::InForce, _) if it.below_floor => {
                    "in force, BELOW THE FLOOR".to_owned()
                }
                (ImageState::InForce, Some(domain)) => format!("in force, on trial in {domain}"),
                (state, _) => standing(state).to_owned(),
            },
            it.floor.to_string(),
            size(it.bytes),
            it.signers.join(", "),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(images.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match widths.get(column) {
            Some(width) => format!("{cell:width$}"),
            None => cell.clone(),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

pub(super) fn verify(common: &Common, pc: &Pc, name: Option<&ImageName>) -> Outcome {
    let trust = match pc.trust() {
        Ok(trust) => trust,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let Records { records, mut problems } = match pc.records(name) {
        Ok(found) => found,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let mut verified = Vec::new();
    for (name, record) in &records {
        for (serial, _, entry) in record.installed() {
            let mut progress = Progress::new(common, "read", entry.size);
            match pc.store().verify(name, serial, &trust, |bytes| progress.add(bytes)) {
                Ok(signers) => verified.push(json!({
                    "name": name.as_str(), "serial": serial, "signers": signers, "manifest": entry.manifest,
                    "bytes": entry.size,
                })),
                Err(error) => problems.push(explain(&error)),
            }
        }
    }
    common.answer(verdict(&problems), &json!({"verified": verified}), || {
        told(&problems);
        let count = u64::try_from(verified.len()).unwrap_or(u64::MAX);
        let text = |it: &serde_json::Value, key: &str| {
            it.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        for it in &verified {
            let number = |key: &str| it.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let signers = it.get("signers").and_then(serde_json::Value::as_array);
            let signers = signers.into_iter().flatten().filter_map(serde_json::Value::as_str);
            print(&format!(
                "{} {}: {} read, signed by {}; manifest SHA-256 {}\n",
                text(it, "name"),
                number("serial"),
                size(number("bytes")),
                signers.collect::<Vec<_>>().join(", "),
                text(it, "manifest")
            ));
        }
        let counted = printable::counted(count, "image is", "images are");
        let failed = match problems.len() {
            0 => String::new(),
            failed => format!(", and {failed} not or not known to be"),
        };
        print(&format!("{counted} what was signed{failed}\n"));
    })
}
