//! Which policy a command reads: a file, standard input, or the one in force on this PC.

use std::path::Path;

use policy::Policy;

use super::{Common, Failure, Outcome, complain};
use base::defaults;
use config::files::{self, FileFault, FilesError};
use control::client::{ClientError, ask};
use control::commands::Request;
use printable::explain;

/// What to do without a policy in force, where a command takes a policy's file.
const NAME_ONE: &str = "name a policy's file, or - for standard input";

/// A policy's text, and what reports call it.
pub(super) struct PolicyText {
    pub(super) name: String,
    pub(super) text: String,
}

/// Reads the text of the policy that was named, or of the one in force.
pub(super) fn text(common: &Common, file: Option<&Path>) -> Result<PolicyText, Outcome> {
    text_or(common, file, Failure::No)
}

/// Reads the text of the one in force, for a command that takes no file.
pub(super) fn text_in_force(common: &Common) -> Result<PolicyText, Outcome> {
    let policy = defaults::policy().display();
    let help = format!("start the agent, or put the office's policy at {policy}");
    in_force(common, Failure::No, &help)
}

/// Reads it for a command to which a file without a policy is another failure.
fn text_or(common: &Common, file: Option<&Path>, failure: Failure) -> Result<PolicyText, Outcome> {
    let Some(file) = file else { return in_force(common, failure, NAME_ONE) };
    let (read, name) = match file == Path::new("-") {
        true => (files::read_policy_from_stdin(), "standard input".to_owned()),
        false => (files::read_policy_text(file), file.display().to_string()),
    };
    match read {
        Ok(text) => Ok(PolicyText { name, text }),
        Err(FilesError::Read { fault: FileFault::Missing, .. }) => {
            let why = format!(
                "there is no file {name}: check its name, or start one with `bulkhead policy new {name}`"
            );
            Err(common.fail(failure, &why))
        }
        Err(error) => Err(common.fail(failure, &explain(&error))),
    }
}

/// Reads it as a policy.
pub(super) fn read(common: &Common, file: Option<&Path>) -> Result<Policy, Outcome> {
    read_or(common, file, Failure::No)
}

/// Reads it as a policy for a command to which a file without a policy is another failure.
pub(super) fn read_or(
    common: &Common,
    file: Option<&Path>,
    failure: Failure,
) -> Result<Policy, Outcome> {
    let PolicyText { name, text } = text_or(common, file, failure)?;
    Policy::draft(&name, &text).map_err(|found| common.refuse(failure, &found, "cannot be used"))
}

/// Reads what the agent of this PC goes by; where none runs, what it would start with. `help` is what to do where neither is there.
fn in_force(common: &Common, failure: Failure, help: &str) -> Result<PolicyText, Outcome> {
    match ask(&common.runtime, &Request::Policy {}) {
        Ok(answer) => match answer.policy_text {
            Some(text) if answer.ok => {
                Ok(PolicyText { name: "the policy in force".to_owned(), text })
            }
            _ => {
                let why = answer.error.unwrap_or_else(|| {
                    "the agent's answer holds no policy: `bulkhead` and `bulkhead-agent` are of different versions".to_owned()
                });
                Err(common.fail(failure, &why))
            }
        },
        Err(ClientError::NoAgent { .. }) => {
            let file = defaults::policy().display();
            match files::read_policy_text(defaults::policy()) {
                Ok(text) => {
                    complain(&format!(
                        "bulkhead: no agent is running here, so no policy is in force; this is the file it would start with, {file}\n"
                    ));
                    Ok(PolicyText { name: file.to_string(), text })
                }
                Err(error) => {
                    let why = format!(
                        "no agent is running here, so no policy is in force, and the file it would start with cannot be read either: {}; {help}",
                        explain(&error)
                    );
                    Err(common.fail(Failure::NoAgent, &why))
                }
            }
        }
        Err(error) => Err(common.fail(Failure::NoAgent, &explain(&error))),
    }
}
