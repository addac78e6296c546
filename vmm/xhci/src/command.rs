//! Commands (4.6). Each is carried out at once and answered with one Command Completion Event; only Stop
//! Endpoint may have to wait for a device (module `stopping`).

use crate::backend::{Backend, PortId};
use crate::context::{EndpointContext, EndpointType, InputContext, SlotContext};
use crate::controller::{Controller, Fault};
use crate::endpoint::Endpoint;
use crate::memory::Outside;
use crate::registers::offset;
use crate::ring::Position;
use crate::slot::Slot;
use crate::spec::{CONTEXTS, Code, SLOTS, slot_state, trb_bit, trb_type};
use crate::trb::{Event, Pipe, Trb};

/// The slot context's and the default endpoint's flags in an input context (6.2.5.1).
const SLOT_FLAG: u32 = 1 << 0;
const DEFAULT_FLAG: u32 = 1 << 1;
/// Lowest device context index of an endpoint that is configured.
const FIRST: u8 = 2;

/// What a command says of itself: a code where it was refused or failed.
type Outcome = Result<(), Code>;

impl From<Outside> for Code {
    /// Returns the code of a command whose contexts the guest put where there is no memory.
    fn from(_: Outside) -> Self {
        Self::Parameter
    }
}

impl<B: Backend> Controller<B> {
    /// Carries out the next command; returns whether there was one.
    pub(crate) fn command(&mut self) -> Result<bool, Fault> {
        let Some((trb, after)) = self.commands.fetch(&self.memory)? else { return Ok(false) };
        self.commands = after;
        let mut slot = trb.slot();
        let outcome = match trb.kind() {
            trb_type::ENABLE_SLOT => self.enable_slot().map(|given| slot = given),
            trb_type::DISABLE_SLOT => self.disable_slot(slot),
            trb_type::ADDRESS_DEVICE => self.address_device(&trb),
            trb_type::CONFIGURE_ENDPOINT => self.configure_endpoint(&trb),
            trb_type::EVALUATE_CONTEXT => self.evaluate_context(&trb),
            trb_type::RESET_ENDPOINT => self.reset_endpoint(&trb),
            trb_type::STOP_ENDPOINT => match self.stop_endpoint(&trb) {
                Some(Code::Success) => Ok(()),
                Some(code) => Err(code),
                None => return Ok(true), // answered later
            },
            trb_type::SET_TR_DEQUEUE => self.set_dequeue(&trb),
            trb_type::RESET_DEVICE => self.reset_device(slot),
            trb_type::NO_OP_COMMAND => {
                slot = 0;
                Ok(())
            }
            // Virtualization, bandwidth negotiation, latency tolerance, Force Header: all optional.
            _ => Err(Code::TrbError),
        };
        let code = outcome.err().unwrap_or(Code::Success);
        self.events.post(Event::command(trb.address, code, slot));
        Ok(true)
    }

    /// Carries out Enable Slot (4.6.3); returns the slot's number.
    fn enable_slot(&mut self) -> Result<u8, Code> {
        let enabled = self.registers.get(offset::CONFIG).min(u32::from(SLOTS)) as usize;
        let mut free = (1..).zip(self.slots.iter_mut()).take(enabled);
        let (number, slot) = free.find(|(_, slot)| slot.is_none()).ok_or(Code::NoSlots)?;
        *slot = Some(Slot::new());
        Ok(number)
    }

    /// Carries out Disable Slot (4.6.4).
    fn disable_slot(&mut self, number: u8) -> Outcome {
        let Self { slots, ports, backend, memory, .. } = self;
        let place = Self::place(slots, number).ok_or(Code::SlotNotEnabled)?;
        let mut slot = place.take().ok_or(Code::SlotNotEnabled)?;
        slot.remove(ports, backend, |_| true);
        if slot.context != 0 {
            let mut context = SlotContext::read(memory, slot.context)?;
            context.set_state(slot_state::ENABLED, 0);
            context.write(memory, slot.context)?;
        }
        Ok(())
    }

    /// Carries out Address Device (4.6.5).
    fn address_device(&mut self, trb: &Trb) -> Outcome {
        let Self { slots, ports, backend, memory, registers, .. } = self;
        let number = trb.slot();
        let others = (1..).zip(slots.iter()).filter(|(other, _)| *other != number);
        let taken: Vec<_> = others.filter_map(|(_, slot)| slot.as_ref()?.device).collect();
        let slot = Self::enabled(slots, number)?;
        let block = trb.has(trb_bit::BSR);
        let early = slot.state == slot_state::ENABLED;
        if !early && (block || slot.state != slot_state::DEFAULT) {
            return Err(Code::ContextState);
        }
        let input = InputContext::read(memory, trb.parameter() & !0xf)?;
        let mut context = SlotContext::read(memory, input.device)?;
        let default = EndpointContext::read(memory, input.device, 1)?;
        let Some(default) = default.filter(|context| context.is_sound(1)) else {
            return Err(Code::Parameter);
        };
        let port = usize::from(context.port()).checked_sub(1).and_then(|port| ports.get(port));
        let Some(port) = port.filter(|_| input.drop == 0 && input.add & 3 == 3) else {
            return Err(Code::Parameter);
        };
        let generation = match port.enabled_generation() {
            Some(generation) if context.route() == 0 => generation,
            _ => return Err(Code::TransactionError),
        };
        // A device answers to one address: no guest multiplies a device's endpoints by its slots.
        if taken.contains(&(port.id, generation)) {
            return Err(Code::Parameter);
        }
        let table = registers.get_wide(offset::DCBAAP);
        let at = table.checked_add(8 * u64::from(number)).ok_or(Code::Parameter)?;
        let output = memory.read_u64(at)? & !0x3f;
        let (state, address) =
            if block { (slot_state::DEFAULT, 0) } else { (slot_state::ADDRESSED, number) };
        context.set_state(state, address);
        context.write(memory, output)?;
        default.copy(memory, output, 1)?;
        slot.remove(ports, backend, |_| true);
        let pipe = Pipe { slot: number, index: 1 };
        slot.endpoints.insert(1, Endpoint::new(pipe, &default));
        slot.device = Some((port.id, generation));
        (slot.context, slot.state) = (output, state);
        Ok(())
    }

    /// Carries out Configure Endpoint (4.6.6): all of it or nothing.
    fn configure_endpoint(&mut self, trb: &Trb) -> Outcome {
        let Self { slots, ports, backend, memory, .. } = self;
        let number = trb.slot();
        let slot = Self::enabled(slots, number)?;
        if slot.state < slot_state::ADDRESSED {
            return Err(Code::ContextState);
        }
        let deconfigure = trb.has(trb_bit::DECONFIGURE);
        let input = if deconfigure {
            InputContext { drop: !0, add: SLOT_FLAG, device: 0 }
        } else {
            InputContext::read(memory, trb.parameter() & !0xf)?
        };
        let reserved = if deconfigure { 0 } else { input.drop & (SLOT_FLAG | DEFAULT_FLAG) };
        if input.add & SLOT_FLAG == 0 || input.add & DEFAULT_FLAG != 0 || reserved != 0 {
            return Err(Code::Parameter);
        }
        let mut added = Vec::new();
        for index in (FIRST..CONTEXTS).filter(|index| input.add & 1 << index != 0) {
            let context = EndpointContext::read(memory, input.device, index)?;
            let context = context.ok_or(Code::Parameter)?;
            if context.kind == EndpointType::Isochronous {
                // What a driver expects where the bus cannot carry it: it says so and goes on.
                return Err(Code::Bandwidth);
            }
            if !context.is_sound(index) {
                return Err(Code::Parameter);
            }
            added.push((index, context));
        }
        let goes = |index: u8| index >= FIRST && (input.drop | input.add) & 1 << index != 0;
        slot.remove(ports, backend, goes);
        for index in (FIRST..CONTEXTS).filter(|index| input.drop & 1 << index != 0) {
            EndpointContext::disable(memory, slot.context, index)?;
        }
        for (index, context) in added {
            context.copy(memory, slot.context, index)?;
            let pipe = Pipe { slot: number, index };
            slot.endpoints.insert(index, Endpoint::new(pipe, &context));
        }
        let last = slot.endpoints.keys().next_back().copied().unwrap_or(1);
        slot.state = if last < FIRST { slot_state::ADDRESSED } else { slot_state::CONFIGURED };
        let mut context = SlotContext::read(memory, slot.context)?;
        let entries = if deconfigure {
            1
        } else {
            SlotContext::read(memory, input.device)?.context_entries()
        };
        context.set_context_entries(entries.max(u32::from(last)));
        context.set_state(slot.state, number);
        context.write(memory, slot.context)?;
        Ok(())
    }

    /// Carries out Evaluate Context (4.6.7).
    fn evaluate_context(&mut self, trb: &Trb) -> Outcome {
        let Self { slots, memory, .. } = self;
        let slot = Self::enabled(slots, trb.slot())?;
        if slot.state < slot_state::DEFAULT {
            return Err(Code::ContextState);
        }
        let input = InputContext::read(memory, trb.parameter() & !0xf)?;
        if input.add & SLOT_FLAG != 0 {
            let mut context = SlotContext::read(memory, slot.context)?;
            context.evaluate(&SlotContext::read(memory, input.device)?);
            context.write(memory, slot.context)?;
        }
        if input.add & DEFAULT_FLAG != 0 {
            let context = EndpointContext::read(memory, input.device, 1)?;
            let context = context.filter(|context| context.is_sound(1)).ok_or(Code::Parameter)?;
            EndpointContext::set_packet(memory, slot.context, 1, context.packet)?;
            if let Some(endpoint) = slot.endpoints.get_mut(&1) {
                endpoint.set_packet(context.packet);
            }
        }
        Ok(())
    }

    /// Carries out Reset Endpoint (4.6.8).
    fn reset_endpoint(&mut self, trb: &Trb) -> Outcome {
        let preserve = trb.has(trb_bit::PRESERVE);
        self.with_endpoint(trb, |endpoint, around| endpoint.reset(preserve, around))
    }

    /// Carries out Set TR Dequeue Pointer (4.6.10).
    fn set_dequeue(&mut self, trb: &Trb) -> Outcome {
        // Streams are not offered, so no stream context has a pointer to set.
        if trb.parameter() & 0xe != 0 || trb.stream() != 0 {
            return Err(Code::TrbError);
        }
        let at = Position::from_pointer(trb.parameter());
        self.with_endpoint(trb, |endpoint, around| endpoint.set_dequeue(at, around))
    }

    /// Carries out Reset Device (4.6.11).
    fn reset_device(&mut self, number: u8) -> Outcome {
        let Self { slots, ports, backend, memory, .. } = self;
        let slot = Self::enabled(slots, number)?;
        if slot.state < slot_state::ADDRESSED {
            return Err(Code::ContextState);
        }
        let port = slot.port(ports);
        slot.remove(ports, backend, |index| index >= FIRST);
        if let Some(endpoint) = slot.endpoints.get_mut(&1) {
            endpoint.abandon(port, backend);
        }
        slot.state = slot_state::DEFAULT;
        for index in FIRST..CONTEXTS {
            EndpointContext::disable(memory, slot.context, index)?;
        }
        let mut context = SlotContext::read(memory, slot.context)?;
        context.set_context_entries(1);
        context.set_state(slot_state::DEFAULT, 0);
        context.write(memory, slot.context)?;
        Ok(())
    }

    fn with_endpoint(
        &mut self,
        trb: &Trb,
        act: impl FnOnce(&mut Endpoint, &mut crate::endpoint::Surroundings<'_>) -> Result<Code, Outside>,
    ) -> Outcome {
        Self::enabled(&mut self.slots, trb.slot())?;
        let pipe = Pipe { slot: trb.slot(), index: trb.endpoint() };
        match self.at_endpoint(pipe, act) {
            None => Err(Code::EndpointNotEnabled),
            Some(Ok(Code::Success)) => Ok(()),
            Some(Ok(code)) => Err(code),
            Some(Err(outside)) => Err(outside.into()),
        }
    }

    fn enabled(slots: &mut [Option<Slot>], number: u8) -> Result<&mut Slot, Code> {
        Self::place(slots, number).and_then(Option::as_mut).ok_or(Code::SlotNotEnabled)
    }

    pub(crate) fn place(slots: &mut [Option<Slot>], number: u8) -> Option<&mut Option<Slot>> {
        slots.get_mut(usize::from(number).checked_sub(1)?)
    }

    /// Takes it that the device at `port` is gone: whatever is with it has failed, and whoever asks next is told.
    pub(crate) fn lose_device(&mut self, port: PortId) {
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.is_at(port)) {
            for (index, endpoint) in &mut slot.endpoints {
                slot.ready |= u32::from(endpoint.lose()) << index;
            }
        }
    }
}
