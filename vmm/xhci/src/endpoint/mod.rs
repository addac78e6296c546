//! One endpoint: its states (4.8.3), and the transfer that is with the backend.
//!
//! ```text
//!            Configure, Address           error of the device
//!  (none) ---------------------> Running ----------------------> Halted
//!                                ^  |  `---- meaningless TRB --> Error |
//!                       doorbell |  | Stop Endpoint      Set TR |      | Reset Endpoint
//!                                |  v                   Dequeue v      v
//!                                Stopped <------------------------------
//! ```

mod gather;
mod report;

use crate::backend::{
    Backend, EndpointAddress, Moved, Payload, PortId, Request, Standard, Status, Transfer,
    TransferId,
};
use crate::context::{EndpointContext, EndpointType};
use crate::events::Events;
use crate::memory::{Memory, Outside};
use crate::ring::Position;
use crate::spec::{Code, trb_bit};
use crate::trb::{Event, Pipe, Trb};
use gather::{Chunk, Control, Found, InvalidTrb, Place};

/// Endpoint states as the context has them (6.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running = 1,
    Halted = 2,
    Stopped = 3,
    Error = 4,
}

/// What an endpoint works with; borrowed from the controller for one step.
pub(crate) struct Surroundings<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) events: &'a mut Events,
    pub(crate) backend: &'a mut dyn Backend,
    pub(crate) next_id: &'a mut u64,
    /// The slot's output device context.
    pub(crate) context: u64,
    /// The slot's device, unless it is gone.
    pub(crate) port: Option<PortId>,
}

/// What is with the backend.
#[derive(Debug)]
struct InFlight {
    id: TransferId,
    work: Found,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    status: Status,
    moved: u32,
    /// What came from the device.
    data: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pipe: Pipe,
    kind: EndpointType,
    packet: u32,
    interval: u32,
    state: State,
    place: Place,
    /// Bytes moved since the transfer descriptor began, or since the last Event Data (EDTLA, 4.11.5.2).
    moved: u32,
    in_flight: Option<InFlight>,
    /// A short packet ended the transfer descriptor early, and what is left of it is passed over.
    skipping: Option<Skip>,
    /// The guest stops it, and what its transfer has moved is not known yet.
    stopping: bool,
}

/// Passing over the rest of a transfer descriptor.
#[derive(Clone, Copy, Debug)]
struct Skip {
    /// The guest has had an event for the short packet.
    told: bool,
    /// How many TRBs were passed over so far.
    passed: u32,
}

impl Endpoint {
    pub(crate) fn new(pipe: Pipe, context: &EndpointContext) -> Self {
        Self {
            pipe,
            kind: context.kind,
            packet: context.packet,
            interval: context.interval,
            state: State::Running,
            place: Place::start_of(context.dequeue),
            moved: 0,
            in_flight: None,
            skipping: None,
            stopping: false,
        }
    }

    pub(crate) fn set_packet(&mut self, packet: u32) {
        self.packet = packet;
    }

    pub(crate) fn address(&self) -> EndpointAddress {
        self.pipe.address()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes it that the doorbell rang. Returns whether there is something to do.
    pub(crate) fn ring(&mut self, memory: &Memory, context: u64) -> Result<bool, Outside> {
        if self.state == State::Stopped {
            self.state = State::Running;
            self.publish(memory, context)?;
        }
        Ok(self.state == State::Running)
    }

    /// Takes it that the backend is done. Returns whether it was with this transfer.
    pub(crate) fn complete(&mut self, id: TransferId, status: Status, moved: Moved) -> bool {
        let Some(in_flight) = self.in_flight.as_mut().filter(|it| it.id == id) else {
            return false;
        };
        if in_flight.ended.is_some() {
            return false;
        }
        let asked = in_flight.work.length();
        let to_host = in_flight.work.to_host(self.pipe);
        let (moved, mut data) = match moved {
            Moved::In(data) if to_host => (u32::try_from(data.len()).unwrap_or(u32::MAX), data),
            Moved::Out(moved) if !to_host => (moved, Vec::new()),
            _ => (0, Vec::new()),
        };
        let status = match status {
            Status::Success | Status::Stopped if moved > asked => Status::Babble,
            // All of it was moved before it could be stopped; a control transfer that moves nothing may
            // have been done or not.
            Status::Stopped if moved == asked && asked > 0 => Status::Success,
            Status::Stopped if !self.stopping => Status::Error,
            status => status,
        };
        data.truncate(asked as usize);
        in_flight.ended = Some(Ended { status, moved: moved.min(asked), data });
        true
    }

    /// Takes it that the device is gone: what is with it has failed. Returns whether something was.
    /// Nothing else makes an endpoint look at its ring but its doorbell (4.7): nobody says what is there
    /// by now.
    pub(crate) fn lose(&mut self) -> bool {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.ended.get_or_insert(Ended::failed());
        }
        self.is_in_flight()
    }

    /// Takes the endpoint's transfer from the backend, without a word to the guest.
    pub(crate) fn abandon(&mut self, port: Option<PortId>, backend: &mut dyn Backend) {
        self.stopping = false;
        if let Some(InFlight { id, ended: None, .. }) = self.in_flight.take() {
            backend.cancel(id);
        }
        if let Some(port) = port {
            backend.endpoint_stopped(port, self.address());
        }
    }

    /// Does a bounded amount of work; returns whether there is more.
    pub(crate) fn step(&mut self, around: &mut Surroundings<'_>) -> Result<bool, Outside> {
        if self.state != State::Running || self.stopping {
            return Ok(false);
        }
        if let Some(in_flight) = &mut self.in_flight {
            let Some(ended) = in_flight.ended.take() else { return Ok(false) };
            if let Some(in_flight) = self.in_flight.take() {
                self.finish(in_flight.work, &ended, around)?;
            }
            return Ok(true);
        }
        if let Some(skip) = self.skipping {
            return self.skip(skip, around);
        }
        let found = match self.kind {
            EndpointType::Control => gather::control(around.memory, self.place),
            _ => {
                let to_host = self.address().is_in();
                gather::chunk(around.memory, self.place, to_host, self.packet)
                    .map(|found| found.map(Found::Chunk))
            }
        };
        match found {
            Ok(None) => Ok(false),
            Ok(Some(found)) => self.start(found, around),
            Err(InvalidTrb(trb)) => {
                self.fail(&trb, Code::TrbError, trb.length(), State::Error, around)?;
                Ok(false)
            }
        }
    }

    fn start(&mut self, found: Found, around: &mut Surroundings<'_>) -> Result<bool, Outside> {
        if !found.moves_data() {
            self.finish(found, &Ended::done(), around)?;
            return Ok(true);
        }
        let Some(port) = around.port else {
            self.finish(found, &Ended::failed(), around)?;
            return Ok(true);
        };
        if let Found::Control(control) = &found
            && control.setup.standard() == Standard::SetAddress
        {
            let refused = Ended { status: Status::Stall, ..Ended::failed() };
            self.finish(found, &refused, around)?;
            return Ok(true);
        }
        let to_host = found.to_host(self.pipe);
        let payload = if to_host {
            Payload::In(found.length())
        } else {
            // The addresses were checked when the TRBs were read.
            Payload::Out(gather::collect(around.memory, found.pieces())?)
        };
        let request = match (&found, self.kind) {
            (Found::Control(control), _) => Request::Control { setup: control.setup, payload },
            (_, EndpointType::Interrupt) => {
                Request::Interrupt { payload, interval: self.interval, packet: self.packet }
            }
            _ => Request::Bulk(payload),
        };
        let id = self.pipe.transfer_id(around.next_id);
        self.in_flight = Some(InFlight { id, work: found, ended: None });
        around.backend.submit(Transfer { id, port, endpoint: self.address(), request });
        Ok(false)
    }

    /// Carries out Stop Endpoint (4.6.9); returns the command's code, or none yet, while the backend
    /// has not said what the transfer under way has moved. Then [`Self::go_on_stopping`].
    pub(crate) fn stop(&mut self, around: &mut Surroundings<'_>) -> Result<Option<Code>, Outside> {
        // What has already come counts.
        self.take_ended(around)?;
        if self.state != State::Running {
            return Ok(Some(Code::ContextState));
        }
        match &self.in_flight {
            Some(in_flight) => {
                self.stopping = true;
                around.backend.stop(in_flight.id);
                Ok(None)
            }
            None => self.stopped(around).map(Some),
        }
    }

    /// Goes on as [`Self::stop`] does. `late`: the backend is not waited for any longer. Nobody knows
    /// then what the device has and has not, so the transfer has failed.
    pub(crate) fn go_on_stopping(
        &mut self,
        late: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Code>, Outside> {
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| it.ended.is_none()) {
            if !late {
                return Ok(None);
            }
            around.backend.cancel(in_flight.id);
            in_flight.ended = Some(Ended::failed());
        }
        self.take_ended(around)?;
        self.stopping = false;
        if self.state != State::Running {
            return Ok(Some(Code::ContextState));
        }
        self.stopped(around).map(Some)
    }

    /// Tells the guest of a transfer that is back, if one is.
    fn take_ended(&mut self, around: &mut Surroundings<'_>) -> Result<(), Outside> {
        let ended = self.in_flight.take_if(|in_flight| in_flight.ended.is_some());
        if let Some(InFlight { work, ended: Some(ended), .. }) = ended {
            self.finish(work, &ended, around)?;
        }
        Ok(())
    }

    /// Stops the endpoint, as nothing is with the backend.
    fn stopped(&mut self, around: &mut Surroundings<'_>) -> Result<Code, Outside> {
        self.abandon(around.port, around.backend);
        self.state = State::Stopped;
        self.publish(around.memory, around.context)?;
        Ok(Code::Success)
    }

    /// Carries out Reset Endpoint (4.6.8).
    pub(crate) fn reset(
        &mut self,
        preserve: bool,
        around: &Surroundings<'_>,
    ) -> Result<Code, Outside> {
        if self.state != State::Halted {
            return Ok(Code::ContextState);
        }
        if !preserve {
            (self.place.done, self.moved, self.skipping) = (0, 0, None);
        }
        self.state = State::Stopped;
        self.publish(around.memory, around.context)?;
        Ok(Code::Success)
    }

    /// Carries out Set TR Dequeue Pointer (4.6.10).
    pub(crate) fn set_dequeue(
        &mut self,
        at: Position,
        around: &Surroundings<'_>,
    ) -> Result<Code, Outside> {
        if !matches!(self.state, State::Stopped | State::Error) {
            return Ok(Code::ContextState);
        }
        self.place = Place::start_of(at);
        (self.moved, self.skipping) = (0, None);
        self.state = State::Stopped;
        self.publish(around.memory, around.context)?;
        Ok(Code::Success)
    }

    /// Fails with an event; returns the state the endpoint stops in.
    fn fail(
        &mut self,
        trb: &Trb,
        code: Code,
        residual: u32,
        state: State,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Outside> {
        around.events.post(Event::transfer(self.pipe, trb, code, residual));
        self.state = state;
        self.publish(around.memory, around.context)
    }

    /// Writes state and dequeue pointer to the endpoint's context.
    pub(crate) fn publish(&self, memory: &Memory, context: u64) -> Result<(), Outside> {
        let state = self.state as u32;
        EndpointContext::publish(memory, context, self.pipe.index, state, self.place.at)
    }
}

impl Ended {
    fn done() -> Self {
        Self { status: Status::Success, moved: 0, data: Vec::new() }
    }

    fn failed() -> Self {
        Self { status: Status::Error, moved: 0, data: Vec::new() }
    }
}

impl Found {
    fn pieces(&self) -> &[gather::Piece] {
        match self {
            Self::Chunk(Chunk { pieces, .. }) | Self::Control(Control { pieces, .. }) => pieces,
        }
    }

    fn length(&self) -> u32 {
        match self {
            Self::Chunk(Chunk { length, .. }) | Self::Control(Control { length, .. }) => *length,
        }
    }

    fn to_host(&self, pipe: Pipe) -> bool {
        match self {
            Self::Chunk(_) => pipe.address().is_in(),
            Self::Control(control) => control.setup.is_in(),
        }
    }

    /// Returns whether the device has to do with it.
    fn moves_data(&self) -> bool {
        matches!(self, Self::Control(_)) || self.pieces().iter().any(gather::Piece::moves_data)
    }
}

impl Pipe {
    /// Bits of a transfer ID that say whose it is; the rest counts.
    const ID_BITS: u32 = 16;

    pub(crate) fn address(self) -> EndpointAddress {
        match self.index {
            1 => EndpointAddress(0),
            index => EndpointAddress((index >> 1) | (index & 1) << 7),
        }
    }

    fn transfer_id(self, next: &mut u64) -> TransferId {
        *next += 1;
        let pipe = u64::from(self.slot) << 8 | u64::from(self.index);
        TransferId(*next << Self::ID_BITS | pipe)
    }

    pub(crate) fn of(id: TransferId) -> Self {
        let [index, slot, ..] = id.0.to_le_bytes();
        Self { slot, index }
    }
}

/// Returns whether a TRB asks for an event when it is done.
fn wants_event(trb: &Trb) -> bool {
    trb.has(trb_bit::IOC)
}
