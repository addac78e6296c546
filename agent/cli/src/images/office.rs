//! What the security office does with images: bundles are made, signed and checked.

use std::path::Path;

use ::images::manifest::Needs;
use ::images::pack::{self, Contents, PackError};
use config::files::read_small;
use policy::signature::Purpose;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, passphrase, print, signing};
use super::progress::Progress;
use super::{PackArgs, described, opened};
use printable::explain;

pub(super) fn pack(common: &Common, args: &PackArgs) -> Outcome {
    let cmdline = match &args.cmdline_file {
        None => args.cmdline.clone(),
        Some(file) => match read_small(file) {
            Ok(Some(text)) => text.lines().next().unwrap_or_default().to_owned(),
            Ok(None) => {
                return common.fail(Failure::No, &format!("there is no {}", file.display()));
            }
            Err(error) => {
                return common.fail(Failure::No, &signing::unreadable(file, &error));
            }
        },
    };
    let key = args.key.as_ref().map(|file| {
        signing::no_dump().and_then(|kept| signing::secret_key(file, &args.passphrase, &kept))
    });
    let key = match key.transpose() {
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
        Err(error) => return not_packed(common, &args.file, &error),
    };
    if !args.disk.is_empty() && args.verity.is_none() {
        complain(
            "bulkhead: warning: the disks have no root hash (--verity): each start of a domain reads them whole, and nothing checks them while it runs\n",
        );
    }
    let report = json!({"file": args.file, "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "signed": key.is_some()});
    common.done(&report, || {
        let signed = match key {
            Some(_) => "signed",
            None => "NOT SIGNED: `bulkhead images sign` does that",
        };
        print(&format!("wrote {}, {signed}\n{}\n", args.file.display(), described(&manifest)));
    })
}

fn not_packed(common: &Common, file: &Path, error: &PackError) -> Outcome {
    common.fail(Failure::No, &format!("{}: {}", file.display(), explain(error)))
}

pub(super) fn sign(
    common: &Common,
    file: &Path,
    key: &Path,
    passphrase: &passphrase::Source,
) -> Outcome {
    let bundle = match opened(common, file) {
        Ok(bundle) => bundle,
        Err(outcome) => return outcome,
    };
    // Before a passphrase is asked for: what is to be signed, and that it is whole.
    complain(&format!("{}\n", described(&bundle.head().manifest)));
    let mut progress = Progress::new(common, "read", bundle.head().manifest.total());
    let whole = bundle.check_members(|bytes| progress.add(bytes));
    drop(progress);
    if let Err(error) = whole {
        let why = format!("{} is not signed: {}", file.display(), explain(&error));
        return common.fail(Failure::No, &why);
    }
    let read = signing::no_dump().and_then(|kept| signing::secret_key(key, passphrase, &kept));
    let secret = match read {
        Ok(secret) => secret,
        Err(why) => return common.fail(Failure::No, &why),
    };
    match pack::sign(file, &secret) {
        Ok(count) => common.done(&json!({"file": file, "signatures": count}), || {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            let held = printable::counted(count, "signature", "signatures");
            print(&format!("{} holds {held}\n", file.display()));
        }),
        Err(error) => not_packed(common, file, &error),
    }
}

pub(super) fn check(common: &Common, file: &Path, trust: &Path) -> Outcome {
    let read = opened(common, file)
        .and_then(|bundle| Ok((bundle, signing::trust_store(common, trust)?.0)));
    let (bundle, store) = match read {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    let approved = match bundle.approve(&store) {
        Ok(approved) => approved,
        Err(error) => {
            let why = format!("{} is not approved: {}", file.display(), explain(&error));
            return common.fail(Failure::No, &why);
        }
    };
    let manifest = &approved.bundle().head().manifest;
    let mut progress = Progress::new(common, "read", manifest.total());
    let whole = approved.bundle().check_members(|bytes| progress.add(bytes));
    drop(progress);
    if let Err(error) = whole {
        let why = format!("{} is refused: {}", file.display(), explain(&error));
        return common.fail(Failure::No, &why);
    }
    let needed = store.threshold(Purpose::Image).unwrap_or_default();
    let report = json!({
        "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "bytes": manifest.total(),
        "cmdline": manifest.cmdline, "signers": approved.signers(), "threshold": needed,
    });
    common.done(&report, || {
        print(&format!(
            "{}\ncommand line: {}\nwhole, and signed by {}; {needed} needed\n",
            described(manifest),
            manifest.cmdline,
            approved.signers().join(", ")
        ));
    })
}
