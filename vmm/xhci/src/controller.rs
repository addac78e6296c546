//! The controller: registers, and what they set going.

mod stopping;

use std::time::Instant;

use crate::backend::{Backend, Interrupt, Moved, PortId, Speed, Status, TransferId};
use crate::endpoint::{Endpoint, Surroundings};
use crate::events::{EventRingError, Events};
use crate::memory::{GuestMemory, Memory, Outside};
use crate::port::{Effect, Port};
use crate::registers::{Registers, offset};
use crate::ring::{Position, RingError};
use crate::slot::Slot;
use crate::spec::{PORTS_MAX, SLOTS, base, crcr, usbcmd, usbsts};
use crate::trb::{Event, Pipe};
use stopping::{Stopping, Waits};

/// Bytes of a port's register set.
const PORT_SIZE: u64 = 16;

/// How many ports a controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For low, full and high speed; at most [`PORTS_MAX`].
    pub usb2: u8,
    /// For super speed; at most [`PORTS_MAX`].
    pub usb3: u8,
}

impl Default for Ports {
    fn default() -> Self {
        Self { usb2: 4, usb3: 4 }
    }
}

/// Why a device cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The controller has no port of this number.
    #[error("there is no port {0}")]
    NoPort(u8),
    /// A device is at the port already.
    #[error("there is a device at port {0} already")]
    Occupied(u8),
    /// A USB 3 device at a port of USB 2, or the other way about.
    #[error("port {0} is not for devices of this speed")]
    Speed(u8),
}

/// Whether [`Controller::step`] has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not done now is to be done soon"]
pub enum Progress {
    /// Call it again, when others have had their turn.
    More,
    /// Nothing until the guest writes a register, or a device answers or comes or goes.
    Idle,
}

/// What the controller cannot go on from until the guest resets it. The guest is to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("an address")]
    Memory(#[from] Outside),
    #[error("the command ring")]
    Commands(#[from] RingError),
    #[error("the event ring")]
    Events(#[from] EventRingError),
}

impl Fault {
    /// Returns the bit of USBSTS that says it (4.10.2.6).
    fn status(&self) -> u32 {
        match self {
            Self::Events(EventRingError::Segments(_) | EventRingError::SegmentSize(_)) => {
                usbsts::HCE
            }
            _ => usbsts::HSE,
        }
    }
}

/// An xHCI with its devices behind `B`.
pub struct Controller<B> {
    pub(crate) memory: Memory,
    pub(crate) registers: Registers,
    pub(crate) ports: Vec<Port>,
    /// By slot number less one; always [`SLOTS`] of them.
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) events: Events,
    /// Where the command ring is read next.
    pub(crate) commands: Position,
    pub(crate) backend: B,
    line: Box<dyn Interrupt>,
    /// The command ring runs (CRCR.CRR, 5.4.5).
    commands_running: bool,
    /// Doorbell 0 rang since the command ring was last seen empty.
    commands_ready: bool,
    /// The command that waits for a device.
    pub(crate) stopping: Option<Stopping>,
    /// The guest stopped the command ring and is to be told.
    commands_stopped: bool,
    /// The slot whose turn it was last.
    turn: usize,
    next_id: u64,
    started: Instant,
}

impl<B: Backend> Controller<B> {
    /// Makes a controller after reset, nothing attached. Ports beyond [`PORTS_MAX`] there are not.
    pub fn new(ports: Ports, memory: GuestMemory, backend: B, line: Box<dyn Interrupt>) -> Self {
        let (usb2, usb3) = (ports.usb2.min(PORTS_MAX), ports.usb3.min(PORTS_MAX));
        let port = |number| Port::new(PortId(number), number > usb2);
        Self {
            memory: Memory::new(memory),
            registers: Registers::new(usb2, usb3),
            ports: (1..=usb2 + usb3).map(port).collect(),
            slots: (0..SLOTS).map(|_| None).collect(),
            events: Events::new(),
            commands: Position::default(),
            backend,
            line,
            commands_running: false,
            commands_ready: false,
            commands_stopped: false,
            stopping: None,
            turn: 0,
            next_id: 0,
            started: Instant::now(),
        }
    }

    /// Returns the side of the devices.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the side of the devices, to be changed.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Returns the first port without a device that one of this speed can go to.
    pub fn free_port(&self, speed: Speed) -> Option<PortId> {
        self.ports.iter().find(|port| port.takes(speed) && port.is_free()).map(|port| port.id)
    }

    /// Plugs a device in. The guest learns of it at the next [`Controller::step`].
    ///
    /// # Errors
    /// When the port is not there, not free, or not for this speed.
    pub fn attach(&mut self, id: PortId, speed: Speed) -> Result<(), AttachError> {
        let port = self.port(id).ok_or(AttachError::NoPort(id.0))?;
        if !port.takes(speed) {
            return Err(AttachError::Speed(id.0));
        }
        if !port.is_free() {
            return Err(AttachError::Occupied(id.0));
        }
        port.attach(speed);
        Ok(())
    }

    /// Unplugs the device at a port, if there is one. Its transfers have failed as far as the guest
    /// is concerned; the backend is told nothing and can forget them.
    pub fn detach(&mut self, id: PortId) {
        if let Some(port) = self.port(id) {
            port.detach();
            self.lose_device(id);
        }
    }

    /// Takes it that a transfer ended. Ignored if it is not in flight (any more). The guest learns
    /// of it at the next [`Controller::step`].
    pub fn complete(&mut self, id: TransferId, status: Status, moved: Moved) {
        let Pipe { slot, index } = Pipe::of(id);
        let Some(Some(slot)) = Self::place(&mut self.slots, slot) else { return };
        if let Some(endpoint) = slot.endpoints.get_mut(&index)
            && endpoint.complete(id, status, moved)
        {
            slot.ready |= 1 << index;
        }
    }

    /// Returns how many transfers are with the backend, or came back and wait for a step.
    pub fn in_flight(&self) -> usize {
        let endpoints = self.slots.iter().flatten().flat_map(|slot| slot.endpoints.values());
        endpoints.filter(|endpoint| endpoint.is_in_flight()).count()
    }

    /// Does one bounded piece of work: one command, or one endpoint's next chunk, or events.
    pub fn step(&mut self) -> Progress {
        if !self.is_running() {
            return Progress::Idle;
        }
        self.try_step().unwrap_or_else(|fault| {
            self.stop_with(&fault);
            Progress::Idle
        })
    }

    /// Goes back to the state at power on, but for the devices that are plugged in. Idempotent.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            if let Some(mut slot) = slot.take() {
                slot.remove(&self.ports, &mut self.backend, |_| true);
            }
        }
        for port in &mut self.ports {
            port.reset();
        }
        self.registers.reset();
        self.events = Events::new();
        self.commands = Position::default();
        self.stopping = None;
        (self.commands_running, self.commands_ready, self.commands_stopped) = (false, false, false);
    }

    /// Called when MSI-X was switched on or off: what was pending may be delivered now.
    pub fn interrupts_changed(&mut self) {
        self.events.interrupt(&mut self.registers, &*self.line);
    }

    /// Reads 1 to 8 bytes of BAR 0; zero where there is no register.
    pub fn read(&self, at: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(at..) {
            let word = self.read_register(at & !3).to_le_bytes();
            *byte = word.get((at & 3) as usize).copied().unwrap_or(0);
        }
    }

    /// Writes BAR 0: four or eight bytes, aligned to four; anything else is dropped. Returns whether
    /// [`Controller::step`] may have something to do.
    pub fn write(&mut self, at: u64, data: &[u8]) -> bool {
        if at & 3 != 0 {
            return false;
        }
        match data {
            [a, b, c, d] => self.write_register(at, u32::from_le_bytes([*a, *b, *c, *d])),
            [a, b, c, d, e, f, g, h] => {
                let low = self.write_register(at, u32::from_le_bytes([*a, *b, *c, *d]));
                self.write_register(at + 4, u32::from_le_bytes([*e, *f, *g, *h])) | low
            }
            _ => false,
        }
    }

    fn read_register(&self, at: u64) -> u32 {
        match at {
            offset::CRCR if self.commands_running => crcr::RUNNING,
            offset::MFINDEX if self.is_running() => {
                // Frames of 125 microseconds, fourteen bits of them (5.5.1).
                (self.started.elapsed().as_micros() / 125) as u32 & 0x3fff
            }
            base::PORTS..base::EXTENDED => {
                let (port, index) = split_port(at);
                self.ports.get(port).map_or(0, |port| port.read(index))
            }
            _ => self.registers.get(at),
        }
    }

    fn write_register(&mut self, at: u64, value: u32) -> bool {
        match at {
            offset::USBCMD => self.write_usbcmd(value),
            offset::CRCR => return self.write_crcr(value),
            offset::CRCR_HIGH => {
                if !self.commands_running {
                    let low = self.commands.address & 0xffff_ffff;
                    self.commands.address = u64::from(value) << 32 | low;
                }
                return false;
            }
            base::PORTS..base::EXTENDED => {
                let (port, index) = split_port(at);
                let Some(port) = self.ports.get_mut(port) else { return false };
                if port.write(index, value) == Effect::Reset {
                    self.backend.reset_port(port.id);
                }
            }
            base::DOORBELLS..base::TABLE => return self.ring_doorbell(at, value),
            // Either half: some drivers write only the lower.
            offset::ERDP | offset::ERDP_HIGH => {
                self.registers.write(at, value);
                self.events.dequeued(&mut self.registers, &*self.line);
            }
            offset::ERSTSZ | offset::ERSTBA | offset::ERSTBA_HIGH => {
                self.registers.write(at, value);
                self.events.replace_ring();
            }
            _ => self.registers.write(at, value),
        }
        self.events.interrupt(&mut self.registers, &*self.line);
        true
    }

    fn write_usbcmd(&mut self, value: u32) {
        if value & usbcmd::RESET != 0 {
            return self.reset();
        }
        let ran = self.is_running();
        self.registers.write(offset::USBCMD, value);
        let broken = self.registers.has(offset::USBSTS, usbsts::HSE | usbsts::HCE);
        if broken {
            self.registers.change(offset::USBCMD, usbcmd::RUN, 0);
        }
        match (ran, self.registers.has(offset::USBCMD, usbcmd::RUN)) {
            (false, true) => {
                self.started = Instant::now();
                self.registers.change(offset::USBSTS, usbsts::HALTED, 0);
            }
            (true, false) => self.halt(),
            _ => {}
        }
        // Nothing is kept over a suspend: to save is easy, to restore fails and the driver starts
        // over (4.23.2).
        let restore_error = if value & usbcmd::RESTORE != 0 { usbsts::SRE } else { 0 };
        let saved = if value & usbcmd::SAVE != 0 { usbsts::SRE } else { 0 };
        self.registers.change(offset::USBSTS, saved, restore_error);
    }

    fn write_crcr(&mut self, value: u32) -> bool {
        if self.commands_running {
            if value & (crcr::STOP | crcr::ABORT) != 0 {
                self.commands_running = false;
                self.commands_stopped = true;
                self.hurry();
            }
            return self.commands_stopped;
        }
        let high = self.commands.address & !0xffff_ffff;
        self.commands.address = high | u64::from(value & crcr::POINTER);
        self.commands.cycle = value & crcr::CYCLE != 0;
        false
    }

    /// Takes the write of a doorbell (4.7).
    fn ring_doorbell(&mut self, at: u64, value: u32) -> bool {
        if !self.is_running() {
            return false;
        }
        let [target, ..] = value.to_le_bytes();
        let number = (at - base::DOORBELLS) / 4;
        if number == 0 {
            let mine = target == 0;
            self.commands_running |= mine;
            self.commands_ready |= mine;
            return mine;
        }
        let place = Self::place(&mut self.slots, u8::try_from(number).unwrap_or(0));
        let Some(Some(slot)) = place else { return false };
        let Some(endpoint) = slot.endpoints.get_mut(&target) else { return false };
        match endpoint.ring(&self.memory, slot.context) {
            Ok(ready) => {
                slot.ready |= u32::from(ready) << target;
                ready
            }
            Err(outside) => {
                self.stop_with(&outside.into());
                false
            }
        }
    }

    fn try_step(&mut self) -> Result<Progress, Fault> {
        self.flush()?;
        if !self.events.is_empty() {
            return Ok(Progress::Idle); // until the guest makes room
        }
        let worked = self.report_port_changes() || self.next_command()? || self.next_endpoint()?;
        self.flush()?;
        Ok(if worked { Progress::More } else { Progress::Idle })
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(self.events.flush(&self.memory, &mut self.registers, &*self.line)?)
    }

    fn report_port_changes(&mut self) -> bool {
        let mut told = false;
        for port in self.ports.iter_mut().filter(|port| port.changed) {
            port.changed = false;
            told = true;
            self.events.post(Event::port(port.id.0));
        }
        if told {
            self.registers.change(offset::USBSTS, 0, usbsts::PCD);
        }
        told
    }

    fn next_command(&mut self) -> Result<bool, Fault> {
        match self.go_on_stopping()? {
            Waits::No => {}
            Waits::Still => return Ok(false),
            Waits::Over => return Ok(true),
        }
        if std::mem::take(&mut self.commands_stopped) {
            let at = self.commands.address;
            self.events.post(Event::command(at, crate::spec::Code::CommandRingStopped, 0));
            return Ok(true);
        }
        if !self.commands_running || !self.commands_ready {
            return Ok(false);
        }
        self.commands_ready = self.command()?;
        Ok(self.commands_ready)
    }

    fn next_endpoint(&mut self) -> Result<bool, Fault> {
        let count = self.slots.len();
        for step in 1..=count {
            let number = (self.turn + step) % count.max(1);
            let Some(Some(slot)) = self.slots.get_mut(number) else { continue };
            if slot.ready == 0 {
                continue;
            }
            // Lowest first within a slot; a device's endpoints are few, and none stays ready long.
            let index = slot.ready.trailing_zeros() as u8;
            slot.ready &= !(1 << index);
            self.turn = number;
            // At most SLOTS.
            let pipe = Pipe { slot: number as u8 + 1, index };
            let more = self.at_endpoint(pipe, Endpoint::step).transpose()?.unwrap_or(false);
            if let (true, Some(Some(slot))) = (more, self.slots.get_mut(number)) {
                slot.ready |= 1 << index;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Does something with an endpoint, if there is one.
    pub(crate) fn at_endpoint<T>(
        &mut self,
        pipe: Pipe,
        act: impl FnOnce(&mut Endpoint, &mut Surroundings<'_>) -> T,
    ) -> Option<T> {
        let Self { slots, ports, memory, events, backend, next_id, .. } = self;
        let slot = Self::place(slots, pipe.slot)?.as_mut()?;
        let port = slot.port(ports);
        let endpoint = slot.endpoints.get_mut(&pipe.index)?;
        let context = slot.context;
        Some(act(endpoint, &mut Surroundings { memory, events, backend, next_id, context, port }))
    }

    fn port(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(usize::from(id.0).checked_sub(1)?)
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.registers.has(offset::USBSTS, usbsts::HALTED)
    }

    fn halt(&mut self) {
        self.registers.change(offset::USBSTS, 0, usbsts::HALTED);
        self.commands_running = false;
    }

    fn stop_with(&mut self, fault: &Fault) {
        self.registers.change(offset::USBSTS, 0, fault.status());
        self.registers.change(offset::USBCMD, usbcmd::RUN, 0);
        self.halt();
        let error: &(dyn std::error::Error + 'static) = fault;
        tracing::warn!(
            error,
            "the guest's USB driver broke the rules; the controller waits for a reset"
        );
        if self.registers.has(offset::USBCMD, usbcmd::INTE) {
            self.line.raise();
        }
    }
}

/// Returns the port (counted from 0) and register of its set.
fn split_port(at: u64) -> (usize, usize) {
    let at = at - base::PORTS;
    ((at / PORT_SIZE) as usize, (at % PORT_SIZE / 4) as usize)
}
