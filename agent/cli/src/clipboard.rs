//! `bulkhead clipboard copy|paste`: the hotkeys, where there is no seat.

use std::io::{self, BufRead, IsTerminal};
use std::thread;
use std::time::Duration;

use clock::Moment;

use clap::Subcommand;
use serde::Serialize;

use super::{Common, Failure, Outcome, complain, print};
use control::client::{ASK_AGAIN, ask};
use control::commands::{Request, about};
use control::protocol::{ClipboardReport, ClipboardState};

/// After how long the agent is asked at first how far it is, and how often so: most is over then.
const SOON: Duration = Duration::from_millis(10);
const ASKED_SOON: u32 = 20;
/// Longer than anything takes: the guest's content, a picture, a question.
const MOST: Duration = Duration::from_secs(90);

#[derive(Debug, Subcommand)]
pub(super) enum ClipboardCommand {
    #[command(about = about("copy"))]
    Copy {
        /// The domain it is in
        #[arg(long, value_name = "DOMAIN")]
        from: String,
    },
    #[command(about = about("paste"))]
    Paste {
        /// The domain to paste into
        #[arg(long, value_name = "DOMAIN")]
        to: String,
        /// Answer the policy's question with yes; without it the question is asked in the terminal, and where there is none nothing crosses (exit status 2)
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct ClipboardResult<'a> {
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
            common.answer(crossed, &ClipboardResult { verdict, rule, words }, || {
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
    let mut asked = 0;
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
                match yes.then_some(true).or_else(|| read_answer(&report.words)) {
                    Some(yes) => Request::ClipboardAnswer { ticket, yes },
                    None => return Err(nobody(common, ticket, &report.words)),
                }
            }
            ClipboardState::Pending => {
                thread::sleep(if asked < ASKED_SOON { SOON } else { ASK_AGAIN });
                asked += 1;
                Request::ClipboardOutcome { ticket }
            }
        };
        if Moment::now() >= until {
            let why = "the agent does not say how it ended; see its log";
            return Err(common.fail(Failure::No, why));
        }
    }
}

/// Asks whoever is at the terminal; `None` where nobody can be asked.
fn read_answer(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    complain(&format!("{question}\nyes or no? "));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Answers that nobody could be asked, which is nobody's no.
fn nobody(common: &Common, ticket: u64, question: &str) -> Outcome {
    // The question ends here and now; where the agent cannot be told, by its time.
    let no = Request::ClipboardAnswer { ticket, yes: false };
    drop(ask(&common.runtime, &no));
    let why = format!(
        "the policy asks a person before this crosses, and nobody could be asked, as standard input is no terminal: nothing has crossed; run it in a terminal, or give --yes where somebody has agreed (the question: {})",
        printable::line(question)
    );
    common.fail(Failure::Misuse, &why)
}
