//! `bulkhead policy`: the security office's tools. The work is the policy crate's; files are read
//! and verdicts become exit statuses here.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use policy::request::UsbDescription;
use policy::version::{NoVersion, Version};
use policy_tools::from_device::rule_for;
use policy_tools::{Matrix, first_policy};
use serde_json::json;

use super::answer::unwritten;
use super::audit::{self, EntryFilterArgs};
use super::explain::{self, ExplainRequest};
use super::in_force::{self, PolicyText};
use super::{
    Common, Failure, Outcome, colours, page, passphrase, print, print_styled, replay, signing,
};
use base::durable;
use control::commands::{Request as AgentRequest, about};

/// The commands of `bulkhead policy`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Is it fit to be signed? Errors, warnings, and its own expectations
    Check {
        /// The policy; `-` is standard input, and left out the policy in force is meant
        file: Option<PathBuf>,
        /// Also say what PCs of an older version would refuse it for
        #[arg(long, value_name = "VERSION", value_parser = version)]
        for_version: Option<Version>,
    },
    /// What would happen, by which rule, and why; exit status 1 when it would be denied, 2 when nothing can be said
    Explain {
        /// The policy, before `clipboard` or `usb`; `-` is standard input, and left out the policy in force is meant
        file: Option<PathBuf>,
        #[command(subcommand)]
        what: ExplainRequest,
    },
    /// What a new policy would allow, deny or change; exit status 1 when anything widened, or could not be compared to the end
    Diff {
        /// The old policy and the new one, or the new one alone to compare it with the policy in force; `-` is standard input
        #[arg(value_name = "FILE", num_args = 1..=2, required = true)]
        files: Vec<PathBuf>,
    },
    /// Who may send what to whom, as a table
    Matrix {
        /// The policy; `-` is standard input, and left out the policy in force is meant
        file: Option<PathBuf>,
        /// Write the table as a page for the browser and the printer instead; of files that are there, only such a page is replaced
        #[arg(long, value_name = "PAGE")]
        html: Option<PathBuf>,
    },
    #[command(about = about("policy"))]
    Show,
    /// Write the rule for a USB device that is plugged in, to go into a policy
    FromDevice {
        /// Where it is plugged in, as `bulkhead usb list` shows it
        #[arg(value_name = "BUSID")]
        bus_id: String,
        /// The domain that is to have it
        #[arg(long, value_name = "DOMAIN")]
        to: String,
    },
    /// What it would have decided otherwise, for the flows in the audit log; exit status 1 if anything
    Replay {
        /// The policy that is being written; `-` is standard input, and left out the policy in force is meant
        file: Option<PathBuf>,
        /// The log's directory, behind the policy [default: /var/lib/bulkhead/audit]
        #[arg(value_name = "LOG")]
        behind: Option<PathBuf>,
        /// The log's directory, in place of the one behind FILE: FILE may be named too, and left out the policy in force is meant
        #[arg(long, value_name = "LOG", conflicts_with = "behind")]
        log: Option<PathBuf>,
        #[command(flatten)]
        wanted: EntryFilterArgs,
    },
    /// Make an officer's key: FILE, which the officer alone keeps, and FILE.pub for the PCs' trust stores
    Keygen {
        /// Where the secret key goes, not ending in .pub; a file that is there is never replaced
        file: PathBuf,
        /// The officer's name, as the trust store and `status` are to show it
        #[arg(long)]
        name: String,
        #[command(flatten)]
        keeping: signing::KeyProtectionArgs,
    },
    /// Put a passphrase on an officer's key, change it, or take it off; the key, and what was signed with it, stay the same
    Passphrase {
        /// The officer's secret key
        key: PathBuf,
        #[command(flatten)]
        former: passphrase::Source,
        #[command(flatten)]
        new: passphrase::NewSource,
    },
    /// Add an officer's signature to FILE.sig
    Sign {
        /// The policy; it must be without mistakes
        file: PathBuf,
        #[command(flatten)]
        with: signing::SigningKey,
    },
    /// Have enough trusted officers signed it?
    Verify {
        /// The policy; its signatures are in FILE.sig
        file: PathBuf,
        /// Who may sign, and how many must; this file is looked at, and not what a PC remembers
        #[arg(long, value_name = "FILE", default_value = super::trust::TRUST)]
        trust: PathBuf,
    },
    #[command(about = about("apply-policy"))]
    Apply {
        /// The policy; its signatures are in FILE.sig
        file: PathBuf,
    },
    /// A commented policy to start from, for a ward PC with two domains
    New {
        /// Where to write it; to standard output when left out
        file: Option<PathBuf>,
    },
}

/// Parses the name of a version whose policies this one can judge: its own or an older one.
fn version(text: &str) -> Result<Version, String> {
    let explained = |error: NoVersion| error.to_string();
    let (asked, this): (Version, Version) =
        (text.parse().map_err(explained)?, Version::this().map_err(explained)?);
    if asked > this {
        return Err(format!(
            "this is Bulkhead {this}, which cannot know what {asked} refuses; ask a Bulkhead of that version"
        ));
    }
    Ok(asked)
}

pub(super) fn run(common: &Common, command: &PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Check { file, for_version } => check(common, file.as_deref(), *for_version),
        PolicyCommand::Explain { file, what } => explain::run(common, file.as_deref(), what),
        PolicyCommand::Diff { files } => diff(common, files),
        PolicyCommand::Show => show(common),
        PolicyCommand::FromDevice { bus_id, to } => from_device(common, bus_id, to),
        PolicyCommand::Matrix { file, html } => matrix(common, file.as_deref(), html.as_deref()),
        PolicyCommand::New { file } => start(common, file.as_deref()),
        PolicyCommand::Replay { file, behind, log, wanted } => match wanted.filter(common) {
            Ok(filter) => {
                let log =
                    log.as_deref().or(behind.as_deref()).unwrap_or(Path::new(audit::DIRECTORY));
                replay::replay(common, file.as_deref(), log, &filter)
            }
            Err(outcome) => outcome,
        },
        PolicyCommand::Keygen { file, name, keeping } => {
            signing::keygen(common, file, name, keeping)
        }
        PolicyCommand::Passphrase { key, former, new } => {
            signing::passphrase(common, key, former, new)
        }
        PolicyCommand::Sign { file, with } => signing::sign(common, file, with),
        PolicyCommand::Verify { file, trust } => signing::verify(common, file, trust),
        PolicyCommand::Apply { file } => signing::apply(common, file),
    }
}

fn check(common: &Common, file: Option<&Path>, version: Option<Version>) -> Outcome {
    let PolicyText { name, text } = match in_force::text(common, file) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    let report = match version {
        Some(version) => policy_tools::check_for(version, &name, &text),
        None => policy_tools::check(&name, &text),
    };
    let verdict = if report.ok { Ok(()) } else { Err(report.to_string()) };
    common.answer(verdict, &report, || print_styled(&report.render(colours(&io::stdout()))))
}

fn diff(common: &Common, files: &[PathBuf]) -> Outcome {
    let (old, new) = match files {
        [old, new] => (Some(old.as_path()), Some(new.as_path())),
        [new] => (None, Some(new.as_path())),
        // The command line takes no other number.
        _ => (None, None),
    };
    if old == Some(Path::new("-")) && old == new {
        return common
            .fail(Failure::Misuse, "standard input holds one policy: name a file for the other");
    }
    // Both are read before the first is given up on, so that one run names every mistake.
    let (old, new) = match (in_force::read(common, old), in_force::read(common, new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    let diff = policy_tools::diff(&old, &new);
    let verdict = match diff.widened {
        true => Err("the new policy is wider than the old one".to_owned()),
        false => Ok(()),
    };
    common.answer(verdict, &diff, || print(&diff.to_string()))
}

fn matrix(common: &Common, file: Option<&Path>, html: Option<&Path>) -> Outcome {
    let policy = match in_force::read(common, file) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    let matrix = Matrix::of(&policy);
    if let Some(page) = html {
        return match page::write(page, &matrix.html()) {
            Ok(()) => written(common, page),
            Err(why) => common.fail(Failure::No, &why),
        };
    }
    common.done(&matrix, || print(&matrix.to_string()))
}

fn show(common: &Common) -> Outcome {
    let PolicyText { name, text } = match in_force::text_in_force(common) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    common.done(&json!({ "file": name, "policy": text }), || print(&text))
}

fn from_device(common: &Common, bus_id: &str, to: &str) -> Outcome {
    let list = match common.ask(&AgentRequest::UsbList {}) {
        Ok(answer) => answer.usb.unwrap_or_default(),
        Err(outcome) => return outcome,
    };
    let Some(report) = list.iter().find(|report| report.bus_id == bus_id) else {
        let known: Vec<&str> = list.iter().map(|report| report.bus_id.as_str()).collect();
        let help = match known.as_slice() {
            [] => "no device is plugged in".to_owned(),
            known => format!("plugged in are {}; see `bulkhead usb list`", known.join(", ")),
        };
        return common.fail(Failure::Misuse, &format!("nothing is plugged in at {bus_id}: {help}"));
    };
    if report.device.is_empty() {
        let why = format!("the device at {bus_id} has not been read: {}", report.why);
        return common.fail(Failure::No, &why);
    }
    let device: UsbDescription = match report.device.parse::<UsbDescription>() {
        Ok(device) => device,
        Err(mistake) => {
            let why =
                format!("what the agent says of the device at {bus_id} cannot be read: {mistake}");
            return common.fail(Failure::No, &why);
        }
    };
    // A name that the policy in force does not have is perhaps a slip, and the rule would be refused with it.
    let policy = match in_force::read(common, None) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    if let Err(mistake) = policy.find_domain(to) {
        return common.fail(Failure::Misuse, &format!("--to: {mistake}"));
    }
    let device = UsbDescription { port: Some(bus_id.to_owned()), ..device };
    match rule_for(&device, &report.name, to) {
        Ok(rule) => common.done(&json!({ "rule": rule }), || print(&rule)),
        Err(error) => {
            common.fail(Failure::No, &format!("no rule for the device at {bus_id}: {error}"))
        }
    }
}

fn start(common: &Common, file: Option<&Path>) -> Outcome {
    let policy = first_policy();
    let Some(file) = file else {
        return common.done(&json!({ "policy": policy }), || print(&policy));
    };
    let made = durable::create(file, policy.as_bytes(), 0o644);
    match made {
        Ok(()) => written(common, file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => common.fail(
            Failure::No,
            &format!("{} is there already and is left as it is; name another file", file.display()),
        ),
        Err(error) => common.fail(Failure::No, &unwritten(file, &error)),
    }
}

fn written(common: &Common, file: &Path) -> Outcome {
    common.done(&json!({ "file": file }), || print(&format!("wrote {}\n", file.display())))
}
