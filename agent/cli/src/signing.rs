//! `bulkhead policy keygen|passphrase|sign|verify|apply`: the officers' keys, and the way of a signed policy onto a PC.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use nix::unistd::geteuid;
use policy::Policy;
use policy::document::Mistake;
use policy::signature::{
    PolicyText, PublicKey, Purpose, SecretKey, Signable, Signatures, TrustStore, public_key,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::passphrase::{NewSource, Source};
use super::{Common, Failure, Outcome, complain, print};
use base::durable;
use base::secrets::NoDump;
use config::files::{self, read_secret, read_small, signature_file};
use control::commands::Request;
use printable::explain;

/// The officer's key that signs, and what opens it.
#[derive(Debug, Args)]
pub(super) struct SigningKey {
    /// The officer's secret key
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: Source,
}

/// The options that say how the file of a new key is protected.
#[derive(Debug, Args)]
pub(super) struct KeyProtectionArgs {
    #[command(flatten)]
    passphrase: Source,
    /// Write the key without a passphrase, for a medium that is encrypted itself
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    no_passphrase: bool,
}

const NO_TERMINAL: &str = "there is no terminal to ask for the new key's passphrase on: give --passphrase-file or --passphrase-fd, or \
                           --no-passphrase for a medium that is encrypted itself";

impl KeyProtectionArgs {
    /// Returns the text of the secret key's file, and whether it is encrypted.
    fn text_of(&self, key: &SecretKey, kept: &NoDump) -> Result<(Zeroizing<String>, bool), String> {
        let passphrase = match self.no_passphrase {
            true => None,
            false => {
                let chosen = self.passphrase.choose("Passphrase of the new key: ", kept)?;
                // Nobody gets a key that whoever copies it can sign with, without asking for it.
                Some(chosen.ok_or(NO_TERMINAL)?)
            }
        };
        let text = guarded_by(key, passphrase.as_deref().map(String::as_str))?;
        Ok((text, passphrase.is_some()))
    }
}

/// Returns the text of a secret key's file, encrypted if there is a passphrase.
fn guarded_by(key: &SecretKey, passphrase: Option<&str>) -> Result<Zeroizing<String>, String> {
    let Some(passphrase) = passphrase else { return Ok(key.text()) };
    key.encrypted(passphrase, &random()?).map_err(|mistake| mistake.to_string())
}

/// Keeps this process out of core dumps; to be called before it reads or makes anything secret.
pub(super) fn no_dump() -> Result<NoDump, String> {
    NoDump::ensure().map_err(|error| {
        format!("the system does not let this program keep a secret key out of core dumps: {error}")
    })
}

/// Returns 32 bytes of the system's randomness.
fn random() -> Result<Zeroizing<[u8; 32]>, String> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice())
        .map_err(|error| format!("the system has no randomness: {error}"))?;
    Ok(random)
}

/// Makes an officer's key: the secret file, and the public one beside it.
pub(super) fn keygen(
    common: &Common,
    file: &Path,
    name: &str,
    keeping: &KeyProtectionArgs,
) -> Outcome {
    if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pub")) {
        let why = format!(
            "{} would hold the secret key, and .pub is how the other half's file ends: name it without",
            file.display()
        );
        return common.fail(Failure::Misuse, &why);
    }
    let made = no_dump().and_then(|kept| Ok((kept, SecretKey::from_random(&random()?))));
    let (kept, key) = match made {
        Ok(made) => made,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let public = &public_beside(file);
    let name = serde_json::Value::from(name).to_string();
    let entry = format!("[[officer]]\nname = {name}\nkey = \"{}\"\n", key.public());
    // All of it was made here but the name.
    if public_key("the key", &entry).is_err() {
        let why = "--name: write the officer's name, 1 to 128 bytes, without control characters and without a key";
        return common.fail(Failure::No, why);
    }
    // Nobody chooses a passphrase for a key that cannot be written.
    if let Some(there) =
        [file, public.as_path()].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        return common.fail(Failure::No, &unwritten(there, &io::ErrorKind::AlreadyExists.into()));
    }
    let (secret, encrypted) = match keeping.text_of(&key, &kept) {
        Ok(secret) => secret,
        Err(why) => return common.fail(Failure::No, &why),
    };
    if let Err(error) = durable::create(file, secret.as_bytes(), 0o600) {
        return common.fail(Failure::No, &unwritten(file, &error));
    }
    if let Err(error) = durable::create(public, entry.as_bytes(), 0o644) {
        // A secret key whose other half nobody has is of no use, and could be taken for one that is.
        let left = match fs::remove_file(file) {
            Ok(()) => String::new(),
            Err(error) => format!("; remove {}, which could not be: {error}", file.display()),
        };
        return common.fail(Failure::No, &format!("{}{left}", unwritten(public, &error)));
    }
    let key = key.public().to_string();
    let made = json!({"secret": file, "public": public, "key": key, "encrypted": encrypted});
    common.done(&made, || {
        let guarded = match encrypted {
            true => "its passphrase opens it: ",
            false => "NO PASSPHRASE: whoever copies it can sign; ",
        };
        print(&format!(
            "wrote {}: {guarded}keep it where nobody else can read it, best on a medium that is not left in a PC\n\
             wrote {1}: it goes into the trust store of the PCs (`bulkhead trust add trust.toml {1}`), and officers sign that change where somebody may sign for `trust`\n",
            file.display(),
            public.display()
        ));
    })
}

fn unwritten(path: &Path, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "it is there already, and a key is never replaced; name another file".to_owned()
        }
        _ => return super::answer::unwritten(path, error),
    };
    format!("cannot write {}: {why}", path.display())
}

/// Returns the path of the public key that belongs to a secret key's file: `FILE.pub`.
fn public_beside(file: &Path) -> PathBuf {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

/// Reads the secret key in a file, and compares it with the public key beside it, if there is one: what was damaged is another key, and nobody
/// trusts that.
pub(super) fn secret_key(
    file: &Path,
    passphrase: &Source,
    kept: &NoDump,
) -> Result<SecretKey, String> {
    let key = opened(file, passphrase, kept)?;
    let public = public_beside(file);
    let there = read_small(&public).map_err(|error| unreadable(&public, &error))?;
    if there.is_some_and(|text| !text.contains(&key.public().to_string())) {
        return Err(format!(
            "{} is not the other half of {}: it is damaged, or one of them is of another key; take the copy that you keep elsewhere",
            file.display(),
            public.display()
        ));
    }
    Ok(key)
}

/// Reads the secret key in a file, with its passphrase if it is encrypted.
fn opened(file: &Path, passphrase: &Source, kept: &NoDump) -> Result<SecretKey, String> {
    let (text, access) = match read_secret(file, kept) {
        Ok(Some(read)) => read,
        Ok(None) => return Err(no_such(file)),
        Err(error) => return Err(unreadable(file, &error)),
    };
    let wrong = |mistake: Mistake| format!("{}: {mistake}", file.display());
    let plain = match SecretKey::is_encrypted(&text) {
        true => None,
        false => Some(SecretKey::parse(&text).map_err(wrong)?),
    };
    // Of what is no secret key nobody needs to be kept off.
    if let Some(mode) = access.shared() {
        complain(&format!(
            "bulkhead: warning: {0} has mode {mode:04o}, so that others than its owner may use it: run `chmod 600 {0}` (on a medium that keeps no permissions, \
             mount it with umask=077); if somebody else may have read it, make a new key and withdraw this one\n",
            file.display()
        ));
    }
    if let Some(key) = plain {
        return Ok(key);
    }
    let asked = passphrase
        .read(&format!("Passphrase of {}: ", printable::line(&file.display().to_string())), kept)?;
    let passphrase = asked.ok_or_else(|| {
        format!(
            "{} is under a passphrase, and there is no terminal to ask for it on: give --passphrase-file or --passphrase-fd",
            file.display()
        )
    })?;
    SecretKey::decrypt(&text, &passphrase).map_err(wrong)
}

/// Puts a passphrase on a key, changes it, or takes it off. The key stays the same.
pub(super) fn passphrase(
    common: &Common,
    file: &Path,
    former: &Source,
    new: &NewSource,
) -> Outcome {
    let done = change(file, former, new);
    let encrypted = match done {
        Ok(encrypted) => encrypted,
        Err(why) => return common.fail(Failure::No, &why),
    };
    common.done(&json!({"secret": file, "encrypted": encrypted}), || {
        let file = file.display();
        print(&match encrypted {
            true => format!("{file} is under the new passphrase; a copy made before is not\n"),
            false => format!("{file} has NO PASSPHRASE any more: whoever copies it can sign\n"),
        });
    })
}

/// Encrypts the file of a key anew, or leaves it unencrypted; returns whether it is encrypted now. Everything is looked at before a passphrase is
/// asked for, and that before anything is written.
fn change(file: &Path, former: &Source, new: &NewSource) -> Result<bool, String> {
    let there = match file.symlink_metadata() {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_such(file)),
        Err(error) => return Err(unreadable(file, &error)),
    };
    if !there.is_file() {
        return Err(format!(
            "{} is no file of its own: name the key's file itself",
            file.display()
        ));
    }
    // The file that takes its place is of whoever asks for it.
    if there.uid() != geteuid().as_raw() {
        return Err(format!("{} is another user's: run this as its owner", file.display()));
    }
    let fresh = durable::fresh(file);
    if fresh.symlink_metadata().is_ok() {
        return Err(format!(
            "{} is there, and the changed key is written there first: move it away, or remove it if it is left of a try before",
            fresh.display()
        ));
    }
    let kept = no_dump()?;
    let key = secret_key(file, former, &kept)?;
    let chosen = new.choose(&kept)?;
    let text = guarded_by(&key, chosen.as_deref().map(String::as_str))?;
    // What cannot be opened again is not put in the place of what can.
    let again = match &chosen {
        Some(passphrase) => SecretKey::decrypt(&text, passphrase),
        None => SecretKey::parse(&text),
    };
    if !again.is_ok_and(|again| again.public() == key.public()) {
        return Err(format!("the changed key does not open; {} is as it was", file.display()));
    }
    durable::replace(file, text.as_bytes(), 0o600).map_err(|error| unwritten(file, &error))?;
    Ok(chosen.is_some())
}

/// Refuses standard input for a command that reads the signatures in a file beside the policy, and says why.
fn has_file(common: &Common, file: &Path) -> Result<(), Outcome> {
    if file != Path::new("-") {
        return Ok(());
    }
    let why = "the signatures of a policy are in a file beside it, FILE.sig, and standard input has none: save the policy in a file, and name that (./- if it is called `-`)";
    Err(common.fail(Failure::Misuse, why))
}

/// Adds an officer's signature of a policy to `FILE.sig`.
pub(super) fn sign(common: &Common, file: &Path, with: &SigningKey) -> Outcome {
    if let Err(outcome) = has_file(common, file) {
        return outcome;
    }
    let text = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    // Nobody should put a name to what `check` refuses: what no PC would take, or what promises a separation that is none.
    let name = file.display().to_string();
    let found = Policy::draft(&name, &text)
        .map_or_else(|found| found, |policy| policy_tools::lint(&policy));
    if found.has_errors() {
        return common.refuse(Failure::No, &found, "not signed");
    }
    add_signature::<PolicyText>(common, file, &text, with, "", |_| ())
}

/// Signs what was looked at, beside the signatures of others that still fit; `warnings` are said with it. `look` is given the key before anything is signed.
pub(super) fn add_signature<S: Signable>(
    common: &Common,
    file: &Path,
    text: &str,
    with: &SigningKey,
    warnings: &str,
    look: impl FnOnce(&PublicKey),
) -> Outcome {
    let secret = match no_dump().and_then(|kept| secret_key(&with.key, &with.passphrase, &kept)) {
        Ok(secret) => secret,
        Err(why) => return common.fail(Failure::No, &why),
    };
    look(&secret.public());
    let beside = signature_file(file);
    let signatures = match signatures::<S>(common, &beside) {
        Ok(signatures) => signatures,
        Err(outcome) => return outcome,
    };
    let before = signatures.count();
    let mut signatures = signatures.fitting(text);
    let stale = before - signatures.count();
    signatures.sign(text, &secret);
    if let Err(error) = durable::replace(&beside, signatures.text().as_bytes(), 0o644) {
        let why = format!("cannot write {}: {error}", beside.display());
        return common.fail(Failure::No, &why);
    }
    let count = signatures.count();
    let signed = json!({"file": beside, "signatures": count, "removed": stale});
    common.done(&signed, || {
        let removed = match (stale, S::PURPOSE) {
            (0, _) => String::new(),
            (_, Purpose::Policy) => {
                format!("; {stale} made before the policy was changed were removed")
            }
            _ => format!("; {stale} made before the trust store was changed were removed"),
        };
        let held =
            printable::counted(u64::try_from(count).unwrap_or(u64::MAX), "signature", "signatures");
        print(&format!("{warnings}{} holds {held}{removed}\n", beside.display()));
    })
}

/// Reads a trust store; returns it and its text.
pub(super) fn trust_store(common: &Common, trust: &Path) -> Result<(TrustStore, String), Outcome> {
    let text = match read_small(trust) {
        Ok(Some(text)) => text,
        Ok(None) => {
            let why = format!(
                "there is no trust store {}; name the one you mean. `bulkhead trust add FILE KEY.pub` begins one",
                trust.display()
            );
            return Err(common.fail(Failure::No, &why));
        }
        Err(error) => return Err(common.fail(Failure::No, &unreadable(trust, &error))),
    };
    match TrustStore::parse(&trust.display().to_string(), &text) {
        Ok(store) => Ok((store, text)),
        Err(found) => Err(common.refuse(Failure::No, &found, "cannot be used")),
    }
}

/// Says whether enough officers of a trust store have signed a policy, and who.
pub(super) fn verify(common: &Common, file: &Path, trust: &Path) -> Outcome {
    if let Err(outcome) = has_file(common, file) {
        return outcome;
    }
    let text = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    let (store, _) = match trust_store(common, trust) {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    let signatures = match signatures::<PolicyText>(common, &signature_file(file)) {
        Ok(signatures) => signatures,
        Err(outcome) => return outcome,
    };
    match store.approve(&text, &signatures) {
        Ok(approval) => {
            let (signers, needed) = (approval.signers(), store.threshold(Purpose::Policy));
            let needed = needed.unwrap_or_default();
            common.done(&json!({"signers": signers, "threshold": needed}), || {
                print(&format!("signed by {}; {needed} needed\n", signers.join(", ")));
            })
        }
        Err(refusal) => {
            common.fail(Failure::No, &format!("{} is not approved: {refusal}", file.display()))
        }
    }
}

/// Sends a policy and its signatures to the agent, to be put in force.
pub(super) fn apply(common: &Common, file: &Path) -> Outcome {
    if let Err(outcome) = has_file(common, file) {
        return outcome;
    }
    let policy = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    // The agent would say the same; here the lines can be shown.
    let parsed = match Policy::parse(&file.display().to_string(), &policy) {
        Ok(parsed) => parsed,
        Err(found) => return common.refuse(Failure::No, &found, "not applied"),
    };
    let beside = signature_file(file);
    let signatures = match read_small(&beside) {
        Ok(signatures) => signatures,
        Err(error) => return common.fail(Failure::No, &unreadable(&beside, &error)),
    };
    if let Err(outcome) = common.ask(&Request::ApplyPolicy { policy, signatures }) {
        return outcome;
    }
    let serial = parsed.serial();
    common.done(&json!({"serial": serial}), || print(&format!("policy {serial} is in force\n")))
}

/// Reads the signatures in a file; none if there is no such file.
pub(super) fn signatures<S: Signable>(
    common: &Common,
    file: &Path,
) -> Result<Signatures<S>, Outcome> {
    match read_small(file) {
        Ok(None) => Ok(Signatures::default()),
        Ok(Some(text)) => Signatures::parse(&file.display().to_string(), &text)
            .map_err(|found| common.refuse(Failure::No, &found, "cannot be used")),
        Err(error) => Err(common.fail(Failure::No, &unreadable(file, &error))),
    }
}

fn no_such(path: &Path) -> String {
    format!("there is no {}; `bulkhead policy keygen` makes a key", path.display())
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
