//! `bulkhead audit`: reads the log's files; nothing is changed, and no agent is needed.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use audit::{Break, Entry, Filter, Head, PublicKey, Summary, each, rfc5424, verify};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Common, Outcome, print};

const DIRECTORY: &str = "/var/lib/bulkhead/audit";
/// The agent may be in the middle of a line: looked at again as often, after as long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Is it whole? Names the first entry that does not hold; exit status 1 if there is one
    Verify {
        /// The log's directory
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// The PC's public audit key [default: audit.pub in the directory `keys` beside the log]
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
    let beside = dir.parent().unwrap_or(dir).join("keys").join("audit.pub");
    let path = key.unwrap_or(&beside);
    let public = match fs::read_to_string(path).map(|text| PublicKey::parse(&text)) {
        Ok(Some(public)) => public,
        Ok(None) => {
            return common
                .fail(Outcome::No, &format!("{} is not a public audit key", path.display()));
        }
        Err(error) => {
            let why = format!(
                "cannot read the audit key {}: {error}; name it with --key",
                path.display()
            );
            return common.fail(Outcome::No, &why);
        }
    };
    let mut result = verify(dir, Some(&public), heads);
    for _ in 1..TRIES {
        if !matches!(result, Ok(Err(_))) {
            break;
        }
        thread::sleep(PAUSE);
        result = verify(dir, Some(&public), heads);
    }
    match result {
        Ok(Ok(summary)) => whole(common, dir, &summary),
        Ok(Err(found)) => broken(common, &found),
        Err(error) => common.fail(Outcome::No, &format!("cannot read {}: {error}", dir.display())),
    }
}

fn whole(common: &Common, dir: &Path, summary: &Summary) -> Outcome {
    let Summary { entries, first, checkpoints, unsigned, head } = summary;
    if common.json {
        common.print_json(&json!({
            "ok": true, "entries": entries, "first": first, "checkpoints": checkpoints,
            "unsigned": unsigned, "head": head.to_string(),
        }));
        return Outcome::Yes;
    }
    let dropped = if *first > 1 {
        format!("older ones, up to {}, were dropped for room, which is recorded\n", first - 1)
    } else {
        String::new()
    };
    print(&format!(
        "{} holds: {entries} entries, {checkpoints} signed checkpoints, {unsigned} entries since the last\n{dropped}\
         Keep this off the PC, and give it to --head next time:\n{head}\n",
        dir.display()
    ));
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
        Err(error) => common.fail(Outcome::No, &format!("cannot read {}: {error}", dir.display())),
    }
}

fn as_it_is(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

/// `2026-11-23T15:04:05.000000Z      12 domain clinical running pid=5 ...`, control characters escaped.
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
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
