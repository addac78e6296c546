//! `bulkhead audit`: reads the log's files; nothing is changed, and no agent is needed.

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use audit::{
    Break, Entry, Filter, Head, PUBLIC_FILE, PublicKey, Remembered, Summary, each, rfc5424, verify,
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Common, Outcome, print};
use crate::daemon::defaults;
use crate::recorder::{AUDITOR_GROUP, remembered_in};

const DIRECTORY: &str = "/var/lib/bulkhead/audit";
/// The agent may be in the middle of a line: looked at again as often, after as long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Is it whole? Names the first entry that does not hold, and exits with 1 if there is one; says what the files cannot show
    Verify {
        /// The log's directory
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
        /// The log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// What is in it, for the monitoring centre
    Export {
        /// The log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// As what
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
        #[command(flatten)]
        wanted: Wanted,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// Syslog, RFC 5424
    Rfc5424,
    /// The lines as they are
    Json,
}

/// Which entries.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Not before: 2026-11, 2026-11-23, 2026-11-23T15:04 (UTC)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after; a day means to its end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of this kind: domain, policy-applied, clipboard, usb
    #[arg(long)]
    kind: Option<String>,
    /// Of this domain
    #[arg(long)]
    domain: Option<String>,
    /// With this verdict
    #[arg(long)]
    verdict: Option<String>,
}

impl Wanted {
    pub(super) fn filter(&self) -> Filter {
        let Self { since, until, kind, domain, verdict } = self;
        Filter {
            since: since.clone(),
            until: until.clone(),
            kind: kind.clone(),
            domain: domain.clone(),
            verdict: verdict.clone(),
        }
    }
}

pub(super) fn run(common: &Common, command: &AuditCommand) -> Outcome {
    match command {
        AuditCommand::Verify { dir, key, head } => look(common, dir, key.as_deref(), head),
        AuditCommand::Show { dir, wanted } => {
            let json = common.json;
            write_out(common, dir, &wanted.filter(), &|out, line, entry| {
                if json { as_it_is(out, line) } else { writeln!(out, "{}", in_words(entry)) }
            })
        }
        AuditCommand::Export { dir, format, wanted } => {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            write_out(common, dir, &wanted.filter(), &|out, line, entry| match format {
                Format::Json => as_it_is(out, line),
                Format::Rfc5424 => writeln!(out, "{}", rfc5424(entry, host.trim())),
            })
        }
    }
}

fn look(common: &Common, dir: &Path, key: Option<&Path>, heads: &[Head]) -> Outcome {
    // `.` has no parent to look beside.
    let whole_path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let path = key.map_or_else(|| key_beside(&whole_path), Path::to_owned);
    let public = match fs::read_to_string(&path).map(|text| PublicKey::parse(&text)) {
        Ok(Some(public)) => public,
        Ok(None) => {
            return common
                .fail(Outcome::No, &format!("{} is not a public audit key", path.display()));
        }
        Err(error) => return without_key(common, dir, heads, &path, &error),
    };
    let remembered = remembered(common, &whole_path);
    let mut all = heads.to_vec();
    all.extend(remembered.iter().map(|one| one.head));
    if remembered.iter().any(|one| !one.is_of(&public)) {
        let what = format!(
            "the audit key {} is another than this PC remembers: the log may have been exchanged as a whole",
            path.display()
        );
        return broken(common, &Break { file: dir.to_owned(), line: 0, seq: 1, what });
    }
    let mut result = verify(dir, Some(&public), &all);
    for _ in 1..TRIES {
        if !matches!(result, Ok(Err(_))) {
            break;
        }
        thread::sleep(PAUSE);
        result = verify(dir, Some(&public), &all);
    }
    match result {
        Ok(Ok(summary)) => {
            let unknown =
                unknown(&summary, key.is_some(), !heads.is_empty(), !remembered.is_empty());
            whole(common, dir, &summary, &public, &unknown)
        }
        Ok(Err(found)) => broken(common, &found),
        Err(error) => cannot_read(common, dir, &error),
    }
}

fn cannot_read(common: &Common, dir: &Path, error: &io::Error) -> Outcome {
    let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
        format!("; run this as root or as a member of the group {AUDITOR_GROUP}, or on a copy")
    } else {
        String::new()
    };
    common.fail(Outcome::No, &format!("cannot read {}: {error}{remedy}", dir.display()))
}

/// In the log's directory; beside it for logs of format 1.
fn key_beside(dir: &Path) -> PathBuf {
    let inside = dir.join(PUBLIC_FILE);
    let former = dir.parent().unwrap_or(dir).join("keys").join(PUBLIC_FILE);
    if !inside.exists() && former.exists() { former } else { inside }
}

/// A log that is no log is said to be none, whether or not there is a key.
fn without_key(
    common: &Common,
    dir: &Path,
    heads: &[Head],
    path: &Path,
    error: &io::Error,
) -> Outcome {
    match verify(dir, None, heads) {
        Ok(Err(found)) => broken(common, &found),
        Err(error) => cannot_read(common, dir, &error),
        Ok(Ok(_)) => {
            let why = format!(
                "cannot read the audit key {}: {error}; name it with --key",
                path.display()
            );
            common.fail(Outcome::No, &why)
        }
    }
}

/// What this PC remembers of the log outside its directory, and what lies beside it, for a copy too.
fn remembered(common: &Common, dir: &Path) -> Vec<Remembered> {
    let elsewhere = [defaults::policy().parent(), Some(common.runtime.as_path())];
    let elsewhere = elsewhere.into_iter().flatten().filter_map(|one| {
        Remembered::read(&remembered_in(one)).filter(|remembered| remembered.is_about(dir))
    });
    let beside = dir.parent().and_then(|state| Remembered::read(&remembered_in(state)));
    beside.into_iter().chain(elsewhere).collect()
}

/// What the files cannot show, however whole they are.
fn unknown(summary: &Summary, key: bool, head: bool, remembered: bool) -> Vec<String> {
    let mut unknown = Vec::new();
    if !head {
        let but = if remembered { ", and what this PC remembers with it" } else { "" };
        unknown.push(format!(
            "whether the log was cut off at a checkpoint, or all of it put back to an earlier day{but}: \
             only a head kept off the PC shows that (--head)"
        ));
    }
    if !key {
        unknown.push(
            "whether the key beside the log is this PC's: who can exchange the log can exchange it too; \
             keep it off the PC, and give it with --key"
                .to_owned(),
        );
    }
    if summary.unsigned > 0 {
        unknown.push(format!(
            "whether the last {} entries are as the agent wrote them: no checkpoint has signed them yet",
            summary.unsigned
        ));
    }
    if summary.unsigned_at_start > 0 {
        unknown.push(format!(
            "whether {} entries that a later start of the agent found unsigned are as they were written: \
             the agent or the PC had ended without closing the log",
            summary.unsigned_at_start
        ));
    }
    if summary.format_1 > 0 {
        unknown.push(format!(
            "when entries 1 to {} were written: format 1 did not record that the clock was set{}",
            summary.first + summary.format_1 - 1,
            match summary.format_1_back {
                0 => String::new(),
                times => format!(", and it goes back {times} times"),
            }
        ));
    }
    unknown
}

fn whole(
    common: &Common,
    dir: &Path,
    summary: &Summary,
    public: &PublicKey,
    unknown: &[String],
) -> Outcome {
    let Summary { entries, first, checkpoints, unsigned, head, clock_steps, .. } = summary;
    if common.json {
        common.print_json(&json!({
            "ok": true, "entries": entries, "first": first, "checkpoints": checkpoints,
            "unsigned": unsigned, "unsigned_at_start": summary.unsigned_at_start,
            "clock_steps": clock_steps, "format_1": summary.format_1, "closed": summary.closed,
            "head": head.to_string(), "key": public.text(), "unknown": unknown,
        }));
        return Outcome::Yes;
    }
    let mut text = format!(
        "{} holds: {entries} entries, {checkpoints} signed checkpoints, {unsigned} entries since the last\n",
        dir.display()
    );
    if *first > 1 {
        text +=
            &format!("older ones, up to {}, were dropped for room, which is recorded\n", first - 1);
    }
    if *clock_steps > 0 {
        text += &format!("the wall clock was set {clock_steps} times, which is recorded\n");
    }
    text += "\nWhat this cannot know:\n";
    for one in unknown {
        text += &format!("- {one}\n");
    }
    if unknown.is_empty() {
        text += "- what came after the head that was given was cut off at a checkpoint or not\n";
    }
    text += &format!(
        "\nKeep both off the PC: the key, in a file for --key, and the head, for --head next time:\n{}\n{head}\n",
        public.text()
    );
    print(&text);
    Outcome::Yes
}

fn broken(common: &Common, found: &Break) -> Outcome {
    if common.json {
        common.print_json(&json!({
            "ok": false, "file": found.file, "line": found.line, "seq": found.seq, "error": found.what,
        }));
        return Outcome::No;
    }
    common.fail(Outcome::No, &format!("the audit log does not hold. {found}"))
}

type Put<'a> = &'a dyn Fn(&mut dyn Write, &[u8], &Entry) -> io::Result<()>;

fn write_out(common: &Common, dir: &Path, filter: &Filter, put: Put<'_>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    let read = each(
        dir,
        |line, entry| {
            if filter.wants(&entry) { put(&mut out, line, &entry) } else { Ok(()) }
        },
    );
    match read.and_then(|()| out.flush()) {
        Ok(()) => Outcome::Yes,
        // A pager that was left early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Yes,
        Err(error) => cannot_read(common, dir, &error),
    }
}

/// Byte for byte, as it can be verified; on a terminal in characters that are shown, which say the same.
fn as_it_is(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        out.write_all(printable::json(&String::from_utf8_lossy(line)).as_bytes())?;
    } else {
        out.write_all(line)?;
    }
    out.write_all(b"\n")
}

/// `2026-11-23T15:04:05.000000Z      12 domain clinical running pid=5 ...`, as one line whatever is in it.
fn in_words(entry: &Entry) -> String {
    let mut line = format!("{} {:>7} {}", entry.time, entry.seq, entry.kind);
    for word in [&entry.domain, &entry.verdict, &entry.rule].into_iter().flatten() {
        line.push(' ');
        line.push_str(word);
    }
    if let Some(serial) = entry.policy {
        line.push_str(&format!(" policy={serial}"));
    }
    for (key, value) in &entry.detail {
        line.push_str(&format!(" {key}={value}"));
    }
    printable::line(&line).up_to(usize::MAX).to_string()
}
