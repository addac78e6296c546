//! What the security office does with images: bundles are made, signed and checked.

use std::path::Path;

use ::images::manifest::{Manifest, Needs};
use ::images::pack::{self, Contents, PackError, Signed, Signing};
use config::files::read_small;
use images::container::Described as _;
use policy::signature::{PublicKey, Purpose};
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, passphrase, print, signing};
use super::progress::Progress;
use super::{PackArgs, described, opened, shown};
use printable::explain;

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
    if args.disk.len() > 1 && args.verity.is_some() {
        complain(
            "bulkhead: warning: the root hash (--verity) is the first disk's: each start of a domain reads the others whole, and nothing checks them while it runs\n",
        );
    }
    warn_of_the_end(&manifest);
    let report = json!({"file": args.file, "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "signed": key.is_some()});
    common.done(&report, || {
        let file = args.file.display();
        let signed = match key {
            Some(_) => "signed".to_owned(),
            None => format!("NOT SIGNED: `bulkhead images sign {file} --key KEYFILE` does that"),
        };
        print(&format!(
            "wrote {file}, {signed}\n{}\n`bulkhead images check {file}` says whether enough officers have\n",
            described(&manifest)
        ));
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
    let signing = match Signing::open(file) {
        Ok(signing) => signing,
        Err(error) => return not_packed(common, file, &error),
    };
    // Before a passphrase is asked for: what is to be signed, and that it is whole.
    let head = signing.bundle().head();
    complain(&shown(head));
    warn_of_the_end(&head.manifest);
    let digest = head.digest();
    let mut progress = Progress::new(common, "read", head.manifest.total());
    let whole = signing.bundle().check_members(|bytes| progress.add(bytes));
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
    match signing.sign(&secret) {
        Ok(Signed { count, dropped }) => {
            let dropped = warn_of_dropped(&dropped);
            let report =
                json!({"file": file, "manifest": digest, "signatures": count, "dropped": dropped});
            common.done(&report, || {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                let held = printable::counted(count, "signature", "signatures");
                let file = file.display();
                print(&format!(
                    "{file} holds {held}; `bulkhead images check {file}` says whether they are enough\n"
                ));
            })
        }
        Err(error) => not_packed(common, file, &error),
    }
}

/// Says whose signatures went as they did not fit, and returns their keys as text.
pub(crate) fn warn_of_dropped(dropped: &[PublicKey]) -> Vec<String> {
    let dropped: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    for key in &dropped {
        complain(&format!(
            "bulkhead: warning: the signature by {key} does not fit the bundle, as it is damaged or was made of another, and is dropped: have whose key that is (it stands in their .pub file) sign again\n"
        ));
    }
    dropped
}

/// Says early enough that serials come to their end.
fn warn_of_the_end(manifest: &Manifest) {
    if let Some(left) = manifest.few_can_follow() {
        let follow = printable::counted(left, "bundle of this name", "bundles of this name");
        complain(&format!(
            "bulkhead: warning: only {follow} can follow one with the serial {}: a serial only grows; count on from the one before\n",
            manifest.serial
        ));
    }
}

pub(super) fn check(common: &Common, file: &Path, trust: &Path) -> Outcome {
    let bundle = match opened(common, file) {
        Ok(bundle) => bundle,
        Err(outcome) => return outcome,
    };
    // What it is, whoever has signed it: those who are to sign look at it first.
    let head = bundle.head();
    let manifest = head.manifest.clone();
    if !common.json {
        print(&shown(head));
    }
    warn_of_the_end(&manifest);
    let mut report = json!({
        "name": manifest.name.as_str(), "serial": manifest.serial, "floor": manifest.floor, "bytes": manifest.total(),
        "cmdline": manifest.cmdline, "verity": manifest.verity, "needs_bulkhead": manifest.needs.bulkhead.map(|it| it.to_string()),
        "needs_memory": manifest.needs.memory.map(|it| it.to_string()), "health": manifest.health, "manifest": head.digest(), "whole": false, "signers": [],
    });
    let mut progress = Progress::new(common, "read", manifest.total());
    let whole = bundle.check_members(|bytes| progress.add(bytes));
    drop(progress);
    if let Err(error) = whole {
        let why = format!("{} is refused: {}", file.display(), explain(&error));
        return common
            .answer(Err(why.clone()), &report, || complain(&format!("bulkhead: {why}\n")));
    }
    if let Some(whole) = report.get_mut("whole") {
        *whole = true.into();
    }
    if !common.json {
        print("it is whole\n");
    }
    let store = match signing::trust_store(common, trust) {
        Ok((store, _)) => store,
        Err(outcome) => return outcome,
    };
    let needed = store.threshold(Purpose::Image).unwrap_or_default();
    let signers = bundle.approve(&store).map(|approved| approved.signers().to_vec());
    if let Some(fields) = report.as_object_mut() {
        fields.insert("signers".to_owned(), json!(signers.as_deref().unwrap_or_default()));
        fields.insert("threshold".to_owned(), json!(needed));
    }
    let verdict = signers
        .as_ref()
        .map(|_| ())
        .map_err(|error| format!("{} is not approved: {}", file.display(), explain(error)));
    let why = verdict.clone();
    common.answer(verdict, &report, || match (why, signers) {
        (Err(why), _) => complain(&format!("bulkhead: {why}\n")),
        (Ok(()), signers) => print(&format!(
            "signed by {}; {needed} needed; on a PC: `bulkhead images install FILE`\n",
            signers.unwrap_or_default().join(", ")
        )),
    })
}
