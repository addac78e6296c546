//! Packets of the device's end.

use usbredir::packet::{Bulk, Control, EndpointType, Interrupt};
use usbredir::{Body, Packet, Status};

use super::{FAULTS_MAX, Filter};
use crate::control::Judgement;
use crate::event::{Change, Violation};
use crate::identity::Compared;
use crate::traffic::{Out, Pending};

impl Filter {
    /// Takes a packet of the device's end.
    pub fn from_device(&mut self, packet: Packet, out: &mut Out) {
        if self.closed {
            return;
        }
        let Packet { id, body } = packet;
        match body {
            Body::Hello { .. } => {}
            Body::DeviceConnect(connect) => {
                // What the guest sent to a device that was gone is answered by nobody.
                self.forget(out);
                if self.identity.announced(&connect) {
                    self.ledger.traffic(out).answer(id, body);
                } else {
                    self.changed(Change::Device, out);
                }
            }
            Body::DeviceDisconnect => {
                self.forget(out);
                self.ledger.traffic(out).answer(id, body);
            }
            Body::InterfaceInfo(mut interfaces) => {
                if self.identity.interfaces(&mut interfaces) {
                    self.ledger.traffic(out).answer(id, Body::InterfaceInfo(interfaces));
                } else {
                    self.changed(Change::Interfaces, out);
                }
            }
            Body::EndpointInfo(mut endpoints) => {
                if self.identity.endpoints(&mut endpoints) {
                    self.ledger.traffic(out).answer(id, Body::EndpointInfo(endpoints));
                } else {
                    self.changed(Change::Endpoints, out);
                }
            }
            Body::ConfigurationStatus { status, configuration } => {
                match self.ledger.pending.remove(&id) {
                    Some(Pending::Configuration { set }) => {
                        self.identity
                            .configured((status == Status::Success).then_some(configuration));
                        self.ledger.traffic(out).answer(id, body);
                        if set {
                            self.reset_done(None, status == Status::Success, true, out);
                        }
                    }
                    other => self.wrong(other.is_some(), out),
                }
            }
            Body::AltSettingStatus { status, interface, .. } => {
                match self.ledger.pending.remove(&id) {
                    Some(Pending::Alternate { interface: asked, set }) if asked == interface => {
                        self.ledger.traffic(out).answer(id, body);
                        if set {
                            self.reset_done(Some(interface), status == Status::Success, true, out);
                        }
                    }
                    other => self.wrong(other.is_some(), out),
                }
            }
            Body::InterruptReceivingStatus { endpoint, .. } => {
                if self.has(endpoint, EndpointType::Interrupt) {
                    self.ledger.traffic(out).answer(id, body);
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
        if self.ledger.faults >= FAULTS_MAX && !self.closed {
            self.violation(Violation::TooManyFaults, out);
        }
    }

    /// Forgets the guest's transfers with the device, as the host end does.
    fn forget(&mut self, out: &mut Out) {
        self.identity.configured(None);
        self.each_bot(out, |bot, traffic| bot.restart(false, traffic));
        self.ledger.pending.clear();
        self.ledger.faults = 0;
    }

    /// Judges an answer that does not fit: one to nothing is ignored, for what it answered may have
    /// been cancelled; one of another kind than what was asked is none that a host end gives.
    fn wrong(&mut self, asked: bool, out: &mut Out) {
        if asked {
            self.violation(Violation::WrongAnswer, out);
        } else {
            self.ledger.traffic(out).fault();
        }
    }

    /// Takes it that a transfer ended well. Of read-only storage only a command's end shows that.
    fn well(&mut self, status: Status) {
        if status == Status::Success && self.bots.is_empty() {
            self.ledger.faults = 0;
        }
    }

    fn control_answer(&mut self, id: u64, mut control: Control, out: &mut Out) {
        let Some(pending) = self.ledger.pending.remove(&id) else { return self.wrong(false, out) };
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
                    Compared::Short | Compared::Refused => {
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
        self.ledger.traffic(out).answer(id, Body::Control(control));
        match judgement {
            Judgement::Configuration => {
                let [configuration, _] = value.to_le_bytes();
                self.identity.configured(done.then_some(configuration));
                self.reset_done(None, done, true, out);
            }
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
        match self.ledger.pending.remove(&id) {
            None => self.wrong(false, out),
            Some(Pending::Bulk { endpoint, asked }) if endpoint == bulk.endpoint => {
                if over(&bulk, asked) {
                    return self.wrong(true, out);
                }
                self.well(bulk.status);
                self.ledger.traffic(out).answer(id, Body::Bulk(bulk));
            }
            Some(Pending::Abandoned { endpoint, .. }) if endpoint == bulk.endpoint => {
                self.ledger.traffic(out).answer_bulk(
                    id,
                    endpoint,
                    Status::Cancelled,
                    0,
                    Vec::new(),
                );
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
        let mut traffic = self.ledger.traffic(out);
        bot.answered(id, bulk, &mut traffic)
    }

    fn interrupt_answer(&mut self, id: u64, interrupt: Interrupt, out: &mut Out) {
        let endpoint = interrupt.endpoint;
        if !self.has(endpoint, EndpointType::Interrupt) {
            return self.wrong(false, out);
        }
        if endpoint & 0x80 == 0 {
            match self.ledger.pending.remove(&id) {
                None => return self.wrong(false, out),
                Some(Pending::Interrupt { endpoint: asked, .. })
                    if asked == endpoint && interrupt.data.is_empty() => {}
                Some(_) => return self.wrong(true, out),
            }
        }
        self.well(interrupt.status);
        self.ledger.traffic(out).answer(id, Body::Interrupt(interrupt));
    }
}

/// Returns whether an answer has more data than were asked for, or data where there are none.
fn over(bulk: &Bulk, asked: u32) -> bool {
    let most = if bulk.endpoint & 0x80 != 0 { asked } else { 0 };
    bulk.data.len() > usize::try_from(most).unwrap_or(usize::MAX)
}
