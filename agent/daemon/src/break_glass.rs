//! Break-glass: for a limited time, and on the record, rules count that otherwise do not.

use std::fmt;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{
    BreakGlassAskedAgain, BreakGlassClosed, BreakGlassOpened, BreakGlassProlonged,
};
use clock::Moment;
use policy::Policy;

use super::desk::{Desk, Question};
use recorder::Recorder;

/// Longest reason that is taken, in characters.
const REASON_MAX: usize = 500;

/// That it was opened, for the one who opened it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// How long it is open from now on.
    pub(super) left: Duration,
    /// How long it would have been open anyway, if it was.
    pub(super) before: Option<Duration>,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = minutes(self.left);
        match self.before.map(|before| minutes(Duration::from_secs(before.as_secs()))) {
            None => write!(f, "break-glass is open for {left}"),
            Some(before) if before == left => {
                write!(f, "break-glass was open already, and stays open for {left} more")
            }
            Some(before) => write!(
                f,
                "break-glass was open already, for {before} more; now it is open for {left}, which is on the record"
            ),
        }
    }
}

/// Whether it is open.
#[derive(Debug, Default)]
pub(super) struct BreakGlass {
    until: Option<Moment>,
    /// Somebody at the seat was asked whether to open it; the reasons that were shown to choose from.
    asked: Option<Vec<String>>,
}

impl BreakGlass {
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// How long it stays open.
    pub(super) fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Moment::now()))
    }

    /// What the banner says while it is open.
    pub(super) fn news(&self) -> Option<String> {
        let minutes = self.left()?.as_secs().div_ceil(60);
        Some(format!("BREAK-GLASS is open for {minutes} min; all of it is recorded"))
    }

    /// Opens it; `who` and `reason` go on the record first. If it is open it stays open as long at least, which is said and recorded as such:
    /// it is closed by nothing but [`Self::close`] and its time.
    pub(super) fn open(
        &mut self,
        policy: &Policy,
        recorder: &mut Recorder,
        who: &str,
        reason: Option<&str>,
        wanted: Option<Duration>,
    ) -> Result<Opened, String> {
        let Some(rules) = policy.break_glass() else {
            return Err(format!("the policy provides no break-glass; ask the {}", policy.issuer()));
        };
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        if rules.reason_required && reason.is_none() {
            return Err(
                "the policy wants a reason: bulkhead break-glass --reason \"...\"".to_owned()
            );
        }
        let most = rules.max_duration;
        let time = match wanted {
            Some(wanted) if wanted > most => {
                return Err(format!(
                    "the policy allows {} at most; ask for less with --for",
                    minutes(most)
                ));
            }
            Some(wanted) => wanted,
            None => most,
        };
        let reason = printable::line(reason.unwrap_or_default()).up_to(REASON_MAX).to_string();
        let before = self.left();
        let left = before.unwrap_or_default().max(time);
        let (policy, by, seconds) = (policy.serial(), who.to_owned(), left.as_secs());
        let event: AuditEvent = match before.map(|before| before.as_secs()) {
            None => BreakGlassOpened { policy, by, reason, seconds }.into(),
            Some(seconds_before) if Some(time) > before => {
                BreakGlassProlonged { policy, by, reason, seconds, seconds_before }.into()
            }
            // It stays open as long as it was.
            Some(_) => {
                let seconds_asked = time.as_secs();
                BreakGlassAskedAgain { policy, by, reason, seconds, seconds_asked }.into()
            }
        };
        recorder
            .record(&[event])
            .map_err(|problem| format!("it cannot be recorded, so it stays closed: {problem}"))?;
        self.until = Some(Moment::now() + left);
        let opened = Opened { left, before };
        tracing::warn!("{opened}: by {who}");
        Ok(opened)
    }

    /// Closes it; whether it was open.
    pub(super) fn close(&mut self, recorder: &mut Recorder, why: &str) -> bool {
        let open = self.until.take().is_some();
        if open {
            tracing::warn!("break-glass is closed: {why}");
            recorder.note(&[BreakGlassClosed { why: why.to_owned() }.into()]);
        }
        open
    }

    /// Closes it when its time is over; whether it did.
    pub(super) fn turn(&mut self, recorder: &mut Recorder) -> bool {
        let over = self.until.is_some_and(|until| Moment::now() >= until);
        over && self.close(recorder, "its time is over")
    }

    /// Somebody at the seat said yes to the question whether to open it, or chose the reason of this place.
    pub(super) fn agreed(
        &mut self,
        policy: &Policy,
        recorder: &mut Recorder,
        chosen: Option<usize>,
    ) -> Result<Opened, String> {
        let Some(shown) = self.asked.take() else {
            return Err(
                "the policy has changed since it was asked; press its keys again".to_owned()
            );
        };
        let reason = chosen.and_then(|chosen| shown.get(chosen));
        if reason.is_none() && !shown.is_empty() {
            return Err("no reason was chosen; press its keys again".to_owned());
        }
        self.open(policy, recorder, "the seat", reason.map(String::as_str), None)
    }

    /// What was asked under another policy is asked no more: it named that policy's time and reasons.
    pub(super) fn forget_question(&mut self, desk: &Desk) {
        self.asked = None;
        desk.withdraw_own();
    }

    /// The chord was pressed.
    pub(super) fn chord(&mut self, policy: &Policy, desk: &Desk) {
        let words = match policy.break_glass() {
            _ if self.is_open() => {
                return desk.ask_own(Question::CloseBreakGlass, "Close break-glass now?");
            }
            None => format!("The policy provides no break-glass.\nQuestions: {}", policy.issuer()),
            Some(rules) if !rules.opens_at_the_seat() => {
                "Break-glass needs a reason in words.\nAsk IT for: bulkhead break-glass --reason"
                    .to_owned()
            }
            Some(rules) => {
                let reasons: Vec<String> =
                    rules.reasons.iter().map(|reason| reason.value.clone()).collect();
                let why = if reasons.is_empty() { "" } else { " Why?" };
                let text = format!(
                    "Open break-glass for {}?{why}\nWhat is allowed only by it will be recorded as such.",
                    minutes(rules.max_duration)
                );
                self.asked = Some(reasons.clone());
                return match reasons.is_empty() {
                    true => desk.ask_own(Question::OpenBreakGlass, &text),
                    false => desk.choose_own(Question::OpenBreakGlass, &text, reasons),
                };
            }
        };
        desk.notice(words);
    }
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 60 == 0 => printable::counted(seconds / 60, "minute", "minutes"),
        seconds => printable::counted(seconds, "second", "seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::audit::Limits;

    fn policy(section: &str) -> Policy {
        let text = policy::officer::STARTER.to_owned() + section;
        Policy::parse("test", &text).unwrap()
    }

    #[test]
    fn it_opens_for_a_reason_and_a_time_within_the_policys_and_closes_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        let mut glass = BreakGlass::default();
        let none = policy("");
        if none.break_glass().is_none() {
            let refused = glass.open(&none, &mut recorder, "uid 1", Some("x"), None).unwrap_err();
            assert!(refused.contains("provides no break-glass"));
            let with = policy("\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n");
            check(&mut glass, &with, &mut recorder);
        } else {
            check(&mut glass, &none, &mut recorder);
        }
    }

    #[test]
    fn the_reason_that_was_chosen_at_the_seat_is_on_the_record_and_none_is_taken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        let mut glass = BreakGlass::default();
        let policy = policy("\n[break_glass]\nreasons = [\"의식 없는 환자\", \"system down\"]\n");
        let shown = || {
            let rules = policy.break_glass().unwrap();
            Some(rules.reasons.iter().map(|reason| reason.value.clone()).collect())
        };
        glass.agreed(&policy, &mut recorder, Some(0)).unwrap_err();
        for chosen in [None, Some(2), Some(usize::MAX)] {
            glass.asked = shown();
            glass.agreed(&policy, &mut recorder, chosen).unwrap_err();
            assert!(!glass.is_open(), "{chosen:?}");
        }
        glass.asked = shown();
        glass.agreed(&policy, &mut recorder, Some(1)).unwrap();
        assert!(glass.is_open());
        glass.agreed(&policy, &mut recorder, Some(0)).unwrap_err();
        drop(recorder);
        let log: String = std::fs::read_dir(dir.path().join("audit"))
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .collect();
        assert_eq!(log.matches("break-glass-opened").count(), 1);
        assert!(log.contains("system down") && !log.contains("의식 없는 환자"), "{log}");
    }

    #[test]
    fn opened_again_it_is_never_open_for_less_and_recorded_as_prolonged_only_if_it_is_open_longer()
    {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        let text = policy::officer::STARTER.to_owned();
        let text = match text.contains("\n[break_glass]") {
            true => text,
            false => text + "\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n",
        };
        let policy = Policy::parse("test", &text).unwrap();
        let mut glass = BreakGlass::default();
        let mut open = |seconds: u64| {
            let time = Some(Duration::from_secs(seconds));
            glass.open(&policy, &mut recorder, "kim", Some("CPR"), time).unwrap()
        };
        assert_eq!(open(60).to_string(), "break-glass is open for 1 minute");
        let shorter = open(10);
        assert!(shorter.left > Duration::from_secs(50), "{shorter:?}");
        let longer = open(120);
        assert_eq!(longer.left, Duration::from_secs(120));
        assert!(longer.to_string().contains("was open already"), "{longer}");
        recorder.close();
        let mut entries = Vec::new();
        let log = recorder::directory(dir.path());
        ::audit::each(&log, |_, entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
        entries.retain(|entry: &::audit::Entry| entry.kind.starts_with("break-glass"));
        let (again, longer) = ("break-glass-asked-again", "break-glass-prolonged");
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["break-glass-opened", again, longer], "what was so, and no more");
        let seconds =
            |name: &str| entries.get(1).and_then(|entry| entry.detail.get(name)?.as_u64());
        assert_eq!(seconds("seconds_asked"), Some(10));
        assert!(seconds("seconds").is_some_and(|left| left > 50), "how long it stays open");
    }

    fn check(glass: &mut BreakGlass, policy: &Policy, recorder: &mut Recorder) {
        let most = policy.break_glass().unwrap().max_duration;
        let too_long = Some(most + Duration::from_secs(1));
        glass.open(policy, recorder, "uid 1", Some("CPR"), too_long).unwrap_err();
        glass.open(policy, recorder, "uid 1", Some("  "), None).unwrap_err();
        assert!(!glass.is_open());
        glass.open(policy, recorder, "uid 1", Some("CPR"), Some(Duration::ZERO)).unwrap();
        assert!(glass.is_open() && glass.news().is_some());
        assert!(glass.turn(recorder), "its time is over");
        assert!(!glass.is_open() && !glass.turn(recorder));
        assert_eq!(
            recorder.head().unwrap().seq,
            4,
            "the log was opened and signed, it was opened and closed"
        );
    }
}
