//! The life-cycle of what is plugged in at one place, as a pure state machine: events in, effects out, no clock, no I/O.
//!
//! ```text
//!            plugged in           may go on         read          granted           permit
//!  Absent --------------> Throttled -----> Reading -----> Judging --------> Recording ---------> Waiting <-----------------+
//!     ^                                     ^    |         |  ^ | denied      |              ^    |    ^                   |
//!     | unplugged, from any state           |    |         |  | |             | none         | due|    | not taken         |
//!     |                                     |    | the     |  | |             v              |    v    |                   |
//!                                           |    | host's  |  | v       due Unadmitted       |  Connecting                 |
//!                       changed, or asked   |    v         v  +-|-------------+              |    | the VMM took it         | domain stopped,
//!                       for by hand         |   Host <-- the    |                            |    v                         | log failed
//!                                           |       seat's    Blocked <-- failed, faulty     | Authorizing ----------------+
//!   taken away by hand: Off                 |                   |                            |    | permit                  |
//!   the agent ends: Ended                   +-------------------+ judged anew when           |    v                         |
//!                                           +---------------------the rules change---------- | Attached -------------------+
//!                                                                                            |
//!                           record lost, from Recording, Waiting, Authorizing and Attached: judged anew
//!                           other rules, from Recording, Unadmitted, Waiting and Authorizing: judged anew
//! ```
//! A verdict takes a device to `Waiting` by [`Event::Admitted`] alone: the permit that came with it is given up for an [`Admitted`], which goes
//! with the device from there on. A verdict whose permit is on its way is void, and the permit with it, when the device is pulled out or taken
//! away, any rules come into force, or the record is lost: it is judged anew, or not at all, and the answer to the request before admits it to
//! nothing. A verdict that is on the disk is one of the rules in force for as long as its device is not attached: other rules, also those that give
//! the same, have the device judged anew, one that is attached when it comes back from its domain. A device is served to a domain in `Attached` alone, which is reached only by [`Event::Permitted`]: [`Effect::Start`] carries the
//! permit that came with it. What is no longer attached is [`Detaching`] until its thread has left the guest, told to and, if that takes too long,
//! cut off from it; until then nothing else at this place is connected to any domain.
//!
//! Some effects are carried out at once and answered by an event before anything else is handled; each of them is the last of its list:
//! [`Effect::AskPace`], [`Effect::Read`] that cannot be given to a thread, [`Effect::Judge`], [`Effect::Connect`], and [`Effect::Start`]
//! that cannot be given to one.
//!
//! | file | |
//! | --- | --- |
//! | `mod.rs` | states |
//! | `event.rs`, `effect.rs` | what comes in, what goes out |
//! | `admission.rs` | from being plugged in to a verdict, and verdicts anew |
//! | `attachment.rs` | into a domain, and out of it |
//! | `keyboard.rs` | the keyboard in a device: whether a driver of the host's has it |
//! | `world` | the exhaustive check |

mod admission;
mod attachment;
mod effect;
mod event;
mod keyboard;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Moment;
use monitor::Denial;
use usbdescriptors::Share;
use usbfilter::Counts;

use crate::attached::Served;
use crate::grant::{Admitted, UsbGrant};

pub(super) use effect::{Effect, Note, Notice};
pub(super) use event::{Connection, Event, Findings, Judgement, Reading};

/// How often a domain that does not take its device is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// Times a device is judged anew because it changed; then it stays off until it is plugged in again.
pub(super) const CHANGES_MAX: u32 = 3;
/// Times the host's drivers are asked to take a keyboard that none has, until it is plugged in again.
pub(super) const OFFERS_MAX: u32 = 4;
/// After this nobody remembers that the device at a place was lost in a reset.
pub(super) const REST: Duration = Duration::from_secs(60);
/// How long a device may take to leave its domain before it is cut off from it.
pub(super) const CUT_OFF_AFTER: Duration = Duration::from_millis(500);

/// How long a device may be read before that is said: longer than reading it takes where nothing hangs, with what the kernel asks a device of its own accord
/// when it is authorised.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(45);
const _: () = assert!(READ_WITHIN.as_millis() >= 2 * usbhost::READING_MAX.as_millis());

/// What is said of a device that is read for longer.
pub(super) const READ_FOR_LONG: &str = "the PC waits for it and it does not say what it is: it hangs, or holds up what it is plugged into; pull it out, and plug it in elsewhere";
/// What is said of a device of which the seat keeps a part.
pub(super) const KEPT: &str = "its keyboard or mouse stays with the PC";
/// What is said of one whose keyboard no driver takes.
pub(super) const NO_DRIVER: &str = "no driver of this PC takes its keyboard or mouse";
/// Why the host has a device.
pub(super) const SEATS: &str =
    "the seat's own: a keyboard, a mouse, a touch screen, a pen or a hub";
pub(super) const HOSTS: &str = "the host itself runs from it";
/// What is said besides of a device that broke the rules.
const AGAIN_BY_PLUG: &str = "plug it in again";
/// Why the seat does not take a keyboard.
const TURNED: &str = "a keyboard or mouse that appears in a device in use is not accepted; leave it unplugged for a minute, and plug it in again if it is meant to have one";
/// Why a device does not reach its domain, or has to leave it.
pub(super) const UNRECORDED: &str = "the audit log cannot be written";
/// Why a device is blocked whose thread failed.
const FAULT: &str =
    "the agent failed at it, which is a fault of Bulkhead's: report it; plug the device in again";

/// Returns whether the same request can be permitted later: when the log can be written again, or the rules that have changed are known. Any
/// other denial would come again.
const fn is_temporary(denial: Denial) -> bool {
    match denial {
        Denial::Stale | Denial::Unrecorded => true,
        Denial::Unanswered
        | Denial::Denied
        | Denial::OtherVerdict
        | Denial::Uninspected
        | Denial::Writable
        | Denial::NotRunning
        | Denial::Repeated
        | Denial::TooMany => false,
    }
}

/// Numbers for tasks of device threads and for requests to the audit log. One counter serves all devices, so that a late answer is
/// nobody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// Takes the next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }
}

/// Where a device is.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum State {
    /// None is plugged in.
    #[default]
    Absent,
    /// Devices come and go too often at this socket of the PC: it is not read until then.
    Throttled {
        /// When it is asked again whether it may be read.
        until: Moment,
    },
    /// Its thread finds out what it is.
    Reading {
        task: u64,
        /// Somebody has taken it away, who could not know yet whether it is the host's.
        leaving: bool,
        /// When it is said that this does not end; it was said, if there is no such time. It is waited for all the same: it may be the seat's keyboard,
        /// or what the host runs from, behind what hung at this place before.
        until: Option<Moment>,
    },
    /// The policy is asked.
    Judging,
    /// The host has it, for this reason.
    Host(&'static str),
    /// Nobody has it, for this reason.
    Blocked(String),
    /// It was taken away by hand.
    Off,
    /// The agent ends: nothing is begun any more, and what was begun is ended.
    Ended,
    /// The verdict is on its way to the disk.
    Recording {
        /// The request for a permit by it.
        request: u64,
        /// What the verdict gives.
        grant: UsbGrant,
    },
    /// The verdict is not on the disk, or the rules have changed since: it is judged anew in a while.
    Unadmitted {
        /// What the verdict gave.
        grant: UsbGrant,
        /// When it is judged anew.
        retry: Moment,
    },
    /// Its domain does not take it yet.
    Waiting {
        /// What it is to have.
        admitted: Admitted,
        /// When its domain is tried again.
        retry: Moment,
    },
    /// Its domain's VMM is being connected, by what it was admitted by, which comes back with the answer.
    Connecting,
    /// The VMM takes it; that it is attached is on its way to the disk.
    Authorizing {
        /// The request for a permit.
        request: u64,
        /// What it is to have.
        admitted: Admitted,
    },
    /// It is served to its domain.
    Attached {
        /// The task that serves it.
        task: u64,
        /// What the domain has.
        admitted: Admitted,
        /// The guest has seen it.
        begun: bool,
    },
}

/// An attachment that has ended, as long as its thread has not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Detaching {
    /// The task that served it.
    pub(super) task: u64,
    /// The domain that had it.
    pub(super) domain: String,
    /// Why it ended, in words.
    pub(super) why: String,
    /// The entry of the request to take it away.
    pub(super) request: Option<u64>,
    /// The descriptors as the device gave them.
    descriptors: Vec<u8>,
    /// When it is cut off from the guest; it was, if there is no such time.
    pub(super) until: Option<Moment>,
}

/// Tells a device that is another one after each reset from one that was only pulled out in the middle of a reset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ResetLoss {
    /// How often another came in its place.
    times: u32,
    /// When it was lost.
    when: Moment,
    /// Its descriptors, until something comes in its place.
    was: Option<Vec<u8>>,
}

impl ResetLoss {
    /// Counts how often in a row another device came in its place.
    fn on_replacement(&mut self, descriptors: &[u8]) -> u32 {
        if let Some(was) = self.was.take() {
            self.times = if was == descriptors { 0 } else { self.times.saturating_add(1) };
        }
        self.times
    }
}

/// What is known of the device that is plugged in; nothing of it outlives its being pulled out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Known {
    findings: Option<Findings>,
    /// The domain to which somebody attached it by hand.
    by_hand: Option<String>,
    /// Returns the entry of the request to attach it, until that has ended.
    request: Option<u64>,
    /// How often it was another than before; nothing is known of one that was not read yet.
    changes: Option<u32>,
    /// It was connected to a domain before.
    joined: bool,
    /// It had no keyboard in it until it was another device: the seat does not take it.
    turned: bool,
    /// How often the rest was taken from its guest because the keyboard in it had lost its driver.
    driverless: u32,
    /// How often the host's drivers were asked in vain to take the keyboard in it, since one last had it.
    offers: u32,
    /// A driver has some of its keyboards and mice, though not all: receivers and switches show interfaces that no driver takes.
    driven_in_part: bool,
    /// It waits because the audit log cannot be written.
    unrecorded: bool,
    /// It is attached by a verdict of other rules than are in force, which give the same.
    outdated: bool,
    /// It broke the rules while a domain had it: nobody gets it.
    broke_rules: bool,
}

/// What is plugged in at one place.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Lifecycle {
    state: State,
    known: Known,
    detaching: Vec<Detaching>,
    lost: Option<ResetLoss>,
    /// The requests for a permit to attach it that are not answered, and their domains. Whatever became of the device since: if the log says that it is
    /// attached, it has to say too that it is not.
    unanswered: BTreeMap<u64, String>,
}

impl Lifecycle {
    /// Handles an event at `now`; says what is to be done. Events that make no sense where the device is (a late answer of a thread, or
    /// of the log) change nothing.
    pub(super) fn handle<P>(
        &mut self,
        now: Moment,
        numbers: &mut Numbers,
        event: Event<P>,
    ) -> Vec<Effect<P>> {
        let mut step = Step { life: self, now, numbers, effects: Vec::new() };
        step.handle(event);
        step.effects
    }

    /// Returns where the device is.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Returns what its domain has, or is to have.
    pub(super) fn grant(&self) -> Option<&UsbGrant> {
        match &self.state {
            State::Recording { grant, .. } | State::Unadmitted { grant, .. } => Some(grant),
            State::Waiting { admitted, .. }
            | State::Authorizing { admitted, .. }
            | State::Attached { admitted, .. } => Some(admitted.grant()),
            _ => None,
        }
    }

    /// Returns what its domain has, if that is what this task serves.
    pub(super) fn served_by(&self, number: u64) -> Option<&UsbGrant> {
        match &self.state {
            State::Attached { task, admitted, .. } if *task == number => Some(admitted.grant()),
            _ => None,
        }
    }

    /// Returns whether it waits for this task of reading it.
    pub(super) fn is_read_by(&self, number: u64) -> bool {
        matches!(&self.state, State::Reading { task, .. } if *task == number)
    }

    /// Returns whether this is a request of its that is not answered, and the answer is of any consequence.
    pub(super) fn has_asked(&self, number: u64) -> bool {
        self.is_recorded_by(number) || self.unanswered.contains_key(&number)
    }

    /// Returns whether it waits for its verdict to be recorded by this request. An earlier one is about another device, other rules or a
    /// record that is lost: nobody waits for it.
    fn is_recorded_by(&self, number: u64) -> bool {
        matches!(&self.state, State::Recording { request, .. } if *request == number)
    }

    /// Returns the domain to which somebody attached it by hand.
    pub(super) fn by_hand(&self) -> Option<&str> {
        self.known.by_hand.as_deref()
    }

    /// Returns the entry of the request to attach it, until that has ended.
    pub(super) fn request(&self) -> Option<u64> {
        self.known.request
    }

    /// Returns whether it waits because the audit log cannot be written.
    pub(super) fn is_unrecorded(&self) -> bool {
        self.known.unrecorded
    }

    /// Has it been another than before so many times.
    #[cfg(test)]
    pub(super) fn count_changes(&mut self, times: u32) {
        self.known.changes = Some(times);
    }

    /// Returns whether nothing is left at this place, and nothing of what was there is remembered.
    pub(super) fn is_over(&self) -> bool {
        let nothing = self.detaching.is_empty() && self.unanswered.is_empty();
        self.state == State::Absent && nothing && self.lost.is_none()
    }

    /// Returns what the seat keeps of a device with a keyboard or mouse and something besides, whatever becomes of the rest.
    pub(super) fn kept(&self) -> Option<&Share> {
        self.known.findings.as_ref().filter(|_| !self.known.turned)?.seats_part.as_ref()
    }

    /// Returns what of it the host's input drivers are to have: of a device that is the seat's all that types or points, of another what is kept of
    /// it.
    pub(super) fn input(&self) -> Option<&Share> {
        if !matches!(self.state, State::Host(_)) {
            return self.kept();
        }
        self.known.findings.as_ref()?.input.as_ref()
    }

    /// Returns whether no driver of the host's takes the keyboard in it, and none is asked any more.
    pub(super) fn is_without_driver(&self) -> bool {
        self.known.offers >= OFFERS_MAX && !self.known.driven_in_part
    }

    /// Returns whether drivers of the host's have this of it is to be looked at: [`Event::InputDrivers`].
    pub(super) fn watched_input(&self) -> Option<&Share> {
        match self.state {
            State::Attached { begun: true, .. }
            | State::Off
            | State::Blocked(_)
            | State::Unadmitted { .. }
            | State::Waiting { .. }
            | State::Host(_) => self.input(),
            _ => None,
        }
    }

    /// Returns when an [`Event::Tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let state = match &self.state {
            State::Throttled { until } => Some(*until),
            State::Reading { until, .. } => *until,
            State::Unadmitted { retry, .. } => Some(*retry),
            // It is connected when what it had before is left; that comes as an event.
            State::Waiting { retry, .. } if self.detaching.is_empty() => Some(*retry),
            _ => None,
        };
        self.detaching.iter().filter_map(|one| one.until).chain(state).min()
    }
}

/// One event being handled.
struct Step<'l, P> {
    life: &'l mut Lifecycle,
    now: Moment,
    numbers: &'l mut Numbers,
    effects: Vec<Effect<P>>,
}

impl<P> Step<'_, P> {
    fn handle(&mut self, event: Event<P>) {
        match event {
            Event::PluggedIn => self.plugged_in(),
            Event::Unplugged => self.unplugged(),
            Event::Pace(wait) => self.pace(wait),
            Event::NoThread(why) => self.no_thread(why),
            Event::Read { task, reading } => self.read(task, reading),
            Event::ThreadFailed { task } if self.life.is_read_by(task) => {
                self.read(task, Err(FAULT.to_owned()));
            }
            Event::ThreadFailed { task } => {
                self.not_served(task, Some(FAULT.to_owned().into()), None);
            }
            Event::Judged(judgement) => self.judged(judgement),
            Event::Admitted { request, permit } => self.admitted(request, permit),
            Event::Connected { admitted, connection } => self.connected(admitted, connection),
            Event::Permitted { request, permit } => self.permitted(request, permit),
            Event::Refused { request, denial } => self.refused(request, denial),
            Event::NotStarted { task, why } => self.not_started(task, why),
            Event::Begun { task } => self.begun(task),
            Event::Left { task, reason, counts } => self.left(task, reason, counts),
            Event::Served { task, served: Served { outcome, carried_nothing } } => {
                self.not_served(task, outcome.err(), carried_nothing.then(Counts::default));
            }
            Event::AttachByHand { domain, request } => self.attach_by_hand(domain, request),
            Event::DetachByHand { request } => self.detach_by_hand(request),
            Event::RulesChanged { would_get, basis } => {
                self.rules_changed(would_get.as_ref(), basis);
            }
            Event::RecordLost => self.record_lost(),
            Event::InputDrivers { any, all, busy } => self.input_drivers(any, all, busy),
            Event::AgentEnds => self.agent_ends(),
            Event::Tick => self.tick(),
        }
    }

    fn effect(&mut self, effect: Effect<P>) {
        self.effects.push(effect);
    }

    fn note(&mut self, note: Note) {
        self.effect(Effect::Note(note));
    }

    fn notice(&mut self, notice: Notice) {
        self.effect(Effect::Notice(notice));
    }

    /// Puts it into another state. A connection to its VMM over which nothing has gone is dropped unless the device is now served over it.
    fn go(&mut self, state: State) {
        let served = matches!(state, State::Attached { .. });
        let was = std::mem::replace(&mut self.life.state, state);
        if matches!(was, State::Authorizing { .. }) && !served {
            self.effect(Effect::Disconnect);
        }
    }

    fn tick(&mut self) {
        self.cut_off_late();
        if self.life.lost.as_ref().is_some_and(|lost| self.now >= lost.when + REST) {
            self.life.lost = None;
        }
        match &self.life.state {
            State::Throttled { until } if self.now >= *until => self.effect(Effect::AskPace),
            State::Reading { until: Some(until), .. } if self.now >= *until => self.read_for_long(),
            State::Unadmitted { retry, .. } if self.now >= *retry => self.ask_policy(),
            State::Waiting { retry, .. } if self.now >= *retry => self.connect(),
            _ => {}
        }
    }
}
