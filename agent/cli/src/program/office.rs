//! What the security office does with programs: bundles are made. How they are signed and checked is [`crate::bundles`].

use ::program::pack;
use printable::explain;
use serde_json::json;

use super::super::{Common, Failure, Outcome, bundles};
use super::PackArgs;

pub(super) fn pack(common: &Common, args: &PackArgs) -> Outcome {
    let key = match bundles::key(args.key.as_deref(), &args.passphrase) {
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
    bundles::warn_of_the_end(&manifest);
    let report = json!({
        "file": args.file, "serial": manifest.serial, "floor": manifest.floor, "version": manifest.version.as_str(), "signed": key.is_some()
    });
    bundles::made(common, &args.file, &manifest, key.is_some(), &report)
}
