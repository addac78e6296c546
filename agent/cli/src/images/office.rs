//! What the security office does with images: bundles are made. How they are signed and checked is [`crate::bundles`].

use ::images::manifest::Needs;
use ::images::pack::{self, Contents};
use config::files::read_small;
use serde_json::json;

use super::super::{Common, Failure, Outcome, bundles, complain, signing};
use super::PackArgs;
use crate::progress::Progress;

pub(super) fn pack(common: &Common, args: &PackArgs) -> Outcome {
    let cmdline = match &args.cmdline_file {
        None => args.cmdline.clone(),
        Some(file) => match read_small(file) {
            Ok(Some(text)) => text.lines().next().unwrap_or_default().to_owned(),
            Ok(None) => {
                let why = format!(
                    "there is no {}: name the file with the kernel command line (--cmdline-file), or write it behind --cmdline",
                    file.display()
                );
                return common.fail(Failure::No, &why);
            }
            Err(error) => {
                return common.fail(Failure::No, &signing::unreadable(file, &error));
            }
        },
    };
    let key = match bundles::key(args.key.as_deref(), &args.passphrase) {
        Ok(key) => key,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let contents = Contents {
        name: args.name.clone(),
        serial: args.serial,
        floor: args.floor,
        cmdline,
        verity: args.verity,
        health: args.health,
        needs: Needs { bulkhead: args.needs_bulkhead, memory: args.needs_memory },
        files: args.files(),
    };
    let total = contents.files.iter().filter_map(|(_, path)| path.metadata().ok());
    let total = total.fold(0_u64, |sum, file| sum.saturating_add(file.len()));
    let mut progress = Progress::new(common, "packed", total);
    let packed = pack::pack(&contents, key.as_ref(), &args.file, |bytes| progress.add(bytes));
    drop(progress);
    let manifest = match packed {
        Ok(manifest) => manifest,
        Err(error) => return bundles::not_written(common, &args.file, &error),
    };
    if !args.disk.is_empty() && args.verity.is_none() {
        complain(
            "bulkhead: warning: the disks have no root hash (--verity): each start of a domain reads them whole, and nothing checks them while it runs\n",
        );
    }
    if args.disk.len() > 1 && args.verity.is_some() {
        complain(
            "bulkhead: warning: the root hash (--verity) is the first disk's: each start of a domain reads the others whole, and nothing checks them while it runs\n",
        );
    }
    bundles::warn_of_the_end(&manifest);
    let report = json!({"file": args.file, "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "signed": key.is_some()});
    bundles::made(common, &args.file, &manifest, key.is_some(), &report)
}
