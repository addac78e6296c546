//! `bulkhead audit`: reads the log's files; nothing is changed, and no agent is needed.

mod times;
mod verify;

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use audit::{AuditEvent, Entry, Filter, Flaws, Follower, Head, rfc5424};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use policy::decide::Decision;

use super::answer::{self, Outcome};
use super::{Common, Failure, complain, pause};
use recorder::AUDITOR_GROUP;

pub(super) const DIRECTORY: &str = "/var/lib/bulkhead/audit";
/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The agent may be in the middle of a line: looked at again as often, after as long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Is it whole? Names the first entry that does not hold, and exits with 1 if there is one; says what the files cannot show
    Verify {
        /// The audit log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// The PC's public audit key [default: audit.pub in the log's directory]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// A head that was kept off the PC, as `verify` printed it: what was cut off since is seen
        #[arg(long, value_name = "HEAD")]
        head: Vec<Head>,
    },
    /// What is in it, for people
    Show {
        /// The audit log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        #[command(flatten)]
        wanted: EntryFilterArgs,
        #[command(flatten)]
        follow: FollowArgs,
    },
    /// What is in it, for the monitoring centre
    Export {
        /// The audit log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// The form to write the entries in
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
        #[command(flatten)]
        wanted: EntryFilterArgs,
        #[command(flatten)]
        follow: FollowArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// Syslog, RFC 5424
    Rfc5424,
    /// The lines as they are; with --json each also has "ok" and "error", as every answer does
    Json,
}

/// Which entries are wanted.
#[derive(Debug, Args)]
pub(super) struct EntryFilterArgs {
    /// Not before: 2026-11, 2026-11-23, 2026-11-23T15:04, 15:04, today, yesterday, or 30m, 2h, 3d ago; local time, with Z behind it UTC
    #[arg(long, value_name = "TIME", value_parser = times::since)]
    since: Option<SystemTime>,
    /// Not after, written in the same way; a day means to its end
    #[arg(long, value_name = "TIME", value_parser = times::until)]
    until: Option<SystemTime>,
    /// Of this kind, such as domain, usb-attached or paste; the page audit-events explains each, and a wrong one prints all their names
    #[arg(long, value_parser = kinds(), hide_possible_values = true)]
    kind: Option<String>,
    /// Of this domain, or of what came into it or left it
    #[arg(long)]
    domain: Option<String>,
    /// Only entries whose decision had this verdict
    #[arg(long, value_parser = verdicts())]
    verdict: Option<String>,
}

/// What a paste that was decided is called by who looks for it, and in the log.
const PASTE: (&str, &str) = ("paste", "clipboard");

fn kinds() -> impl TypedValueParser<Value = String> {
    let (called, named) = PASTE;
    let kinds = AuditEvent::KINDS.iter().map(move |kind| {
        let value = PossibleValue::new(kind.name).help(kind.meaning());
        if kind.name == named { value.alias(called) } else { value }
    });
    PossibleValuesParser::new(kinds)
        .map(move |kind| if kind == called { named.to_owned() } else { kind })
}

fn verdicts() -> PossibleValuesParser {
    PossibleValuesParser::new(Decision::WORDS.iter().map(|(word, _)| *word))
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct FollowArgs {
    /// Go on with what is written from now on, until it is interrupted
    #[arg(long, conflicts_with = "until")]
    follow: bool,
}

impl EntryFilterArgs {
    /// Returns the filter of the entries that are wanted; says so if there can be none.
    pub(super) fn filter(&self, common: &Common) -> Result<Filter, Outcome> {
        let Self { since, until, kind, domain, verdict } = self;
        if since.zip(*until).is_some_and(|(since, until)| since >= until) {
            let why = "--since is not before --until, so that no time is left between them";
            return Err(common.fail(Failure::Misuse, why));
        }
        Ok(Filter {
            since: *since,
            until: *until,
            kind: kind.clone(),
            domain: domain.clone(),
            verdict: verdict.clone(),
        })
    }
}

pub(super) fn run(common: &Common, command: &AuditCommand) -> Outcome {
    match command {
        AuditCommand::Verify { dir, key, head } => verify::run(common, dir, key.as_deref(), head),
        AuditCommand::Show { dir, wanted, follow } => {
            let json = common.json;
            write_out(common, dir, wanted, *follow, &|out, line, entry| {
                if json { as_an_answer(out, line) } else { writeln!(out, "{}", in_words(entry)) }
            })
        }
        AuditCommand::Export { dir, format, wanted, follow } => {
            let json = common.json;
            if json && matches!(format, Format::Rfc5424) {
                let why = "--json is not --format rfc5424: give one of them";
                return common.fail(Failure::Misuse, why);
            }
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            write_out(common, dir, wanted, *follow, &|out, line, entry| match format {
                Format::Json if json => as_an_answer(out, line),
                Format::Json => as_it_is(out, line),
                Format::Rfc5424 => writeln!(out, "{}", rfc5424(entry, host.trim())),
            })
        }
    }
}

/// Says why there is nothing to read, and what to do.
pub(super) fn cannot_read(common: &Common, dir: &Path, error: &io::Error) -> Outcome {
    let at = dir.display();
    let why = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => format!(
            "{at} is not for everybody to read: run this as root or as a member of the group {AUDITOR_GROUP}, or on a copy"
        ),
        (io::ErrorKind::NotFound, _) if let Some(log) = meant(dir) => {
            format!("there is no audit log in {at}; did you mean {}?", log.display())
        }
        (io::ErrorKind::NotFound, Some(_)) => format!(
            "there is no audit log at {at}: bulkhead-agent writes one to `audit` in its state directory as soon as it runs; if it has another state directory (--state), or you want a copy, name the log's directory"
        ),
        (io::ErrorKind::NotADirectory, Some(_)) => format!(
            "cannot read {at}: it is not a directory; name the folder that the agent wrote (`{DIRECTORY}`, with `head` and `audit.pub` in it): an export can be neither verified nor shown"
        ),
        (kind, Some(_)) => format!("cannot read {at}: {kind}; name the directory of an audit log"),
        (_, None) => format!("cannot read {at}: {error}"),
    };
    common.fail(Failure::No, &why)
}

/// Returns the log's directory, if somebody named the state directory it is in.
fn meant(dir: &Path) -> Option<PathBuf> {
    let inside = dir.join("audit");
    (Follower::open(dir).is_err() && Follower::open(&inside).is_ok()).then_some(inside)
}

/// Hands over every entry that is there now, and takes what is missing behind them for a flaw.
pub(super) fn read_to_the_end(
    log: &mut Follower,
    mut take: impl FnMut(&[u8], Entry) -> io::Result<()>,
) -> io::Result<()> {
    log.each_new(&mut take)?;
    for _ in 1..TRIES {
        if log.is_settled() {
            break;
        }
        thread::sleep(PAUSE);
        log.each_new(&mut take)?;
    }
    log.note_end();
    Ok(())
}

/// Says that a log does not hold, and where: a line for each place for people, all in one for scripts.
pub(super) fn does_not_hold(common: &Common, dir: &Path, flaws: &Flaws) -> String {
    let (first, next) = if common.json { (" ", "; ") } else { ("\n- ", "\n- ") };
    let mut places: Vec<String> = flaws.named.iter().map(ToString::to_string).collect();
    if flaws.more > 0 {
        places.push(format!("and {} more", printable::counted(flaws.more, "place", "places")));
    }
    places.push(format!("`bulkhead audit verify {}` says more", dir.display()));
    format!("the audit log does not hold:{first}{}", places.join(next))
}

type WriteEntry<'a> = &'a dyn Fn(&mut dyn Write, &[u8], &Entry) -> io::Result<()>;

fn write_out(
    common: &Common,
    dir: &Path,
    wanted: &EntryFilterArgs,
    FollowArgs { follow }: FollowArgs,
    put: WriteEntry<'_>,
) -> Outcome {
    let filter = match wanted.filter(common) {
        Ok(filter) => filter,
        Err(outcome) => return outcome,
    };
    let out = RefCell::new(BufWriter::new(io::stdout().lock()));
    let (mut all, mut shown) = (0_u64, 0_u64);
    let mut flawed = None;
    let mut go = || -> io::Result<()> {
        let mut log = Follower::open(dir)?;
        let mut take = |line: &[u8], entry: Entry| {
            all += 1;
            if !filter.wants(&entry) {
                return Ok(());
            }
            shown += 1;
            put(&mut *out.borrow_mut(), line, &entry)
        };
        read_to_the_end(&mut log, &mut take)?;
        loop {
            // What was read comes before what is wrong with it.
            out.borrow_mut().flush()?;
            if let Some(flaws) = log.take_flaws() {
                flawed = Some(common.fail(Failure::No, &does_not_hold(common, dir, &flaws)));
            }
            if !follow || !pause(LOOK) {
                return Ok(());
            }
            log.each_new(&mut take)?;
        }
    };
    let gone = go();
    // What was read comes before why no more could be.
    drop(out);
    if shown == 0 && !follow && gone.is_ok() {
        let entries = printable::counted(all, "entry", "entries");
        complain(&format!("bulkhead: none of the {entries} in {} is wanted\n", dir.display()));
    }
    match gone {
        Ok(()) => flawed.unwrap_or(Outcome::all()),
        // A pager that was left early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::all(),
        Err(error) => cannot_read(common, dir, &error),
    }
}

/// Writes an entry with the keys of every answer before its own.
fn as_an_answer(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    let answer = answer::line(line).ok_or(io::ErrorKind::InvalidData)?;
    as_it_is(out, &answer)
}

/// Writes an entry byte for byte, as it can be verified; on a terminal in characters that are shown, which say the same.
fn as_it_is(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        out.write_all(printable::json(&String::from_utf8_lossy(line)).as_bytes())?;
    } else {
        out.write_all(line)?;
    }
    out.write_all(b"\n")
}

/// Returns when an entry was written, as a person here reads a clock.
pub(super) fn local_time(entry: &Entry) -> String {
    entry.wall().and_then(times::shown).unwrap_or_else(|| entry.time.clone())
}

/// Returns `2026-11-23 15:04:05.000 +09:00      12 domain clinical running pid=5 ...`, as one line whatever is in it.
fn in_words(entry: &Entry) -> String {
    format!("{} {}", printable::line(&local_time(entry)), audit::shown(entry))
}
