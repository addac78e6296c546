//! A Stop Endpoint command (4.6.9) whose endpoint has a transfer with the backend: it is answered when
//! the backend has said what that moved, and no other command is carried out before.

use std::time::Instant;

use super::{Controller, Fault};
use crate::backend::Backend;
use crate::endpoint::Endpoint;
use crate::memory::Outside;
use crate::spec::{Code, STOP_WAIT};
use crate::trb::{Event, Pipe, Trb};

/// The command that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// Address of its TRB.
    command: u64,
    pipe: Pipe,
    /// When it waits no longer.
    until: Instant,
}

/// Whether a command waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// No command waits for an endpoint to stop.
    No,
    /// One does, and goes on.
    Still,
    /// A command waited, and its endpoint has stopped.
    Over,
}

impl<B: Backend> Controller<B> {
    /// Returns when [`Controller::step`] is to be called at the latest, if a command waits for a
    /// device. Not while the guest keeps it waiting itself, by a full event ring or a controller
    /// that it halted.
    pub fn deadline(&self) -> Option<Instant> {
        let goes_on = self.is_running() && self.events.is_empty();
        self.stopping.filter(|_| goes_on).map(|stopping| stopping.until)
    }

    /// Carries the command out: its code, or none as long as it waits.
    pub(crate) fn stop_endpoint(&mut self, trb: &Trb) -> Option<Code> {
        let pipe = Pipe { slot: trb.slot(), index: trb.endpoint() };
        if !matches!(Self::place(&mut self.slots, pipe.slot), Some(Some(_))) {
            return Some(Code::SlotNotEnabled);
        }
        let code = Self::code(self.at_endpoint(pipe, Endpoint::stop));
        match code {
            None => {
                let until = Instant::now() + STOP_WAIT;
                self.stopping = Some(Stopping { command: trb.address, pipe, until });
            }
            Some(_) => self.at_rest(pipe),
        }
        code
    }

    /// Hurries, as the guest wants its command ring stopped: whatever waits, waits no longer.
    pub(crate) fn hurry(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.until = Instant::now();
        }
    }

    /// Answers the command that waits, if it has waited long enough.
    pub(crate) fn go_on_stopping(&mut self) -> Result<Waits, Fault> {
        let Some(Stopping { command, pipe, until }) = self.stopping else { return Ok(Waits::No) };
        let late = Instant::now() >= until;
        let at = self.at_endpoint(pipe, |endpoint, around| endpoint.go_on_stopping(late, around));
        let Some(code) = Self::code(at) else { return Ok(Waits::Still) };
        self.stopping = None;
        self.at_rest(pipe);
        self.events.post(Event::command(command, code, pipe.slot));
        Ok(Waits::Over)
    }

    fn code(result: Option<Result<Option<Code>, Outside>>) -> Option<Code> {
        match result {
            None => Some(Code::EndpointNotEnabled),
            Some(Ok(code)) => code,
            Some(Err(outside)) => Some(outside.into()),
        }
    }

    fn at_rest(&mut self, pipe: Pipe) {
        if let Some(Some(slot)) = Self::place(&mut self.slots, pipe.slot) {
            slot.ready &= !(1u32.checked_shl(pipe.index.into()).unwrap_or(0));
        }
    }
}
