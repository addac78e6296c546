//! `bulkhead clipboard copy|paste`: the chords, where there is no seat.

use std::io::{self, BufRead, IsTerminal};
use std::thread;
use std::time::Duration;

use clock::Moment;

use clap::Subcommand;
use serde::Serialize;

use super::{Common, Failure, Outcome, complain, print};
use crate::control::protocol::{ClipboardReport, ClipboardState, Request};

/// How often the agent is asked how far it is.
const POLL: Duration = Duration::from_millis(10);
/// Longer than anything takes: the guest's content, a picture, a question.
const MOST: Duration = Duration::from_secs(90);

#[derive(Debug, Subcommand)]
pub(super) enum ClipboardCommand {
    /// Take what a domain has in its clipboard, as the copy hotkey does with it in front
    Copy {
        /// The domain it is in
        #[arg(long, value_name = "DOMAIN")]
        from: String,
    },
    /// Offer it to a domain, if the policy says so, as the paste hotkey does with it in front; prints the verdict
    Paste {
        /// The domain to paste into
        #[arg(long, value_name = "DOMAIN")]
        to: String,
        /// Answer the policy's question with yes
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct Done<'a> {
    verdict: Option<&'a str>,
    rule: Option<&'a str>,
    words: &'a str,
}

pub(super) fn run(common: &Common, command: &ClipboardCommand) -> Outcome {
    let (request, yes) = match command {
        ClipboardCommand::Copy { from } => (Request::Copy { domain: from.clone() }, false),
        ClipboardCommand::Paste { to, yes } => (Request::Paste { domain: to.clone() }, *yes),
    };
    match carry_out(common, &request, yes) {
        Ok(report) => {
            let ClipboardReport { done, verdict, rule, words, .. } = &report;
            let (verdict, rule) = (verdict.as_deref(), rule.as_deref());
            let crossed = if *done { Ok(()) } else { Err(words.clone()) };
            common.answer(crossed, &Done { verdict, rule, words }, || {
                let rule = rule.map(|rule| format!(" (rule `{rule}`)"));
                if let Some(verdict) = verdict {
                    print(&format!("verdict: {verdict}{}\n", rule.unwrap_or_default()));
                }
                print(&format!("{words}\n"));
            })
        }
        Err(outcome) => outcome,
    }
}

fn carry_out(common: &Common, request: &Request, yes: bool) -> Result<ClipboardReport, Outcome> {
    let until = Moment::now() + MOST;
    let mut request = request.clone();
    loop {
        let answer = common.ask(&request)?;
        let Some(report) = answer.clipboard else {
            return Err(common.fail(
                Failure::NoAgent,
                "the agent's answer says nothing of the clipboard: `bulkhead` and `bulkhead-agent` are of different versions",
            ));
        };
        let ticket = report.ticket;
        request = match report.state {
            ClipboardState::Ended => return Ok(report),
            ClipboardState::Question => {
                let yes = yes || confirmed(&report.words);
                Request::ClipboardAnswer { ticket, yes }
            }
            ClipboardState::Pending => {
                thread::sleep(POLL);
                Request::ClipboardOutcome { ticket }
            }
        };
        if Moment::now() >= until {
            let why = "the agent does not say how it ended; see its log";
            return Err(common.fail(Failure::No, why));
        }
    }
}

/// Asks whoever is at the terminal; where there is none, nobody said yes.
fn confirmed(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        complain(
            "bulkhead: the policy wants a person to say yes: give --yes, or run this in a terminal\n",
        );
        return false;
    }
    complain(&format!("{question}\nyes or no? "));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).is_ok()
        && matches!(line.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}
