//! What the security office does with programs: bundles are made, signed and checked.

use std::path::Path;

use ::program::manifest::{Bundle, Manifest};
use ::program::pack::{self, Signed, Signing};
use images::container::Described as _;
use images::writing::PackError;
use policy::signature::Purpose;
use printable::explain;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, passphrase, print, signing};
use super::{PackArgs, described, shown};
use crate::images::{Progress, warn_of_dropped};

pub(super) fn pack(common: &Common, args: &PackArgs) -> Outcome {
    let key = args.key.as_ref().map(|file| {
        signing::no_dump().and_then(|kept| signing::secret_key(file, &args.passphrase, &kept))
    });
    let key = match key.transpose() {
        Ok(key) => key,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let numbers = (args.serial, args.floor);
    let packed = pack::pack(&args.package, numbers, key.as_ref(), &args.file, |_| ());
    let manifest = match packed {
        Ok(manifest) => manifest,
        Err(error) => {
            let why = format!("{}: {}", args.file.display(), explain(&error));
            return common.fail(Failure::No, &why);
        }
    };
    warn_of_the_end(&manifest);
    let report = json!({
        "file": args.file, "serial": manifest.serial, "floor": manifest.floor, "version": manifest.version.as_str(), "signed": key.is_some()
    });
    common.done(&report, || {
        let file = args.file.display();
        let signed = match key {
            Some(_) => "signed".to_owned(),
            None => format!("NOT SIGNED: `bulkhead program sign {file} --key KEYFILE` does that"),
        };
        print(&format!(
            "wrote {file}, {signed}\n{}\n`bulkhead program check {file}` says whether enough officers have\n",
            described(&manifest)
        ));
    })
}

fn not_signed(common: &Common, file: &Path, error: &PackError) -> Outcome {
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
        Err(error) => return not_signed(common, file, &error),
    };
    // Before a passphrase is asked for: what is to be signed, and that it is whole.
    let head = signing.bundle().head();
    complain(&shown(head));
    warn_of_the_end(&head.manifest);
    let digest = head.digest();
    let mut progress = Progress::new(common, "read", head.total());
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
    let Signed { count, dropped } = match signing.sign(&secret) {
        Ok(signed) => signed,
        Err(error) => return not_signed(common, file, &error),
    };
    let dropped = warn_of_dropped(&dropped);
    let report = json!({"file": file, "manifest": digest, "signatures": count, "dropped": dropped});
    common.done(&report, || {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let held = printable::counted(count, "signature", "signatures");
        let file = file.display();
        print(&format!(
            "{file} holds {held}; `bulkhead program check {file}` says whether they are enough\n"
        ));
    })
}

/// Says early enough that serials come to their end.
fn warn_of_the_end(manifest: &Manifest) {
    if let Some(left) = manifest.few_can_follow() {
        let follow = printable::counted(left, "bundle", "bundles");
        complain(&format!(
            "bulkhead: warning: only {follow} can follow one with the serial {}: a serial only grows; count on from the one before\n",
            manifest.serial
        ));
    }
}

pub(super) fn check(common: &Common, file: &Path, trust: &Path) -> Outcome {
    let bundle = match Bundle::open(file) {
        Ok(bundle) => bundle,
        Err(error) => {
            let why = format!("{} is refused: {}", file.display(), explain(&error));
            return common.fail(Failure::No, &why);
        }
    };
    // What it is, whoever has signed it: those who are to sign look at it first.
    let head = bundle.head();
    let manifest = head.manifest.clone();
    if !common.json {
        print(&shown(head));
    }
    warn_of_the_end(&manifest);
    let mut report = json!({
        "serial": manifest.serial, "floor": manifest.floor, "version": manifest.version.as_str(), "architecture": manifest.architecture.to_string(),
        "bytes": manifest.package.size, "package": manifest.package.sha256, "manifest": head.digest(), "whole": false, "signers": [],
    });
    let mut progress = Progress::new(common, "read", head.total());
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
    let needed = store.threshold(Purpose::Program).unwrap_or_default();
    if needed == 1 {
        complain(&format!(
            "bulkhead: warning: by {} one officer alone can bring any program onto the PCs: `bulkhead trust threshold {0} program=2`\n",
            trust.display()
        ));
    }
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
            "signed by {}; {needed} needed; on a PC: `bulkhead program install FILE`\n",
            signers.unwrap_or_default().join(", ")
        )),
    })
}
