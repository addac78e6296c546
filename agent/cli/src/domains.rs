//! `bulkhead start|stop|restart|renew|reset`: asks the agent, then waits for what takes time.

use std::thread;
use std::time::Duration;

use clock::Moment;

use serde::Serialize;

use super::{Common, Failure, Outcome, print};
use control::client::ASK_AGAIN;
use control::commands::Request;
use control::protocol::DomainReport;

/// How long a domain may take to run. Handing over a NIC and copying a disk are the slow parts.
const START_MAX: Duration = Duration::from_secs(660);
/// How long it may take to be off: the longest deadline a guest can be given, and what follows it.
const STOP_MAX: Duration = Duration::from_secs(700);

#[derive(Serialize)]
struct DomainResult<'a> {
    domain: &'a str,
    state: &'a str,
    pid: Option<i32>,
}

pub(super) fn start(common: &Common, name: &str) -> Outcome {
    let request = Request::Start { domain: name.to_owned() };
    carry_out(common, name, &request, START_MAX, running)
}

pub(super) fn stop(common: &Common, name: &str, now: bool) -> Outcome {
    let request = Request::Stop { domain: name.to_owned(), now };
    carry_out(common, name, &request, STOP_MAX, |domain| match domain.state.as_str() {
        "off" => Some(match domain.problem.clone() {
            // It is off; that its guest was slow or its NIC did not come back is worth a word.
            Some(problem) => Verdict::Warn(problem),
            None => Verdict::Yes,
        }),
        _ if domain.wanted => Some(Verdict::No("somebody started it again meanwhile".to_owned())),
        _ => None,
    })
}

pub(super) fn restart(common: &Common, name: &str) -> Outcome {
    let request = Request::Restart { domain: name.to_owned() };
    carry_out(common, name, &request, START_MAX + STOP_MAX, running)
}

pub(super) fn renew(common: &Common, name: &str) -> Outcome {
    let request = Request::Renew { domain: name.to_owned() };
    carry_out(common, name, &request, START_MAX + STOP_MAX, running)
}

pub(super) fn reset(common: &Common, name: &str) -> Outcome {
    if let Err(outcome) = common.ask(&Request::Reset { domain: name.to_owned() }) {
        return outcome;
    }
    let done = DomainResult { domain: name, state: "running", pid: None };
    common.done(&done, || print(&format!("{name}: reset\n")))
}

/// Sends a request that is done at once, and prints its outcome: what the agent says of it, or `done`.
pub(super) fn request(common: &Common, request: &Request, done: &str) -> Outcome {
    let answer = match common.ask(request) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    // The agent may have more to say of it.
    common.done(&answer, || print(&format!("{}\n", answer.words.as_deref().unwrap_or(done))))
}

enum Verdict {
    Yes,
    Warn(String),
    No(String),
}

fn running(domain: &DomainReport) -> Option<Verdict> {
    match domain.state.as_str() {
        "running" => Some(Verdict::Yes),
        "retrying" => {
            let why = domain.problem.as_deref().unwrap_or("the agent gives no reason");
            let again = domain.retry_in_seconds.unwrap_or_default();
            Some(Verdict::No(format!(
                "{why} (tried again in {again} s, until `bulkhead stop {}`)",
                domain.name
            )))
        }
        "off" if !domain.wanted => Some(Verdict::No(match &domain.problem {
            Some(problem) => problem.clone(),
            None => "it went off again: its guest powered off, or somebody stopped it".to_owned(),
        })),
        _ => None,
    }
}

fn carry_out(
    common: &Common,
    name: &str,
    request: &Request,
    most: Duration,
    verdict: impl Fn(&DomainReport) -> Option<Verdict>,
) -> Outcome {
    if let Err(outcome) = common.ask(request) {
        return outcome;
    }
    let until = Moment::now() + most;
    let mut last_state = String::new();
    loop {
        let status = match common.ask(&Request::Status {}) {
            Ok(answer) => answer.status,
            Err(outcome) => return outcome,
        };
        let domains = status.map(|status| status.domains).unwrap_or_default();
        let Some(domain) = domains.into_iter().find(|domain| domain.name == name) else {
            return common.fail(Failure::No, &format!("the agent no longer has a domain `{name}`"));
        };
        if domain.state != last_state {
            last_state.clone_from(&domain.state);
            if !common.json {
                print(&format!("{name}: {last_state}\n"));
            }
        }
        match verdict(&domain) {
            Some(Verdict::No(why)) => return common.fail(Failure::No, &format!("{name}: {why}")),
            Some(yes) => return done(common, &domain, &yes),
            None if Moment::now() >= until => {
                let waited = most.as_secs();
                return common.fail(Failure::No, &format!("{name} is still {last_state} after {waited} s; see `bulkhead status` and the agent's log"));
            }
            None => thread::sleep(ASK_AGAIN),
        }
    }
}

fn done(common: &Common, domain: &DomainReport, verdict: &Verdict) -> Outcome {
    let (name, state) = (domain.name.as_str(), domain.state.as_str());
    common.done(&DomainResult { domain: name, state, pid: domain.pid }, || {
        if let Verdict::Warn(problem) = verdict {
            super::complain(&format!("{name}: {problem}\n"));
        }
    })
}
