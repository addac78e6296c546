//! `bulkhead policy keygen|sign|verify|apply`: the officers' keys, and the way of a signed policy onto a PC.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use policy::Policy;
use policy::signature::{SecretKey, Signatures, TrustStore};
use serde_json::json;
use zeroize::Zeroizing;

use super::policy::refuse;
use super::{Common, Outcome, print};
use crate::control::protocol::Request;
use crate::durable;
use crate::files;
use crate::policy_store::{read_small, signature_file};
use crate::supervisor::devices::explain;

pub(super) fn keygen(common: &Common, file: &Path, name: &str) -> Outcome {
    let mut random = Zeroizing::new([0; 32]);
    if let Err(error) = getrandom::fill(random.as_mut_slice()) {
        return common.fail(Outcome::No, &format!("the system has no randomness: {error}"));
    }
    let key = SecretKey::from_random(&random);
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = Path::new(&public);
    let name = serde_json::Value::from(name).to_string();
    let entry = format!("[[officer]]\nname = {name}\nkey = \"{}\"\n", key.public());
    if let Err(found) = TrustStore::parse("the key", &format!("format = 1\nthreshold = 1\n{entry}"))
    {
        return refuse(common, &found);
    }
    for (path, content, mode) in
        [(file, key.text().as_bytes(), 0o600), (public, entry.as_bytes(), 0o644)]
    {
        if let Err(error) = create(path, content, mode) {
            let why = match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    "it is there already, and a key is never replaced; name another file".to_owned()
                }
                _ => error.to_string(),
            };
            return common.fail(Outcome::No, &format!("cannot write {}: {why}", path.display()));
        }
    }
    if common.json {
        let public_key = key.public().to_string();
        common
            .print_json(&json!({"ok": true, "secret": file, "public": public, "key": public_key}));
    } else {
        print(&format!(
            "wrote {}: keep it where nobody else can read it, best on a medium that is not left in a PC\n\
             wrote {}: IT adds it to /etc/bulkhead/trust.toml of each PC\n",
            file.display(),
            public.display()
        ));
    }
    Outcome::Yes
}

fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

pub(super) fn sign(common: &Common, file: &Path, key: &Path) -> Outcome {
    let text = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Outcome::No, &explain(&error)),
    };
    // Nobody should put a name to what no PC would take.
    if let Err(found) = Policy::parse(&file.display().to_string(), &text) {
        return refuse(common, &found);
    }
    let secret = match read_small(key) {
        Ok(Some(secret)) => Zeroizing::new(secret),
        Ok(None) => return common.fail(Outcome::No, &no_such(key)),
        Err(error) => return common.fail(Outcome::No, &unreadable(key, &error)),
    };
    let secret = match SecretKey::parse(&secret) {
        Ok(secret) => secret,
        Err(mistake) => {
            return common.fail(Outcome::No, &format!("{}: {mistake}", key.display()));
        }
    };
    let beside = signature_file(file);
    let signatures = match signatures(common, &beside) {
        Ok(signatures) => signatures,
        Err(outcome) => return outcome,
    };
    let before = signatures.count();
    let mut signatures = signatures.fitting(&text);
    let stale = before - signatures.count();
    signatures.sign(&text, &secret);
    if let Err(error) = durable::replace(&beside, signatures.text().as_bytes(), 0o644) {
        let why = format!("cannot write {}: {error}", beside.display());
        return common.fail(Outcome::No, &why);
    }
    if common.json {
        let count = signatures.count();
        common.print_json(
            &json!({"ok": true, "file": beside, "signatures": count, "removed": stale}),
        );
        return Outcome::Yes;
    }
    let removed = match stale {
        0 => String::new(),
        _ => format!("; {stale} made before the policy was changed were removed"),
    };
    print(&format!("{} holds {} signature(s){removed}\n", beside.display(), signatures.count()));
    Outcome::Yes
}

pub(super) fn verify(common: &Common, file: &Path, trust: &Path) -> Outcome {
    let text = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Outcome::No, &explain(&error)),
    };
    let store = match read_small(trust) {
        Ok(Some(store)) => store,
        Ok(None) => {
            let why = format!("there is no trust store {}; name it with --trust", trust.display());
            return common.fail(Outcome::No, &why);
        }
        Err(error) => return common.fail(Outcome::No, &unreadable(trust, &error)),
    };
    let store = match TrustStore::parse(&trust.display().to_string(), &store) {
        Ok(store) => store,
        Err(found) => return refuse(common, &found),
    };
    let signatures = match signatures(common, &signature_file(file)) {
        Ok(signatures) => signatures,
        Err(outcome) => return outcome,
    };
    match store.approve(&text, &signatures) {
        Ok(approval) => {
            let (signers, needed) = (approval.signers(), store.threshold());
            if common.json {
                common.print_json(&json!({"ok": true, "signers": signers, "threshold": needed}));
            } else {
                print(&format!("signed by {}; {needed} needed\n", signers.join(", ")));
            }
            Outcome::Yes
        }
        Err(refusal) => {
            common.fail(Outcome::No, &format!("{} is not approved: {refusal}", file.display()))
        }
    }
}

pub(super) fn apply(common: &Common, file: &Path) -> Outcome {
    let policy = match files::read_policy_text(file) {
        Ok(text) => text,
        Err(error) => return common.fail(Outcome::No, &explain(&error)),
    };
    // The agent would say the same; here the lines can be shown.
    let parsed = match Policy::parse(&file.display().to_string(), &policy) {
        Ok(parsed) => parsed,
        Err(found) => return refuse(common, &found),
    };
    let beside = signature_file(file);
    let signatures = match read_small(&beside) {
        Ok(signatures) => signatures,
        Err(error) => return common.fail(Outcome::No, &unreadable(&beside, &error)),
    };
    if let Err(outcome) = common.ask(&Request::ApplyPolicy { policy, signatures }) {
        return outcome;
    }
    if common.json {
        common.print_json(&json!({"ok": true, "serial": parsed.serial()}));
    } else {
        print(&format!("policy {} is in force\n", parsed.serial()));
    }
    Outcome::Yes
}

/// The signatures in a file; none if there is no such file.
fn signatures(common: &Common, file: &Path) -> Result<Signatures, Outcome> {
    match read_small(file) {
        Ok(None) => Ok(Signatures::default()),
        Ok(Some(text)) => Signatures::parse(&file.display().to_string(), &text)
            .map_err(|found| refuse(common, &found)),
        Err(error) => Err(common.fail(Outcome::No, &unreadable(file, &error))),
    }
}

fn no_such(path: &Path) -> String {
    format!("there is no {}; `bulkhead policy keygen` makes a key", path.display())
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
