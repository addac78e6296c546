//! What the security office does with bundles, whatever is in them: they are signed and checked.

use std::path::{Path, PathBuf};

use clap::Args;
use images::container::{Bundle, Described, Head};
use images::writing::{PackError, Signing, SigningOutcome};
use policy::signature::{PublicKey, Purpose, SecretKey};
use printable::explain;
use serde_json::{Value, json};

use super::progress::Progress;
use super::trust::TRUST;
use super::{Common, Failure, Outcome, complain, passphrase, print, signing};

/// What an officer signs, and with which key.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The bundle, into which the signature goes
    file: PathBuf,
    /// The officer's secret key
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: passphrase::Source,
}

/// What is checked, and by whose word.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The bundle's file
    file: PathBuf,
    /// Who may sign such bundles, and how many must; this file is looked at, and not what a PC remembers
    #[arg(long, value_name = "FILE", default_value = TRUST)]
    trust: PathBuf,
}

/// What the command line says of the bundles of one purpose.
pub(crate) trait BundleWording: Described {
    /// The command whose subcommands are about them.
    const COMMAND: &'static str;
    /// What signatures of them are for.
    const PURPOSE: Purpose;
    /// What those are called that can follow one: a single one, and several.
    const FOLLOWING: (&'static str, &'static str);

    /// Returns what a manifest says, in a line.
    fn described(&self) -> String;

    /// Returns what a bundle says of itself, for whoever answers for it.
    fn shown(head: &Head<Self>) -> String;

    /// Returns what it says of itself, for a program.
    fn report(head: &Head<Self>) -> Value;

    /// Returns what an officer is to be warned of where the trust store in this file asks for so many signatures.
    fn threshold_warning(needed: usize, trust: &Path) -> Option<String>;
}

/// Reads the key that a bundle is signed with as it is made; none if it is signed later.
pub(crate) fn key(
    file: Option<&Path>,
    passphrase: &passphrase::Source,
) -> Result<Option<SecretKey>, String> {
    let read =
        |file| signing::no_dump().and_then(|kept| signing::secret_key(file, passphrase, &kept));
    file.map(read).transpose()
}

/// Says why a bundle is not made, or not signed.
pub(crate) fn not_written(common: &Common, file: &Path, error: &PackError) -> Outcome {
    let why = explain(error);
    let why = match error {
        // They name the file that they are about.
        PackError::Read { .. }
        | PackError::Size { .. }
        | PackError::NotAKernel { .. }
        | PackError::Changed(_)
        | PackError::Replaced(_)
        | PackError::Write { .. } => why,
        PackError::NotReplaceable(_)
        | PackError::LastSerial(_)
        | PackError::NoRoom { .. }
        | PackError::Bundle(_) => {
            format!("{}: {why}", file.display())
        }
    };
    common.fail(Failure::No, &why)
}

/// Says that a bundle was made, and what comes next.
pub(crate) fn made<M: BundleWording>(
    common: &Common,
    file: &Path,
    manifest: &M,
    signed: bool,
    report: &Value,
) -> Outcome {
    common.done(report, || {
        let (file, command) = (file.display(), M::COMMAND);
        let signed = match signed {
            true => "signed".to_owned(),
            false => format!("NOT SIGNED: `bulkhead {command} sign {file} --key KEYFILE` does that"),
        };
        print(&format!(
            "wrote {file}, {signed}\n{}\n`bulkhead {command} check {file}` says whether enough officers have\n",
            manifest.described()
        ));
    })
}

/// Opens a bundle, or says what is wrong with it.
pub(crate) fn opened<M: BundleWording>(common: &Common, file: &Path) -> Result<Bundle<M>, Outcome> {
    Bundle::open(file).map_err(|error| {
        let why = format!("{} is refused: {}", file.display(), explain(&error));
        common.fail(Failure::No, &why)
    })
}

/// Adds an officer's signature to a bundle.
pub(crate) fn sign<M: BundleWording>(common: &Common, args: &SignArgs) -> Outcome {
    let SignArgs { file, key, passphrase } = args;
    let signing = match Signing::<M>::open(file) {
        Ok(signing) => signing,
        Err(error) => return not_written(common, file, &error),
    };
    // Before a passphrase is asked for: what is to be signed, and that it is whole.
    let head = signing.bundle().head();
    complain(&M::shown(head));
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
    let SigningOutcome { count, dropped } = match signing.sign(&secret) {
        Ok(signed) => signed,
        Err(error) => return not_written(common, file, &error),
    };
    let dropped = warn_of_dropped(&dropped);
    let report = json!({"file": file, "manifest": digest, "signatures": count, "dropped": dropped});
    common.done(&report, || {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let held = printable::counted(count, "signature", "signatures");
        let (file, command) = (file.display(), M::COMMAND);
        print(&format!(
            "{file} holds {held}; `bulkhead {command} check {file}` says whether they are enough\n"
        ));
    })
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
pub(crate) fn warn_of_the_end<M: BundleWording>(manifest: &M) {
    if let Some(left) = manifest.few_can_follow() {
        let (one, several) = M::FOLLOWING;
        let follow = printable::counted(left, one, several);
        complain(&format!(
            "bulkhead: warning: only {follow} can follow one with the serial {}: a serial only grows; count on from the one before\n",
            manifest.serial()
        ));
    }
}

/// Shows what a bundle says of itself, reads it to its end, and says whether enough officers signed it.
pub(crate) fn check<M: BundleWording>(common: &Common, args: &CheckArgs) -> Outcome {
    let CheckArgs { file, trust } = args;
    let bundle = match opened::<M>(common, file) {
        Ok(bundle) => bundle,
        Err(outcome) => return outcome,
    };
    // What it is, whoever has signed it: those who are to sign look at it first.
    let head = bundle.head();
    if !common.json {
        print(&M::shown(head));
    }
    warn_of_the_end(&head.manifest);
    let mut report = M::report(head);
    let mut add = |key: &str, value: Value| {
        if let Some(fields) = report.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    };
    add("manifest", json!(head.digest()));
    add("signers", json!([]));
    let mut progress = Progress::new(common, "read", head.total());
    let whole = bundle.check_members(|bytes| progress.add(bytes));
    drop(progress);
    add("whole", json!(whole.is_ok()));
    if let Err(error) = whole {
        let why = format!("{} is refused: {}", file.display(), explain(&error));
        return common
            .answer(Err(why.clone()), &report, || complain(&format!("bulkhead: {why}\n")));
    }
    if !common.json {
        print("it is whole\n");
    }
    let store = match signing::trust_store(common, trust) {
        Ok((store, _)) => store,
        Err(outcome) => return outcome,
    };
    let needed = store.threshold(M::PURPOSE).unwrap_or_default();
    if let Some(warning) = M::threshold_warning(needed, trust) {
        complain(&format!("bulkhead: warning: {warning}\n"));
    }
    let signers = bundle.approve(&store).map(|approved| approved.signers().to_vec());
    add("signers", json!(signers.as_deref().unwrap_or_default()));
    add("threshold", json!(needed));
    let verdict = signers
        .as_ref()
        .map(|_| ())
        .map_err(|error| format!("{} is not approved: {}", file.display(), explain(error)));
    let why = verdict.clone();
    common.answer(verdict, &report, || match (why, signers) {
        (Err(why), _) => complain(&format!("bulkhead: {why}\n")),
        (Ok(()), signers) => print(&format!(
            "signed by {}; {needed} needed; on a PC: `bulkhead {} install FILE`\n",
            signers.unwrap_or_default().join(", "),
            M::COMMAND
        )),
    })
}
