//! The filter: routes each packet to what judges it.

use std::collections::BTreeMap;

use usbredir::packet::{Bulk, Control, EndpointType, Interrupt, MAX_DATA};
use usbredir::{Body, Packet, Status};

use crate::admission::{self, Error};
use crate::bot::{self, Bot};
use crate::control::{Admitted, CONTROL_BYTES_MAX, Judgement};
use crate::descriptors::{Device, Pinned};
use crate::event::{Change, Counts, Event, Log, Refusal, Violation};
use crate::identity::{Compared, Identity};
use crate::traffic::{Out, Pending, Traffic};

/// Transfers that are with the device, or wait, at once: far more than a controller with two or three
/// endpoints in use has, and a bound on what is remembered.
pub const IN_FLIGHT_MAX: usize = 256;
/// Things against the specification, one after the other, after which a device is taken away. A stick
/// at its end may produce a few, and a guest's resets may mend them.
pub const FAULTS_MAX: u32 = 16;

/// The verdict on a device, as far as it concerns its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rules {
    /// It may be used.
    Allow,
    /// Storage that may be read. Functions beside the storage may be used.
    ReadOnly,
}

/// The filter of one device's stream.
#[derive(Debug)]
pub struct Filter {
    rules: Rules,
    identity: Identity,
    /// As the guest may use it: without what is hidden.
    device: Device,
    /// Read-only storage, an interface each.
    bots: Vec<Bot>,
    /// OUT endpoints on which commands are counted and no more.
    counted: Vec<u8>,
    pending: BTreeMap<u64, Pending>,
    log: Log,
    faults: u32,
    /// Something was found after which nothing passes.
    closed: bool,
}

impl Filter {
    /// A filter for a device that was admitted with these descriptors, not yet connected.
    ///
    /// # Errors
    /// When the descriptors are malformed, or the rules cannot be kept with such a device; the error
    /// says why in words for the person who plugged it in. It must then not be given to a guest.
    pub fn new(rules: Rules, pinned: Pinned) -> Result<Self, Error> {
        let whole = Device::read(&pinned)?;
        let device = admission::without_uas(whole.clone())?;
        let bots = admission::bots(rules, &device)?;
        let counted = admission::counted(rules, &device);
        Ok(Self {
            rules,
            identity: Identity::new(pinned, whole)?,
            device,
            bots,
            counted,
            pending: BTreeMap::new(),
            log: Log::new(),
            faults: 0,
            closed: false,
        })
    }

    /// A packet of the guest's end.
    pub fn from_guest(&mut self, packet: Packet, out: &mut Out) {
        if self.closed {
            return;
        }
        let Packet { id, body } = packet;
        match body {
            // Each end of the filter has said its own hello.
            Body::Hello { .. } => {}
            Body::DeviceDisconnectAck => self.traffic(out).to_device(id, body),
            Body::Reset => {
                self.each_bot(out, Bot::restart);
                self.traffic(out).to_device(id, body);
            }
            Body::CancelDataPacket => self.cancel(id, out),
            Body::StartInterruptReceiving { endpoint }
            | Body::StopInterruptReceiving { endpoint } => {
                if self.has(endpoint | 0x80, EndpointType::Interrupt) && endpoint & 0x80 != 0 {
                    self.traffic(out).to_device(id, body);
                } else {
                    let mut traffic = self.traffic(out);
                    traffic.refused(Refusal::Endpoint(endpoint));
                    let status = Status::Stall;
                    traffic.to_guest(id, Body::InterruptReceivingStatus { status, endpoint });
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
                self.traffic(out).refused(Refusal::Packet);
            }
        }
    }

    /// A packet of the device's end.
    pub fn from_device(&mut self, packet: Packet, out: &mut Out) {
        if self.closed {
            return;
        }
        let Packet { id, body } = packet;
        match body {
            Body::Hello { .. } => {}
            Body::DeviceConnect(connect) => {
                if self.identity.announced(&connect) {
                    self.traffic(out).to_guest(id, body);
                } else {
                    self.changed(Change::Device, out);
                }
            }
            Body::DeviceDisconnect => {
                // The guest forgets its transfers with the device.
                self.each_bot(out, Bot::restart);
                self.pending.clear();
                self.traffic(out).to_guest(id, body);
            }
            Body::InterfaceInfo(mut interfaces) => {
                if self.identity.interfaces(&mut interfaces) {
                    self.traffic(out).to_guest(id, Body::InterfaceInfo(interfaces));
                } else {
                    self.changed(Change::Interfaces, out);
                }
            }
            Body::EndpointInfo(mut endpoints) => {
                if self.identity.endpoints(&mut endpoints) {
                    self.traffic(out).to_guest(id, Body::EndpointInfo(endpoints));
                } else {
                    self.changed(Change::Endpoints, out);
                }
            }
            Body::ConfigurationStatus { status, .. } => match self.pending.remove(&id) {
                Some(Pending::Configuration { set }) => {
                    self.traffic(out).to_guest(id, body);
                    if set {
                        self.reset_done(None, status == Status::Success, true, out);
                    }
                }
                other => self.wrong(other.is_some(), out),
            },
            Body::AltSettingStatus { status, interface, .. } => match self.pending.remove(&id) {
                Some(Pending::Alternate { interface: asked, set }) if asked == interface => {
                    self.traffic(out).to_guest(id, body);
                    if set {
                        self.reset_done(Some(interface), status == Status::Success, true, out);
                    }
                }
                other => self.wrong(other.is_some(), out),
            },
            Body::InterruptReceivingStatus { endpoint, .. } => {
                if self.has(endpoint, EndpointType::Interrupt) {
                    self.traffic(out).to_guest(id, body);
                } else {
                    self.wrong(false, out);
                }
            }
            Body::Control(control) => self.control_answer(id, control, out),
            Body::Bulk(bulk) => self.bulk_answer(id, bulk, out),
            Body::Interrupt(interrupt) => self.interrupt_answer(id, interrupt, out),
            Body::DeviceDisconnectAck
            | Body::Reset
            | Body::SetConfiguration(_)
            | Body::GetConfiguration
            | Body::SetAltSetting { .. }
            | Body::GetAltSetting { .. }
            | Body::StartInterruptReceiving { .. }
            | Body::StopInterruptReceiving { .. }
            | Body::CancelDataPacket => self.wrong(false, out),
        }
        if self.faults >= FAULTS_MAX && !self.closed {
            self.violation(Violation::TooManyFaults, out);
        }
    }

    /// The device's descriptors were read again, by whoever holds it: after a reset, or when it was
    /// plugged in anew. Different ones are [`Event::Changed`].
    pub fn read_again(&mut self, again: &Pinned, out: &mut Out) {
        if let Some(change) = self.identity.compare(again).filter(|_| !self.closed) {
            self.changed(change, out);
        }
    }

    /// Tells the refusals that were only counted since the last call. For once in a while (a minute
    /// or so), and for the end.
    pub fn flush(&mut self, out: &mut Out) {
        self.log.flush(&mut out.events);
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.log.counts()
    }

    /// Transfers that are with the device or wait here; at most [`IN_FLIGHT_MAX`].
    pub fn in_flight(&self) -> usize {
        self.bots.iter().fold(self.pending.len(), |sum, bot| sum.saturating_add(bot.in_flight()))
    }

    /// Whether [`Event::Changed`] or [`Event::Violation`] was told: nothing passes any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn traffic<'a>(&'a mut self, out: &'a mut Out) -> Traffic<'a> {
        Traffic { out, log: &mut self.log, pending: &mut self.pending, faults: &mut self.faults }
    }

    /// Calls something of each Bulk-Only interface.
    fn each_bot(&mut self, out: &mut Out, mut call: impl FnMut(&mut Bot, &mut Traffic<'_>)) {
        let mut traffic = Traffic {
            out,
            log: &mut self.log,
            pending: &mut self.pending,
            faults: &mut self.faults,
        };
        for bot in &mut self.bots {
            call(bot, &mut traffic);
        }
    }

    /// Of one interface, or of all.
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
        Admitted { device: &self.device, read_only: self.rules == Rules::ReadOnly }
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

    /// An answer to nothing is ignored, for what it answered may have been cancelled; one of another
    /// kind than what was asked is none that a host end gives.
    fn wrong(&mut self, asked: bool, out: &mut Out) {
        if asked {
            self.violation(Violation::WrongAnswer, out);
        } else {
            self.traffic(out).fault();
        }
    }

    fn cancel(&mut self, id: u64, out: &mut Out) {
        let mut answered = false;
        self.each_bot(out, |bot, traffic| answered = answered || bot.cancel(id, traffic));
        let with_device = self.bots.iter().any(|bot| bot.has(id))
            || matches!(
                self.pending.get(&id),
                Some(Pending::Control { .. } | Pending::Bulk { .. } | Pending::Interrupt { .. })
            );
        if !answered && with_device {
            self.traffic(out).to_device(id, Body::CancelDataPacket);
        }
    }

    /// Whatever the device answers with the same ID.
    fn request(&mut self, id: u64, body: Body, out: &mut Out) {
        if self.pending.contains_key(&id) || self.bots.iter().any(|bot| bot.has(id)) {
            // An answer could not say which of the two it is for.
            return self.traffic(out).refused(Refusal::Packet);
        }
        if self.in_flight() >= IN_FLIGHT_MAX {
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::TooMany);
            return traffic.to_guest(id, refusal(body, Status::IoError));
        }
        match body {
            Body::SetConfiguration(value) if !self.admitted().configuration(value) => {
                let mut traffic = self.traffic(out);
                traffic.refused(Refusal::Configuration(value));
                traffic.to_guest(id, refusal(body, Status::Stall));
            }
            Body::SetConfiguration(_) | Body::GetConfiguration => {
                let set = body != Body::GetConfiguration;
                if set {
                    self.each_bot(out, Bot::resetting);
                }
                self.pending.insert(id, Pending::Configuration { set });
                self.traffic(out).to_device(id, body);
            }
            Body::SetAltSetting { interface, alternate }
                if !self.admitted().alternate(interface, alternate) =>
            {
                let mut traffic = self.traffic(out);
                traffic.refused(Refusal::Alternate { interface, alternate });
                traffic.to_guest(id, refusal(body, Status::Stall));
            }
            Body::SetAltSetting { interface, .. } => {
                self.bots_of(Some(interface), out, Bot::resetting);
                self.pending.insert(id, Pending::Alternate { interface, set: true });
                self.traffic(out).to_device(id, body);
            }
            Body::GetAltSetting { interface } => {
                if self.device.settings().any(|setting| setting.interface == interface) {
                    self.pending.insert(id, Pending::Alternate { interface, set: false });
                    self.traffic(out).to_device(id, body);
                } else {
                    self.traffic(out).to_guest(id, refusal(body, Status::Stall));
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
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.to_guest(id, refusal(Body::Control(control), Status::Invalid));
        }
        let too_long = !from_device && control.length > CONTROL_BYTES_MAX;
        let judgement = if too_long { Judgement::Refuse } else { self.admitted().judge(&control) };
        match judgement {
            Judgement::Refuse => {
                let Control { request_type, request, .. } = control;
                let mut traffic = self.traffic(out);
                traffic.refused(Refusal::Control { request_type, request });
                return traffic.to_guest(id, refusal(Body::Control(control), Status::Stall));
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
        control.length = control.length.min(CONTROL_BYTES_MAX);
        control.status = Status::Success;
        self.pending.insert(
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
        self.traffic(out).to_device(id, Body::Control(control));
    }

    fn bulk(&mut self, id: u64, bulk: Bulk, out: &mut Out) {
        let length = usize::try_from(bulk.length).unwrap_or(usize::MAX);
        let carried = if bulk.endpoint & 0x80 != 0 { 0 } else { length };
        if bulk.data.len() != carried || length > MAX_DATA || bulk.stream != 0 {
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.to_guest(id, refusal(Body::Bulk(bulk), Status::Invalid));
        }
        let mut traffic = Traffic {
            out,
            log: &mut self.log,
            pending: &mut self.pending,
            faults: &mut self.faults,
        };
        if let Some(bot) = self.bots.iter_mut().find(|bot| bot.owns(bulk.endpoint)) {
            return bot.from_guest(id, &bulk, &mut traffic);
        }
        if !self.has(bulk.endpoint, EndpointType::Bulk) {
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::Endpoint(bulk.endpoint));
            return traffic.to_guest(id, refusal(Body::Bulk(bulk), Status::Stall));
        }
        if let Some(opcode) = bot::opcode_of(&bulk.data) {
            if self.counted.contains(&bulk.endpoint) {
                self.log.command(opcode);
            }
        }
        let (endpoint, asked) = (bulk.endpoint, bulk.length);
        self.pending.insert(id, Pending::Bulk { endpoint, asked });
        self.traffic(out).to_device(id, Body::Bulk(bulk));
    }

    fn interrupt(&mut self, id: u64, interrupt: Interrupt, out: &mut Out) {
        let endpoint = interrupt.endpoint;
        if interrupt.data.len() != usize::from(interrupt.length) {
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::Packet);
            return traffic.to_guest(id, refusal(Body::Interrupt(interrupt), Status::Invalid));
        }
        // What comes from the device comes unasked.
        if endpoint & 0x80 != 0 || !self.has(endpoint, EndpointType::Interrupt) {
            let mut traffic = self.traffic(out);
            traffic.refused(Refusal::Endpoint(endpoint));
            return traffic.to_guest(id, refusal(Body::Interrupt(interrupt), Status::Stall));
        }
        self.pending.insert(id, Pending::Interrupt { endpoint });
        self.traffic(out).to_device(id, Body::Interrupt(interrupt));
    }

    fn control_answer(&mut self, id: u64, mut control: Control, out: &mut Out) {
        let Some(pending) = self.pending.remove(&id) else { return self.wrong(false, out) };
        let Pending::Control { request_type, request, value, index, asked, judgement } = pending
        else {
            return self.wrong(true, out);
        };
        let same = (control.request_type, control.request, control.value, control.index)
            == (request_type, request, value, index);
        let most = if request_type & 0x80 != 0 { usize::from(asked) } else { 0 };
        if !same || control.data.len() > most {
            return self.wrong(true, out);
        }
        let done = control.status == Status::Success;
        match judgement {
            Judgement::Descriptor { kind, index, target } if done => {
                let compared =
                    self.identity.descriptor((kind, index, target), asked, &control.data);
                match compared {
                    Compared::Same(None) => {}
                    Compared::Same(Some(shown)) => {
                        control.length = u16::try_from(shown.len()).unwrap_or(asked);
                        control.data = shown;
                    }
                    Compared::Short => {
                        (control.status, control.length) = (Status::IoError, 0);
                        control.data.clear();
                    }
                    Compared::Changed(change) => return self.changed(change, out),
                }
            }
            // Part of a descriptor is not to pass by way of an error.
            Judgement::Descriptor { .. } => {
                control.length = 0;
                control.data.clear();
            }
            Judgement::MaxLun { interface } if done => {
                let mut known = true;
                self.bots_of(Some(interface), out, |bot, _| known &= bot.max_lun(&control.data));
                if !known {
                    // As a device with one unit may (BOT 3.2).
                    (control.status, control.length) = (Status::Stall, 0);
                    control.data.clear();
                }
            }
            _ => {}
        }
        self.traffic(out).to_guest(id, Body::Control(control));
        match judgement {
            Judgement::Configuration => self.reset_done(None, done, true, out),
            Judgement::Alternate { interface } => {
                self.reset_done(Some(interface), done, true, out);
            }
            Judgement::BotReset { interface } => {
                self.reset_done(Some(interface), done, false, out);
            }
            Judgement::ClearHalt { endpoint } if done => {
                self.each_bot(out, |bot, traffic| bot.halt_cleared(endpoint, traffic));
            }
            _ => {}
        }
    }

    fn bulk_answer(&mut self, id: u64, bulk: Bulk, out: &mut Out) {
        let Some(bulk) = self.bot_answer(id, bulk, out) else { return };
        match self.pending.remove(&id) {
            None => self.wrong(false, out),
            Some(Pending::Bulk { endpoint, asked }) if endpoint == bulk.endpoint => {
                if over(&bulk, asked) {
                    return self.wrong(true, out);
                }
                self.traffic(out).to_guest(id, Body::Bulk(bulk));
            }
            Some(Pending::Abandoned { endpoint }) if endpoint == bulk.endpoint => {
                self.traffic(out).answer_bulk(id, endpoint, Status::Cancelled, 0, Vec::new());
            }
            Some(_) => self.wrong(true, out),
        }
    }

    /// Gives an answer to the Bulk-Only interface that awaits it, or back.
    fn bot_answer(&mut self, id: u64, bulk: Bulk, out: &mut Out) -> Option<Bulk> {
        let mut awaited = self.bots.iter_mut().filter_map(|bot| Some((bot.awaited(id)?, bot)));
        let Some(((endpoint, asked), bot)) = awaited.next() else { return Some(bulk) };
        if endpoint != bulk.endpoint || over(&bulk, asked) {
            self.wrong(true, out);
            return None;
        }
        let mut traffic = Traffic {
            out,
            log: &mut self.log,
            pending: &mut self.pending,
            faults: &mut self.faults,
        };
        bot.from_device(id, bulk, &mut traffic)
    }

    fn interrupt_answer(&mut self, id: u64, interrupt: Interrupt, out: &mut Out) {
        let endpoint = interrupt.endpoint;
        if !self.has(endpoint, EndpointType::Interrupt) {
            return self.wrong(false, out);
        }
        if endpoint & 0x80 == 0 {
            match self.pending.remove(&id) {
                None => return self.wrong(false, out),
                Some(Pending::Interrupt { endpoint: asked })
                    if asked == endpoint && interrupt.data.is_empty() => {}
                Some(_) => return self.wrong(true, out),
            }
        }
        self.traffic(out).to_guest(id, Body::Interrupt(interrupt));
    }
}

/// Whether an answer has more data than were asked for, or data where there are none.
fn over(bulk: &Bulk, asked: u32) -> bool {
    let most = if bulk.endpoint & 0x80 != 0 { asked } else { 0 };
    bulk.data.len() > usize::try_from(most).unwrap_or(usize::MAX)
}

/// The answer to a request that does not reach the device.
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
