//! `bulkhead trust`: who may sign what, and how many must. Needs no agent: a trust store is a file that officers sign and IT lays down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use policy::SERIAL_MAX;
use policy::signature::{
    Officer, PublicKey, Purpose, TrustDifference, TrustDraft, TrustStore, TrustText, public_key,
};
use serde_json::{Value, json};

use super::answer::unwritten;
use super::signing::{SigningKey, add_signature, signatures, trust_store, unreadable};
use super::{Common, Failure, Outcome, complain, print};
use base::durable;
use config::files::{read_small, signature_file};

/// Where a PC's trust store is.
pub(super) const TRUST: &str = "/etc/bulkhead/trust.toml";

/// The commands of `bulkhead trust`.
#[derive(Debug, Subcommand)]
pub(super) enum TrustCommand {
    /// Who may sign what, how many must, and which settings are weak
    Show {
        /// The trust store's file
        #[arg(default_value = TRUST)]
        file: PathBuf,
    },
    /// Let an officer sign; a file that is not there is begun, and one of format 1 is written in format 2
    Add {
        /// The trust store that is being written
        file: PathBuf,
        /// The officer's public key, as `bulkhead policy keygen` wrote it
        #[arg(value_name = "KEY.pub")]
        key: PathBuf,
        /// What the officer may sign, such as policy,image,trust; `program` lets them bring any program onto the PCs [default: policy]
        #[arg(long, value_name = "PURPOSES", value_delimiter = ',', value_parser = purpose)]
        may_sign: Vec<Purpose>,
        /// Put the key in the place of that of the officer of this name, who may sign what they could before if --may-sign is left out
        #[arg(long)]
        replace: bool,
    },
    /// Let an officer sign no more
    Remove {
        /// The trust store that is being written
        file: PathBuf,
        /// The officer's name, as it stands in the file
        name: String,
    },
    /// Say how many officers must sign
    Threshold {
        /// The trust store that is being written
        file: PathBuf,
        /// For which purpose how many, such as policy=2
        #[arg(value_name = "PURPOSE=N", required = true, value_parser = threshold)]
        thresholds: Vec<(Purpose, usize)>,
    },
    /// Say what differs from the trust store of now, and add an officer's signature to FILE.sig
    Sign {
        /// The trust store; it must be without mistakes
        file: PathBuf,
        /// The trust store of now [default: that of this PC, if there is one]
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        #[command(flatten)]
        with: SigningKey,
    },
    /// What differs from the trust store of now, and would a PC that goes by that take this one? Looks at files, not at what a PC remembers. Of one and the same store,
    /// named twice: whether enough of its own officers signed it
    Verify {
        /// The new trust store; its signatures are in FILE.sig
        file: PathBuf,
        /// The trust store of now [default: that of this PC]
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
}

fn purpose(word: &str) -> Result<Purpose, String> {
    Purpose::of(word).ok_or_else(|| {
        let known = Purpose::ALL.map(Purpose::word).join(", ");
        format!("`{word}` is nothing that an officer may sign; write one or more of {known}, with commas between them")
    })
}

fn threshold(text: &str) -> Result<(Purpose, usize), String> {
    let (word, number) = text
        .split_once('=')
        .ok_or("write a purpose, an equals sign and how many must sign, such as policy=2")?;
    let number = number
        .parse()
        .map_err(|_| format!("`{number}` is no number of officers; write one, such as {word}=2"))?;
    Ok((purpose(word)?, number))
}

pub(super) fn run(common: &Common, command: &TrustCommand) -> Outcome {
    match command {
        TrustCommand::Show { file } => show(common, file),
        TrustCommand::Add { file, key, may_sign, replace } => {
            add(common, file, key, may_sign, *replace)
        }
        TrustCommand::Remove { file, name } => edit(common, file, false, |draft| {
            let before = draft.officers.len();
            draft.officers.retain(|officer| officer.name != *name);
            if draft.officers.len() == before {
                return Err(format!("there is no officer \"{name}\" in it; {}", there_are(draft)));
            }
            Ok(())
        }),
        TrustCommand::Threshold { file, thresholds } => edit(common, file, false, |draft| {
            draft.thresholds.extend(thresholds.iter().copied());
            Ok(())
        }),
        TrustCommand::Sign { file, trust, with } => sign(common, file, trust.as_deref(), with),
        TrustCommand::Verify { file, trust } => verify(common, file, trust.as_deref()),
    }
}

fn there_are(draft: &TrustDraft) -> String {
    let names: Vec<&str> = draft.officers.iter().map(|officer| officer.name.as_str()).collect();
    format!("there are {}", names.join(", "))
}

fn show(common: &Common, file: &Path) -> Outcome {
    let (store, _) = match trust_store(common, file) {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    common.done(&report(&store), || {
        let keys = store.officers().iter().map(|it| format!("{}  {}\n", it.key, it.name));
        print(&format!("{}{}", summary(&store), keys.collect::<String>()));
    })
}

/// Returns what a script reads of a store.
fn report(store: &TrustStore) -> Value {
    let thresholds: serde_json::Map<String, Value> = Purpose::ALL
        .into_iter()
        .filter_map(|it| Some((it.word().to_owned(), store.threshold(it)?.into())))
        .collect();
    let officer = |officer: &Officer| {
        let may_sign: Vec<&str> = officer.may_sign.iter().map(|it| it.word()).collect();
        json!({"name": officer.name, "key": officer.key.to_string(), "may_sign": may_sign})
    };
    let officers: Vec<Value> = store.officers().iter().map(officer).collect();
    json!({
        "serial": store.serial(),
        "threshold": thresholds,
        "officers": officers,
        "weak": weak(store),
    })
}

fn weak(store: &TrustStore) -> Vec<Value> {
    let weakness =
        |found: policy::signature::Weakness| json!({"what": found.what, "remedy": found.remedy});
    store.weaknesses().into_iter().map(weakness).collect()
}

/// Returns what a person reads of a store: who may sign what, and what is to be warned of.
fn summary(store: &TrustStore) -> String {
    let mut text = match store.serial() {
        Some(serial) => format!("serial {serial}\n"),
        None => "format 1: for policies only, and nobody signs its changes; `bulkhead trust add` writes format 2\n".to_owned(),
    };
    for purpose in Purpose::ALL {
        let names: Vec<&str> = store.officers_for(purpose).map(|it| it.name.as_str()).collect();
        text += &match store.threshold(purpose) {
            Some(threshold) => {
                format!(
                    "{:<8} {threshold} of {}: {}\n",
                    purpose.word(),
                    names.len(),
                    names.join(", ")
                )
            }
            None => format!("{:<8} nobody\n", purpose.word()),
        };
    }
    text + &warnings(store)
}

/// Returns a line for each weak setting of a store.
fn warnings(store: &TrustStore) -> String {
    let mut text = String::new();
    for weakness in store.weaknesses() {
        text += &format!("weak: {}\n      -> {}\n", weakness.what, weakness.remedy);
    }
    text
}

fn add(common: &Common, file: &Path, key: &Path, may_sign: &[Purpose], replace: bool) -> Outcome {
    let name = key.display().to_string();
    let added = match read_small(key) {
        Ok(Some(text)) => public_key(&name, &text),
        Ok(None) => {
            let why = format!(
                "there is no {name}; `bulkhead policy keygen` makes a key and its .pub file"
            );
            return common.fail(Failure::No, &why);
        }
        Err(error) => return common.fail(Failure::No, &unreadable(key, &error)),
    };
    let (name, key) = match added {
        Ok(added) => added,
        Err(found) => return common.refuse(Failure::No, &found, "not added"),
    };
    let chosen = |former: Option<&Officer>| -> Vec<Purpose> {
        match (may_sign, former) {
            ([], Some(former)) => former.may_sign.clone(),
            ([], None) => vec![Purpose::Policy],
            (may, _) => Purpose::ALL.into_iter().filter(|it| may.contains(it)).collect(),
        }
    };
    edit(common, file, true, |draft| {
        let there = draft.officers.iter_mut().find(|officer| officer.name == name);
        match (there, replace) {
            (Some(officer), true) => {
                officer.may_sign = chosen(Some(&*officer));
                officer.key = key;
            }
            (Some(_), false) => {
                return Err(format!(
                    "\"{name}\" is in it already: give --replace if this is their new key, or for what they may sign from now on; \
                     if they are two people, have the key made anew under a name that tells them apart"
                ));
            }
            (None, true) => {
                return Err(format!(
                    "there is no officer \"{name}\" whose key could be replaced; {}",
                    there_are(draft)
                ));
            }
            (None, false) => {
                draft.officers.push(Officer { name, key, may_sign: chosen(None) });
            }
        }
        Ok(())
    })
}

/// Changes a trust store that is being written, and raises its serial. `begin` says whether one that is not there is begun.
fn edit(
    common: &Common,
    file: &Path,
    begin: bool,
    change: impl FnOnce(&mut TrustDraft) -> Result<(), String>,
) -> Outcome {
    let is_new = begin && matches!(read_small(file), Ok(None));
    let mut draft = match is_new {
        true => TrustDraft::default(),
        false => match trust_store(common, file) {
            Ok((store, _)) => TrustDraft::from(&store),
            Err(outcome) => return outcome,
        },
    };
    let former = draft.clone();
    if let Err(why) = change(&mut draft).and_then(|()| settle(file, &former.thresholds, &mut draft))
    {
        return common.fail(Failure::No, &format!("{}: {why}", file.display()));
    }
    let text = draft.text();
    let store = match TrustStore::parse(&file.display().to_string(), &text) {
        Ok(store) => store,
        Err(found) => return common.refuse(Failure::No, &found, "not changed: it would be this"),
    };
    if let Err(error) = durable::replace(file, text.as_bytes(), 0o644) {
        return common.fail(Failure::No, &unwritten(file, &error));
    }
    let found = former.differences(&draft);
    let mut report = report(&store);
    if let Some(keys) = report.as_object_mut() {
        keys.insert("file".to_owned(), json!(file));
        keys.insert("differences".to_owned(), sentences(&found).into());
    }
    common.done(&report, || {
        print(&format!("wrote {}\n{}{}", file.display(), lines(&found), summary(&store)));
    })
}

fn sentences(found: &[TrustDifference]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

fn lines(found: &[TrustDifference]) -> String {
    found.iter().map(|it| format!("{it}\n")).collect()
}

/// Returns the differences between two stores, and a text of them that begins with which stores they are.
fn compared(
    before: &TrustStore,
    named: &Path,
    next: &TrustStore,
) -> (Vec<TrustDifference>, String) {
    let found = TrustDraft::from(before).differences(&TrustDraft::from(next));
    let differs =
        if found.is_empty() { "has the same officers and thresholds as" } else { "differs from" };
    let said = format!("{differs} {}\n{}", named.display(), lines(&found));
    (found, said)
}

/// Completes a change: raises the serial, sets thresholds for what somebody may sign now, and removes those of what nobody may any more.
///
/// # Errors
/// There is no higher serial, or a threshold asks for more officers than may sign.
fn settle(
    file: &Path,
    former: &BTreeMap<Purpose, usize>,
    draft: &mut TrustDraft,
) -> Result<(), String> {
    if draft.serial >= SERIAL_MAX {
        return Err(format!("no serial is above {SERIAL_MAX}: begin a new trust store"));
    }
    draft.serial += 1;
    for purpose in Purpose::ALL {
        let may = draft.officers.iter().filter(|it| it.may_sign.contains(&purpose)).count();
        match draft.thresholds.get(&purpose).copied() {
            None if may > 0 => {
                draft.thresholds.insert(purpose, 1);
            }
            // The last one who could is gone. Who is asked for a threshold of what nobody may sign is told.
            Some(_) if may == 0 && former.contains_key(&purpose) => {
                draft.thresholds.remove(&purpose);
            }
            // This command asks for so many.
            Some(threshold)
                if threshold > may && may > 0 && former.get(&purpose) != Some(&threshold) =>
            {
                let officers = if may == 1 { "officer" } else { "officers" };
                let more = if threshold - may == 1 { "another" } else { "others" };
                return Err(format!(
                    "only {may} {officers} may sign `{purpose}`: let {more} sign for it first (`bulkhead trust add {} KEY.pub --may-sign {purpose}`; with --replace, and all that the officer may sign, for one who is in it already), then ask for {threshold}",
                    file.display()
                ));
            }
            Some(threshold) if threshold > may && may > 0 => {
                return Err(format!(
                    "`{purpose}` asks for {threshold} officers, and only {may} may sign it then: lower that first, with `bulkhead trust threshold {} {purpose}={may}`, or let others sign it",
                    file.display()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the store that a new one is compared with: the one that was named, or this PC's if it has one that can be read.
fn reference_store(
    common: &Common,
    named: Option<&Path>,
) -> Result<Option<(TrustStore, PathBuf)>, Outcome> {
    let here = Path::new(TRUST);
    match named {
        Some(named) => Ok(Some((trust_store(common, named)?.0, named.to_owned()))),
        None => Ok(read_small(here)
            .ok()
            .flatten()
            .and_then(|text| TrustStore::parse(TRUST, &text).ok())
            .map(|store| (store, here.to_owned()))),
    }
}

/// Refuses a store with the last serial, which no other can follow, and says why.
fn can_be_followed(common: &Common, file: &Path, store: &TrustStore) -> Result<(), Outcome> {
    if !store.ends_changes() {
        return Ok(());
    }
    let why = format!(
        "{} has the serial {SERIAL_MAX}, above which there is none: a PC that took it could never take another. \
         Give it the serial after that of the trust store of now, and have it signed",
        file.display()
    );
    Err(common.fail(Failure::No, &why))
}

fn sign(common: &Common, file: &Path, trust: Option<&Path>, with: &SigningKey) -> Outcome {
    let (store, text) = match trust_store(common, file) {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    if store.serial().is_none() {
        let why = format!(
            "{} is of format 1, whose changes nobody signs: write it in format 2 with `bulkhead trust add`",
            file.display()
        );
        return common.fail(Failure::No, &why);
    }
    let looked =
        can_be_followed(common, file, &store).and_then(|()| reference_store(common, trust));
    let before = match looked {
        Ok(before) => before,
        Err(outcome) => return outcome,
    };
    // Before a passphrase is asked for: what is to be signed.
    complain(&match &before {
        Some((before, named)) => {
            format!("{} {}", file.display(), compared(before, named, &store).1)
        }
        None => format!(
            "{} is compared with no trust store: name that of the PCs with --trust to see what differs\n",
            file.display()
        ),
    });
    let look = |key: &PublicKey| {
        if !store.officers_for(Purpose::Trust).any(|officer| officer.key == *key) {
            complain(&format!(
                "bulkhead: warning: {key} is no key that may sign for `trust` by {}: its signature counts for the trust store of before, at most. \
                 If it is yours and you are not leaving, do not hand this on\n",
                file.display()
            ));
        }
    };
    add_signature::<TrustText>(common, file, &text, with, &warnings(&store), look)
}

fn verify(common: &Common, file: &Path, named: Option<&Path>) -> Outcome {
    let trust = named.unwrap_or(Path::new(TRUST));
    let read =
        trust_store(common, trust).and_then(|before| Ok((before, trust_store(common, file)?)));
    let ((before, text_before), (next, text)) = match read {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    let (found, differs) = compared(&before, trust, &next);
    let differs = format!("{} {differs}", file.display());
    if let Err(outcome) = can_be_followed(common, file, &next) {
        return outcome;
    }
    let follows = text != text_before;
    let report = |signers: &[String], next: &TrustStore| json!({"signers": signers, "serial": next.serial(), "differences": sentences(&found), "follows": follows});
    if !before.signs_changes() {
        let said = "the trust store of now asks for no signatures of its changes: whoever may write the file lays this one down\n";
        return common.done(&report(&[], &next), || print(&format!("{differs}{said}")));
    }
    let beside = signature_file(file);
    let signatures = match signatures::<TrustText>(common, &beside) {
        Ok(signatures) => signatures,
        Err(outcome) => return outcome,
    };
    // A store does not follow itself; whether enough officers signed it is asked all the same, by who names it twice.
    if named.is_some()
        && text == text_before
        && let Ok(approval) = before.approve(&text, &signatures)
    {
        let signers = approval.signers();
        return common.done(&report(signers, &next), || {
            print(&format!(
                "enough of its own officers signed {} ({}), which says nothing of the store that a PC goes by; it is the store that it is compared with, so there is nothing to follow\n",
                file.display(),
                signers.join(", ")
            ));
        });
    }
    match before.succeed(&file.display().to_string(), &text, &signatures) {
        Ok((next, approval)) => {
            let signers = approval.signers();
            common.done(&report(signers, &next), || {
                let serial = next.serial().unwrap_or_default();
                print(&format!(
                    "{differs}signed by {}; it may follow with serial {serial}\n",
                    signers.join(", ")
                ));
            })
        }
        Err(why) => {
            complain(&differs);
            common.fail(Failure::No, &format!("{} may not follow: {why}", file.display()))
        }
    }
}
