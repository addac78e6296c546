//! `tracing` events as lines on standard error, so many of each kind.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ratelimit::{Rate, RateLimiter};
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::{IS_JOURNAL, LineSink, Outlet, SINK};

/// Characters of the longest line.
const LINE_MAX: usize = 4096;

/// The target of events that their writer limits: a place that writes for many who must not silence
/// each other.
pub const LIMITED_BY_CALLER: &str = "limited-by-caller";

/// Logs to standard error, up to `level`, and at `rate` from any one place in the code.
///
/// # Errors
/// Standard error is closed, or this was called before.
pub fn init(level: LevelFilter, rate: Rate) -> io::Result<()> {
    let sink = LineSink::new(Outlet::new(io::stderr())?);
    SINK.set(sink).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
    let to_journal = *IS_JOURNAL.get_or_init(writes_to_the_journal);
    let subscriber = subscriber(|| Line(SINK.get()), level, rate, to_journal);
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)
}

/// Returns whether standard error is systemd's journal: `JOURNAL_STREAM` has its device and inode (systemd.exec(5)). Somebody may have redirected it
/// since.
fn writes_to_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(own) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let Ok(own) = File::from(own).metadata() else { return false };
    named == format!("{}:{}", own.dev(), own.ino())
}

/// Returns the priority of a level as syslog and the journal count it (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn subscriber<W>(
    writer: W,
    level: LevelFilter,
    rate: Rate,
    to_journal: bool,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        // It would print to standard error, and end the process where that fails.
        .log_internal_errors(false)
        .event_format(Limited {
            format: Format::default().with_target(false).with_ansi(false),
            to_journal,
            rate,
            epoch: Instant::now(),
            places: Mutex::default(),
        })
        .finish()
}

/// The writer that takes one formatted event.
struct Line(Option<&'static LineSink>);

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = self.0 {
            sink.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats an event unless the place it comes from has had its share. There are as many places as
/// the program's text has, so the map is bounded.
struct Limited {
    format: Format<Full>,
    /// Whether time and level are the journal's to keep.
    to_journal: bool,
    rate: Rate,
    epoch: Instant,
    places: Mutex<HashMap<Identifier, RateLimiter>>,
}

impl Limited {
    /// Returns how many were left out before this one; `None` if this one is too.
    fn admit(&self, event: &Event<'_>) -> Option<u64> {
        let metadata = event.metadata();
        if metadata.target() == LIMITED_BY_CALLER {
            return Some(0);
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter =
            places.entry(metadata.callsite()).or_insert_with(|| RateLimiter::new(self.rate));
        limiter.admit(self.epoch.elapsed())
    }
}

impl<S, N> FormatEvent<S, N> for Limited
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Nothing is formatted, and nothing written, for an event that is left out.
        let Some(left_out) = self.admit(event) else { return Ok(()) };
        let mut line = String::new();
        if self.to_journal {
            // Of this form alone the journal takes a level; and it has a time of its own.
            let format = self.format.clone().with_level(false).without_time();
            format.format_event(context, Writer::new(&mut line), event)?;
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        } else {
            self.format.format_event(context, Writer::new(&mut line), event)?;
        }
        // Whatever a guest, a device or a file put into it: one line, which steers no terminal.
        write!(writer, "{}", printable::line(line.trim_end()).up_to(LINE_MAX))?;
        match left_out {
            0 => writeln!(writer),
            _ => writeln!(writer, " ({left_out} more like this were left out)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seen {
        fn lines(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn log(every: Duration, during: impl FnOnce(&Seen)) {
        let seen = Seen::default();
        let writer = seen.clone();
        let rate = Rate { burst: 5, every };
        let subscriber = subscriber(move || writer.clone(), LevelFilter::DEBUG, rate, false);
        tracing::subscriber::with_default(subscriber, || during(&seen));
    }

    #[test]
    fn no_place_in_the_code_fills_the_log_and_none_silences_another() {
        log(Duration::from_secs(3600), |seen| {
            for count in 0..10_000 {
                tracing::warn!(count, "the guest does it again");
                tracing::debug!(count, "and this");
            }
            tracing::info!("something else");
            let lines = seen.lines();
            assert_eq!(lines.len(), 5 + 5 + 1);
            assert!(lines[0].ends_with("WARN the guest does it again count=0"), "{}", lines[0]);
            assert!(lines[10].ends_with("INFO something else"), "{}", lines[10]);
        });
    }

    #[test]
    fn what_was_left_out_is_counted_and_said_by_the_next_line_of_that_place() {
        log(Duration::from_millis(200), |seen| {
            let again = || tracing::warn!(device = "disk", "the guest does it again");
            for _ in 0..25 {
                again();
            }
            let before = seen.lines().len();
            assert!((5..25).contains(&before), "{before}");
            std::thread::sleep(Duration::from_millis(300));
            again();
            let line = seen.lines().concat();
            let says = format!("device=\"disk\" ({} more like this were left out)", 25 - before);
            assert!(line.ends_with(&says), "{line}");
        });
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it_and_steers_no_terminal() {
        log(Duration::from_secs(3600), |seen| {
            let name = "stick\u{1b}[2J\u{9b}31m\n2026-11-28 ERROR all is lost\u{202e}";
            tracing::info!(name, "plugged in: {name}");
            tracing::info!(why = ?name, "{}", "x".repeat(100_000));
            let lines = seen.lines();
            assert_eq!(lines.len(), 2, "{lines:?}");
            for line in lines {
                assert!(line.chars().all(printable::is_shown), "{line:?}");
                assert!(line.chars().count() <= LINE_MAX + 1);
            }
        });
    }

    #[test]
    fn a_place_that_limits_itself_is_left_to_it() {
        log(Duration::from_secs(3600), |seen| {
            for _ in 0..100 {
                tracing::info!(target: LIMITED_BY_CALLER, "for somebody");
            }
            assert_eq!(seen.lines().len(), 100);
        });
    }

    #[test]
    fn the_journal_is_told_the_level_and_no_time() {
        let seen = Seen::default();
        let (writer, rate) = (seen.clone(), Rate { burst: 5, every: Duration::from_secs(3600) });
        let subscriber = subscriber(move || writer.clone(), LevelFilter::DEBUG, rate, true);
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(domain = "internet", "<6>no screen");
            tracing::info!("ready");
        });
        assert_eq!(seen.lines(), ["<3><6>no screen domain=\"internet\"", "<6>ready"]);
    }
}
