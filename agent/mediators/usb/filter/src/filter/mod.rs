//! The filter: routes each packet to what judges it.

mod answers;

use usbredir::packet::{Bulk, Control, EndpointType, Interrupt, MAX_DATA};
use usbredir::{Body, Packet, Status};

use crate::admission::{self, Error, Rules};
use crate::bot::{self, Bot};
use crate::control::{Admitted, CONTROL_BYTES_MAX, Judgement};
use crate::descriptors::{Device, Pinned, Share};
use crate::event::{Change, Counts, Event, Refusal, Violation};
use crate::identity::Identity;
use crate::traffic::{Ledger, Out, Pending, Traffic, kernel_bytes};

/// Transfers that are with the device, or wait, at once: far more than a controller with two or three
/// endpoints in use has, and a bound on what is remembered.
pub const IN_FLIGHT_MAX: usize = 256;
/// Most bytes of transfers that may be with a device at once, as the kernel counts them: whole packets, and what it remembers each by. A driver of storage has one
/// transfer of 128 KiB at a time, or two. The kernel has 16 MiB for all devices of the PC (`usbfs_memory_mb`), so that whoever serves several gives each a part
/// of them: [`Filter::within`].
pub const BYTES_IN_FLIGHT_MAX: usize = 1 << 20;
/// Least of them with which a device works: the largest transfer that there is, and some small ones.
pub const BYTES_IN_FLIGHT_MIN: usize = 192 << 10;
const _: () = assert!(MAX_DATA + 32 * 1024 < BYTES_IN_FLIGHT_MIN);
/// Things against the specification, one after the other, after which a device is taken away. A stick
/// at its end may produce a few, and a guest's resets may mend them.
pub const FAULTS_MAX: u32 = 16;

/// The filter of one device's stream.
#[derive(Debug)]
pub struct Filter {
    rules: Rules,
    /// The guest has a part of the device.
    part: bool,
    identity: Identity,
    /// As the guest may use it: without what is hidden.
    device: Device,
    /// Read-only storage, an interface each.
    bots: Vec<Bot>,
    /// OUT endpoints on which commands are counted and no more.
    counted: Vec<u8>,
    ledger: Ledger,
    /// Bytes of transfers that may be with the device at once.
    budget: usize,
    /// Something was found after which nothing passes.
    closed: bool,
}

impl Filter {
    /// Makes a filter for a device that was admitted with these descriptors, not yet connected.
    ///
    /// Nobody may have spoken to the device since its last reset: whoever exports it resets it first, or
    /// a command that an earlier owner began could take what is sent here for its data.
    ///
    /// # Errors
    /// When the descriptors are malformed, or the rules cannot be kept with such a device; the error
    /// says why in words for the person who plugged it in. It must then not be given to a guest.
    pub fn new(rules: Rules, pinned: Pinned) -> Result<Self, Error> {
        Self::of(rules, pinned, Share::Whole)
    }

    /// Makes a filter for what the guest has of a device. Of a part nobody needs to reset it: it holds no storage, and a reset that the
    /// guest asks for is one of its interfaces alone.
    ///
    /// # Errors
    /// As for a whole one, or storage is in it.
    pub fn of(rules: Rules, pinned: Pinned, share: Share) -> Result<Self, Error> {
        let whole = Device::read(&pinned)?;
        let device = admission::shared(whole.clone(), &share)?;
        let bots = admission::bots(rules, &device)?;
        let counted = admission::counted(rules, &device);
        Ok(Self {
            rules,
            part: !share.is_whole(),
            identity: Identity::new(pinned, whole, share)?,
            device,
            bots,
            counted,
            ledger: Ledger::new(),
            budget: BYTES_IN_FLIGHT_MAX,
            closed: false,
        })
    }

    /// Lets no more bytes of transfers be with the device at once than these, as the kernel counts them.
    #[must_use]
    pub fn within(mut self, budget: usize) -> Self {
        self.budget = budget.min(BYTES_IN_FLIGHT_MAX);
        self
    }

    /// Takes a packet of the guest's end.
    pub fn from_guest(&mut self, packet: Packet, out: &mut Out) {
        if self.closed {
            return;
        }
        let Packet { id, body } = packet;
        match body {
            // Each end of the filter has said its own hello.
            Body::Hello { .. } => {}
            Body::DeviceDisconnectAck => self.ledger.traffic(out).pass(id, body),
            Body::Reset => {
                self.identity.configured(None);
                self.each_bot(out, |bot, traffic| bot.restart(true, traffic));
                self.ledger.traffic(out).pass(id, body);
            }
            Body::CancelDataPacket => self.cancel(id, out),
            Body::StartInterruptReceiving { endpoint }
            | Body::StopInterruptReceiving { endpoint } => {
                if self.has(endpoint | 0x80, EndpointType::Interrupt) && endpoint & 0x80 != 0 {
                    self.ledger.traffic(out).pass(id, body);
                } else {
                    let mut traffic = self.ledger.traffic(out);
                    traffic.refused(Refusal::Endpoint(endpoint));
                    let status = Status::Stall;
                    traffic.answer(id, Body::InterruptReceivingStatus { status, endpoint });
                }
            }
            Body::SetConfiguration(_)
            | Body::GetConfiguration
            | Body::SetAltSetting { .. }
            | Body::GetAltSetting { .. }
            | Body::Control(_)
            | Body::Bulk(_)
            | Body::Interrupt(_) => self.request(id, body, out),
            Body::DeviceConnect(_)
            | Body::DeviceDisconnect
            | Body::InterfaceInfo(_)
            | Body::EndpointInfo(_)
            | Body::ConfigurationStatus { .. }
            | Body::AltSettingStatus { .. }
            | Body::InterruptReceivingStatus { .. } => {
                self.ledger.traffic(out).refused(Refusal::Packet);
            }
        }
    }

    /// Takes the device's descriptors, read again by whoever holds it: after a reset, or when it
    /// was plugged in anew. Different ones are [`Event::Changed`].
    pub fn read_again(&mut self, again: &Pinned, out: &mut Out) {
        if let Some(change) = self.identity.compare(again).filter(|_| !self.closed) {
            self.changed(change, out);
        }
    }

    /// Tells the refusals that were only counted since the last call. For once in a while (a minute
    /// or so), and for the end.
    pub fn flush(&mut self, out: &mut Out) {
        self.ledger.log.flush(&mut out.events);
    }

    /// Returns how much has passed and was refused since the start.
    pub fn counts(&self) -> Counts {
        self.ledger.log.counts()
    }

    /// Returns how many transfers are with the device or wait here; at most [`IN_FLIGHT_MAX`].
    pub fn in_flight(&self) -> usize {
        self.bots
            .iter()
            .fold(self.ledger.pending.len(), |sum, bot| sum.saturating_add(bot.in_flight()))
    }

    /// Returns the bytes of transfers that are with the device, or will be without being asked for again; at most its budget ([`Filter::within`]).
    pub fn bytes_in_flight(&self) -> usize {
        self.bots.iter().fold(self.ledger.bytes(), |sum, bot| sum.saturating_add(bot.bytes()))
    }

    /// Returns what [`Filter::bytes_in_flight`] is once this is taken, at most.
    fn bytes_with(&self, body: &Body) -> usize {
        let asked = with_device(body);
        let bot = match body {
            Body::Bulk(bulk) => self.bots.iter().find(|bot| bot.owns(bulk.endpoint)),
            _ => None,
        };
        // Of one interface of storage one transfer is with the device at a time.
        let more = bot.map_or(asked, |bot| asked.saturating_sub(bot.bytes()));
        self.bytes_in_flight().saturating_add(more)
    }

    /// Returns whether [`Event::Changed`] or [`Event::Violation`] was told: nothing passes any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Calls something of each Bulk-Only interface.
    fn each_bot(&mut self, out: &mut Out, mut call: impl FnMut(&mut Bot, &mut Traffic<'_>)) {
        let mut traffic = self.ledger.traffic(out);
        for bot in &mut self.bots {
            call(bot, &mut traffic);
        }
    }

    /// Goes through the transports of one interface, or of all.
    fn bots_of(
        &mut self,
        interface: Option<u8>,
        out: &mut Out,
        mut call: impl FnMut(&mut Bot, &mut Traffic<'_>),
    ) {
        self.each_bot(out, |bot, traffic| {
            if interface.is_none_or(|interface| bot.interface == interface) {
                call(bot, traffic);
            }
        });
    }

    fn reset_done(&mut self, interface: Option<u8>, done: bool, halts: bool, out: &mut Out) {
        self.bots_of(interface, out, |bot, traffic| bot.reset_done(done, halts, traffic));
    }

    fn admitted(&self) -> Admitted<'_> {
        let read_only = self.rules == Rules::ReadOnly;
        Admitted { device: &self.device, read_only, part: self.part }
    }

    fn has(&self, endpoint: u8, kind: EndpointType) -> bool {
        self.admitted().has_endpoint_of(endpoint, kind as u8)
    }

    fn changed(&mut self, change: Change, out: &mut Out) {
        self.closed = true;
        out.events.push(Event::Changed(change));
    }

    fn violation(&mut self, violation: Violation, out: &mut Out) {
        self.closed = true;
        out.events.push(Event::Violation(violation));
    }

    fn cancel(&mut self, id: u64, out: &mut Out) {
        let mut answered = false;
        self.each_bot(out, |bot, traffic| answered = answered || bot.cancel(id, traffic));
        let with_device = self.bots.iter().any(|bot| bot.has(id))
            || matches!(
                self.ledger.pending.get(&id),
                Some(
                    Pending::Control { .. }
                        | Pending::Bulk { .. }
                        | Pending::Interrupt { .. }
                        | Pending::Abandoned { .. }
                )
            );
        if !answered && with_device {
            self.ledger.traffic(out).pass(id, Body::CancelDataPacket);
        }
    }

    /// Asks the device; whatever it answers with the same ID is the answer.
    fn request(&mut self, id: u64, body: Body, out: &mut Out) {
        if self.ledger.pending.contains_key(&id) || self.bots.iter().any(|bot| bot.has(id)) {
            // An answer could not say which of the two it is for.
            return self.ledger.traffic(out).refused(Refusal::Packet);
        }
        if self.in_flight() >= IN_FLIGHT_MAX || self.bytes_with(&body) > self.budget {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::TooMany);
            return traffic.answer(id, refusal(body, Status::IoError));
        }
        match body {
            Body::SetConfiguration(value) if !self.admitted().configuration(value) => {
                let mut traffic = self.ledger.traffic(out);
                traffic.refused(Refusal::Configuration(value));
                traffic.answer(id, refusal(body, Status::Stall));
            }
            Body::SetConfiguration(_) | Body::GetConfiguration => {
                let set = body != Body::GetConfiguration;
                if set {
                    self.each_bot(out, Bot::resetting);
                }
                self.ledger.pending.insert(id, Pending::Configuration { set });
                self.ledger.traffic(out).pass(id, body);
            }
            Body::SetAltSetting { interface, alternate }
                if !self.admitted().alternate(interface, alternate) =>
            {
                let mut traffic = self.ledger.traffic(out);
                traffic.refused(Refusal::Alternate { interface, alternate });
                traffic.answer(id, refusal(body, Status::Stall));
            }
            Body::SetAltSetting { interface, .. } => {
                self.bots_of(Some(interface), out, Bot::resetting);
                self.ledger.pending.insert(id, Pending::Alternate { interface, set: true });
                self.ledger.traffic(out).pass(id, body);
            }
            Body::GetAltSetting { interface } => {
                if self.device.settings().any(|setting| setting.interface == interface) {
                    self.ledger.pending.insert(id, Pending::Alternate { interface, set: false });
                    self.ledger.traffic(out).pass(id, body);
                } else {
                    self.ledger.traffic(out).answer(id, refusal(body, Status::Stall));
                }
            }
            Body::Control(control) => self.control(id, control, out),
            Body::Bulk(bulk) => self.bulk(id, bulk, out),
            Body::Interrupt(interrupt) => self.interrupt(id, interrupt, out),
            _ => {}
        }
    }

    fn control(&mut self, id: u64, mut control: Control, out: &mut Out) {
        let from_device = control.request_type & 0x80 != 0;
        let carried = if from_device { 0 } else { usize::from(control.length) };
        let endpoint = if from_device { 0x80 } else { 0 };
        if control.endpoint & 0x7f != 0
            || (control.endpoint != endpoint && control.length != 0)
            || control.data.len() != carried
        {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.answer(id, refusal(Body::Control(control), Status::Invalid));
        }
        let too_long = !from_device && control.length > CONTROL_BYTES_MAX;
        let judgement = if too_long { Judgement::Refuse } else { self.admitted().judge(&control) };
        match judgement {
            Judgement::Refuse => {
                let Control { request_type, request, .. } = control;
                let mut traffic = self.ledger.traffic(out);
                traffic.refused(Refusal::Control { request_type, request });
                return traffic.answer(id, refusal(Body::Control(control), Status::Stall));
            }
            Judgement::Configuration => self.each_bot(out, Bot::resetting),
            Judgement::Alternate { interface } | Judgement::BotReset { interface } => {
                self.bots_of(Some(interface), out, Bot::resetting);
            }
            Judgement::Pass
            | Judgement::Descriptor { .. }
            | Judgement::ClearHalt { .. }
            | Judgement::MaxLun { .. } => {}
        }
        control.endpoint = endpoint;
        control.length = control.length.min(CONTROL_BYTES_MAX);
        control.status = Status::Success;
        self.ledger.pending.insert(
            id,
            Pending::Control {
                request_type: control.request_type,
                request: control.request,
                value: control.value,
                index: control.index,
                asked: control.length,
                judgement,
            },
        );
        self.ledger.traffic(out).pass(id, Body::Control(control));
    }

    fn bulk(&mut self, id: u64, bulk: Bulk, out: &mut Out) {
        let length = usize::try_from(bulk.length).unwrap_or(usize::MAX);
        let carried = if bulk.endpoint & 0x80 != 0 { 0 } else { length };
        if bulk.data.len() != carried || length > MAX_DATA || bulk.stream != 0 {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.answer(id, refusal(Body::Bulk(bulk), Status::Invalid));
        }
        let mut traffic = self.ledger.traffic(out);
        if let Some(bot) = self.bots.iter_mut().find(|bot| bot.owns(bulk.endpoint)) {
            return bot.transfer(id, &bulk, &mut traffic);
        }
        if !self.has(bulk.endpoint, EndpointType::Bulk) {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::Endpoint(bulk.endpoint));
            return traffic.answer(id, refusal(Body::Bulk(bulk), Status::Stall));
        }
        if let Some(opcode) = bot::opcode_of(&bulk.data)
            && self.counted.contains(&bulk.endpoint)
        {
            self.ledger.log.command(opcode);
        }
        let (endpoint, asked) = (bulk.endpoint, bulk.length);
        self.ledger.pending.insert(id, Pending::Bulk { endpoint, asked });
        self.ledger.traffic(out).pass(id, Body::Bulk(bulk));
    }

    fn interrupt(&mut self, id: u64, interrupt: Interrupt, out: &mut Out) {
        let endpoint = interrupt.endpoint;
        if interrupt.data.len() != usize::from(interrupt.length) {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.answer(id, refusal(Body::Interrupt(interrupt), Status::Invalid));
        }
        // What comes from the device comes unasked.
        if endpoint & 0x80 != 0 || !self.has(endpoint, EndpointType::Interrupt) {
            let mut traffic = self.ledger.traffic(out);
            traffic.refused(Refusal::Endpoint(endpoint));
            return traffic.answer(id, refusal(Body::Interrupt(interrupt), Status::Stall));
        }
        let asked = u32::from(interrupt.length);
        self.ledger.pending.insert(id, Pending::Interrupt { endpoint, asked });
        self.ledger.traffic(out).pass(id, Body::Interrupt(interrupt));
    }
}

/// Returns the bytes that a transfer takes while it is with the device. One of an interrupt endpoint from the device is none: it comes unasked.
fn with_device(body: &Body) -> usize {
    match body {
        // One that says more than there can be is refused for that.
        Body::Bulk(bulk) => {
            kernel_bytes(bulk.length.min(u32::try_from(MAX_DATA).unwrap_or(u32::MAX)))
        }
        Body::Interrupt(interrupt) => kernel_bytes(interrupt.length.into()),
        _ => 0,
    }
}

/// Returns the answer to a request that does not reach the device.
fn refusal(request: Body, status: Status) -> Body {
    match request {
        Body::SetConfiguration(_) | Body::GetConfiguration => {
            Body::ConfigurationStatus { status, configuration: 0 }
        }
        Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
            Body::AltSettingStatus { status, interface, alternate: 0 }
        }
        Body::Control(control) => {
            Body::Control(Control { status, length: 0, data: Vec::new(), ..control })
        }
        Body::Bulk(bulk) => Body::Bulk(Bulk { status, length: 0, data: Vec::new(), ..bulk }),
        Body::Interrupt(interrupt) => {
            Body::Interrupt(Interrupt { status, length: 0, data: Vec::new(), ..interrupt })
        }
        other => other,
    }
}
