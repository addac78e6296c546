//! Read-only storage: Bulk-Only Transport (BOT 1.0) followed state by state between guest and device.
//!
//! ```text
//!            CBW that passes            sent                   all of it, short, or a stall
//!  Command ------------------> Sending ------> [DataIn] -----------------------------> Status --CSW--> Command
//!     |  \ CBW refused, data for the device                                                 ^
//!     |   `----------------------------> Discard --all of it--> LocalStatus --our CSW-------'
//!     |  \ CBW answered here                                        ^
//!     |   `----------------------------> [LocalData] ---------------'
//!     |  what is no CBW, or comes too early; an answer that is no CSW; a phase error
//!     '--> Stalled --Bulk-Only Mass Storage Reset--> Resetting --done--> Command
//! ```
//! What the device gets on its OUT endpoint are whole CBWs, written anew here, of commands that pass;
//! never anything else. At most one transfer is with the device at a time; transfers of the guest that
//! wait for their phase are kept here, so that what a device answers is never taken for another phase's.
//!
//! Real sticks are not all as the specification has them. What Linux's `usb_stor_Bulk_transport` makes work is followed here too:
//!
//! | the device | what is done |
//! | --- | --- |
//! | says a residue larger than the command's length | it is cut to the length |
//! | signs its status with something else than "USBS" | the first such signature is learnt until a reset; the guest is shown "USBS" |
//! | sends its status in place of the data | it is the status, and not changed as data would be |
//! | puts another tag on its status | it passes with that tag: whether to go on is the guest's driver's to decide |
//! | sends an empty packet, or a stall, before its status | the status may be asked for again, `STATUS_TRIES` times in all |
//! | sends more data than it was asked for | the data end there, and the status comes next |
//!
//! None of that opens the way to the device: it has no part in what is sent there.

mod answers;
mod scsi;
mod sense;
mod wrapper;

use std::collections::VecDeque;

use usbredir::Status;
use usbredir::packet::Bulk;

use self::scsi::{Judgement, Look};
use self::sense::Sense;
use self::wrapper::{CBW_BYTES, CSW_BYTES, Cbw, Csw, Outcome, UNITS};
use crate::event::{CommandRefusal, Refusal};
use crate::traffic::{Traffic, kernel_bytes};

/// Returns the opcode, if this looks like a command: for counting where nothing is followed.
pub(crate) fn opcode_of(data: &[u8]) -> Option<u8> {
    Cbw::read(data).map(|cbw| cbw.opcode())
}

/// Transfers from the device that wait for their phase. Drivers keep one or two; a controller that
/// splits a large transfer may keep a few.
const WAITING_MAX: usize = 32;
/// Most data of a refused command, in bytes, that are taken and dropped rather than stalled: several
/// times what drivers write at once (Linux 1 MiB on USB 3), and a bound on what is done for nothing.
const DISCARD_MAX: u32 = 4 << 20;
/// Sense data are padded to as many bytes as their command can ask for; one byte tells how many.
const PADDED_MAX: usize = 255;

/// A command that the device has.
#[derive(Clone, Copy, Debug)]
struct Running {
    tag: u32,
    length: u32,
    lun: u8,
    look: Look,
}

#[derive(Debug)]
enum Phase {
    Command,
    /// The CBW is with the device.
    Sending(Running),
    /// It sends data; `at` of its `length` have come.
    DataIn(Running, u32),
    /// It is to send its CSW; how often something else came.
    Status(Running, u8),
    /// `left` bytes of the guest's are dropped, then comes the CSW.
    Discard(Csw, u32),
    /// Data of ours, from this byte on, then the CSW. So many bytes the guest still expects.
    LocalData(Csw, Vec<u8>, u32),
    LocalStatus(Csw),
    /// The guest's reset, by control request or configuration, is with the device.
    Resetting,
    /// Only a reset helps (BOT 6.6.1).
    Stalled,
}

/// A transfer from the device that the guest has asked for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: u64,
    length: u32,
}

/// What is with the device.
#[derive(Clone, Copy, Debug)]
struct Flying {
    id: u64,
    /// Whether it is the CBW, else data or status.
    command: bool,
    /// Bytes the device was asked for, or sent.
    asked: u32,
    /// Bytes the guest sent in its last piece of a CBW.
    guests: u32,
}

/// What is known of a logical unit.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    /// Of a command that was refused here, until the next one.
    sense: Option<Sense>,
    /// Whether it has said that it is a CD or DVD drive.
    cd: bool,
}

/// One Bulk-Only interface of a device.
#[derive(Debug)]
pub(crate) struct Bot {
    pub(crate) interface: u8,
    pub(crate) input: u8,
    pub(crate) output: u8,
    /// `wMaxPacketSize` of the OUT endpoint, bytes.
    packet: usize,
    phase: Phase,
    halted_in: bool,
    halted_out: bool,
    /// The first pieces of a CBW; fewer than [`CBW_BYTES`].
    piece: Vec<u8>,
    waiting: VecDeque<Waiting>,
    flying: Option<Flying>,
    units: [Unit; UNITS],
    highest_unit: u8,
    /// How the device signs its statuses, once it has.
    signature: Option<[u8; 4]>,
}

impl Bot {
    pub(crate) fn new(interface: u8, input: u8, output: u8, packet: u16) -> Self {
        Self {
            interface,
            input,
            output,
            packet: packet.into(),
            phase: Phase::Command,
            halted_in: false,
            halted_out: false,
            piece: Vec::new(),
            waiting: VecDeque::new(),
            flying: None,
            units: [Unit::default(); UNITS],
            highest_unit: 0,
            signature: None,
        }
    }

    /// Returns whether this is a transfer of one of its endpoints.
    pub(crate) fn owns(&self, endpoint: u8) -> bool {
        endpoint == self.input || endpoint == self.output
    }

    /// Returns whether an ID is in use here.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.flying.is_some_and(|flying| flying.id == id)
            || self.waiting.iter().any(|waiting| waiting.id == id)
    }

    /// Returns how many of the guest's transfers have no answer yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len().saturating_add(usize::from(self.flying.is_some()))
    }

    /// Returns the bytes that the kernel keeps for the transfer that is with the device, or for the largest that waits here, which goes to the device when its
    /// turn comes. One is there at a time.
    pub(crate) fn bytes(&self) -> usize {
        let waiting = self.waiting.iter().map(|waiting| waiting.length);
        let flying = self.flying.map(|flying| flying.asked);
        waiting.chain(flying).max().map_or(0, kernel_bytes)
    }

    /// Returns the endpoint of the transfer with this ID that is with the device, and the bytes it is for.
    pub(crate) fn awaited(&self, id: u64) -> Option<(u8, u32)> {
        let flying = self.flying.filter(|flying| flying.id == id)?;
        Some((if flying.command { self.output } else { self.input }, flying.asked))
    }

    /// Takes a bulk transfer of the guest's.
    pub(crate) fn transfer(&mut self, id: u64, bulk: &Bulk, traffic: &mut Traffic<'_>) {
        if bulk.endpoint == self.output {
            self.take(id, &bulk.data, traffic);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { id, length: bulk.length });
        } else {
            traffic.refused(Refusal::TooMany);
            traffic.answer_bulk(id, self.input, Status::IoError, 0, Vec::new());
        }
        self.serve(traffic);
    }

    /// Takes an answer of the device's, if it is to what is with it; else it is given back.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        bulk: Bulk,
        traffic: &mut Traffic<'_>,
    ) -> Option<Bulk> {
        let Some(flying) = self.flying.take_if(|flying| flying.id == id) else {
            return Some(bulk);
        };
        if flying.command {
            self.sent(flying, &bulk, traffic);
        } else {
            self.received(flying, bulk, traffic);
        }
        self.serve(traffic);
        None
    }

    /// Takes back a transfer of the guest's that waits here; returns whether it was one of these. What
    /// is with the device is for the device to cancel, and its answer is awaited.
    pub(crate) fn cancel(&mut self, id: u64, traffic: &mut Traffic<'_>) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return false;
        };
        self.waiting.remove(at);
        traffic.answer_bulk(id, self.input, Status::Cancelled, 0, Vec::new());
        true
    }

    /// Begins a reset of the guest's that the device will answer. What is with the device is taken
    /// back: a transfer that stayed would take the next command's data.
    pub(crate) fn resetting(&mut self, traffic: &mut Traffic<'_>) {
        self.forget(traffic, true);
        self.phase = Phase::Resetting;
    }

    /// Ends a reset, as the device has answered it. With `halts`, the device's halts are gone as well:
    /// a configuration or setting was chosen (USB 2.0 section 9.4.5). Bulk-Only reset leaves them (BOT
    /// 3.1).
    pub(crate) fn reset_done(&mut self, done: bool, halts: bool, traffic: &mut Traffic<'_>) {
        if matches!(self.phase, Phase::Resetting) {
            self.phase = if done { Phase::Command } else { Phase::Stalled };
            if done && halts {
                (self.halted_in, self.halted_out) = (false, false);
            }
        }
        self.serve(traffic);
    }

    /// Starts anew, as the device is about to be reset, or is gone (`cancel`: it is not): all is as after power-on.
    pub(crate) fn restart(&mut self, cancel: bool, traffic: &mut Traffic<'_>) {
        self.forget(traffic, cancel);
        self.phase = Phase::Command;
        (self.halted_in, self.halted_out) = (false, false);
        self.signature = None;
    }

    /// Takes it that the device has taken a CLEAR_FEATURE(ENDPOINT_HALT).
    pub(crate) fn halt_cleared(&mut self, endpoint: u8, traffic: &mut Traffic<'_>) {
        if endpoint == self.input {
            self.halted_in = false;
        } else if endpoint == self.output {
            self.halted_out = false;
        }
        self.serve(traffic);
    }

    /// Returns what the device answered to GET MAX LUN. Whether it can be.
    pub(crate) fn max_lun(&mut self, answer: &[u8]) -> bool {
        match answer {
            [highest] if usize::from(*highest) < UNITS => {
                self.highest_unit = *highest;
                true
            }
            _ => false,
        }
    }

    /// Gives the guest's transfers back and gives up the one that is with the device.
    fn forget(&mut self, traffic: &mut Traffic<'_>, cancel: bool) {
        for waiting in self.waiting.drain(..) {
            traffic.answer_bulk(waiting.id, self.input, Status::Cancelled, 0, Vec::new());
        }
        if let Some(flying) = self.flying.take() {
            let endpoint = if flying.command { self.output } else { self.input };
            traffic.abandon(flying.id, endpoint, flying.asked, cancel);
        }
        self.piece.clear();
        for unit in &mut self.units {
            unit.sense = None;
        }
    }

    /// Takes data from the guest on the OUT endpoint.
    fn take(&mut self, id: u64, data: &[u8], traffic: &mut Traffic<'_>) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if self.halted_out {
            return traffic.answer_bulk(id, self.output, Status::Stall, 0, Vec::new());
        }
        match &mut self.phase {
            Phase::Command => self.take_command(id, data, length, traffic),
            Phase::Discard(csw, left) if length <= *left => {
                *left -= length;
                if *left == 0 {
                    self.phase = Phase::LocalStatus(*csw);
                }
                traffic.answer_bulk(id, self.output, Status::Success, length, Vec::new());
            }
            // A guest that goes on regardless learns it again; it changes nothing.
            Phase::Resetting | Phase::Stalled => {
                traffic.answer_bulk(id, self.output, Status::Stall, 0, Vec::new());
            }
            _ => self.out_of_protocol(id, traffic),
        }
    }

    fn take_command(&mut self, id: u64, data: &[u8], length: u32, traffic: &mut Traffic<'_>) {
        let whole = self.piece.len().saturating_add(data.len());
        // A transfer of whole packets has not ended yet; one that ends in a short packet, or is none,
        // has (USB 2.0 section 5.8.3).
        let goes_on = self.packet > 0 && !data.is_empty() && data.len().is_multiple_of(self.packet);
        if whole < CBW_BYTES && goes_on {
            self.piece.extend_from_slice(data);
            return traffic.answer_bulk(id, self.output, Status::Success, length, Vec::new());
        }
        let mut bytes = std::mem::take(&mut self.piece);
        if whole == CBW_BYTES {
            bytes.extend_from_slice(data);
        }
        match Cbw::read(&bytes) {
            Some(cbw) => self.command(id, length, &cbw, traffic),
            None => self.out_of_protocol(id, traffic),
        }
    }

    fn out_of_protocol(&mut self, id: u64, traffic: &mut Traffic<'_>) {
        traffic.refused(Refusal::Protocol(self.output));
        traffic.answer_bulk(id, self.output, Status::Stall, 0, Vec::new());
        self.stall();
    }

    /// Has both endpoints stall from now on, until a reset and then their halts are cleared (BOT 6.6.1).
    fn stall(&mut self) {
        self.phase = Phase::Stalled;
        (self.halted_in, self.halted_out) = (true, true);
        self.piece.clear();
    }

    fn command(&mut self, id: u64, guests: u32, cbw: &Cbw, traffic: &mut Traffic<'_>) {
        traffic.command(cbw.opcode());
        let existing = cbw.lun <= self.highest_unit;
        let unit = self.units.get_mut(usize::from(cbw.lun)).filter(|_| existing);
        let (judgement, held) = match unit {
            None => (Judgement::Refuse(CommandRefusal::Unit), None),
            Some(unit) => {
                let judgement = scsi::judge(cbw, unit.cd);
                // These leave sense data as they are (SAM-5, sense data).
                let keeps =
                    matches!(cbw.opcode(), scsi::opcode::INQUIRY | scsi::opcode::REPORT_LUNS);
                let held = if keeps { None } else { unit.sense.take() };
                (judgement, held)
            }
        };
        match (judgement, held) {
            (Judgement::Pass(look), _) => self.pass(id, guests, cbw, look, traffic),
            (Judgement::Sense { .. }, None) => self.pass(id, guests, cbw, Look::Away, traffic),
            (Judgement::Sense { most, descriptor }, Some(sense)) => {
                let mut data = sense.data(descriptor);
                let most = most.min(cbw.length);
                data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                let meant = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let csw = Csw {
                    tag: cbw.tag,
                    residue: cbw.length.saturating_sub(meant),
                    outcome: Outcome::Passed,
                };
                // BOT 6.7, case 5 (Hi > Di): padded to what the host expects, or cut short by a stall.
                let padded = usize::try_from(cbw.length).unwrap_or(usize::MAX).min(PADDED_MAX);
                data.resize(padded.max(data.len()), 0);
                self.phase = if cbw.length == 0 {
                    Phase::LocalStatus(csw)
                } else {
                    Phase::LocalData(csw, data, cbw.length)
                };
                traffic.answer_bulk(id, self.output, Status::Success, guests, Vec::new());
            }
            (Judgement::Good, _) => {
                let csw = Csw { tag: cbw.tag, residue: 0, outcome: Outcome::Passed };
                self.phase = Phase::LocalStatus(csw);
                traffic.answer_bulk(id, self.output, Status::Success, guests, Vec::new());
            }
            (Judgement::Refuse(why), _) => self.refuse(id, guests, cbw, why, traffic),
        }
    }

    /// Refuses a command, which the device has not seen. BOT 6.7, with Dn for the device: case 1 (no
    /// data) has its status at once; case 4 (Hi > Dn) stalls the IN endpoint; case 9 (Ho > Dn) takes
    /// the data and drops them, or stalls the OUT endpoint. Nothing was processed: the residue is all
    /// of it.
    fn refuse(
        &mut self,
        id: u64,
        guests: u32,
        cbw: &Cbw,
        why: CommandRefusal,
        traffic: &mut Traffic<'_>,
    ) {
        traffic.refused(Refusal::Command { opcode: cbw.opcode(), why });
        if let Some(unit) = self.units.get_mut(usize::from(cbw.lun)) {
            unit.sense = Some(why.into());
        }
        let csw = Csw { tag: cbw.tag, residue: cbw.length, outcome: Outcome::Failed };
        self.phase = match (cbw.length, cbw.from_device) {
            (0, _) => Phase::LocalStatus(csw),
            (_, true) => {
                self.halted_in = true;
                Phase::LocalStatus(csw)
            }
            (length, false) if length <= DISCARD_MAX => Phase::Discard(csw, length),
            (_, false) => {
                self.halted_out = true;
                Phase::LocalStatus(csw)
            }
        };
        traffic.answer_bulk(id, self.output, Status::Success, guests, Vec::new());
    }

    fn pass(&mut self, id: u64, guests: u32, cbw: &Cbw, look: Look, traffic: &mut Traffic<'_>) {
        self.phase =
            Phase::Sending(Running { tag: cbw.tag, length: cbw.length, lun: cbw.lun, look });
        let bytes = cbw.bytes();
        let asked = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.flying = Some(Flying { id, command: true, asked, guests });
        traffic.forward_bulk(id, self.output, asked, bytes);
    }

    /// Gives the guest's waiting transfers what their phase has for them. Ends: each turn takes one
    /// away, or is the last.
    fn serve(&mut self, traffic: &mut Traffic<'_>) {
        while let (None, Some(&Waiting { id, length })) = (self.flying, self.waiting.front()) {
            let most = usize::try_from(length).unwrap_or(usize::MAX);
            let input = self.input;
            if self.halted_in {
                self.waiting.pop_front();
                traffic.answer_bulk(id, input, Status::Stall, 0, Vec::new());
                continue;
            }
            match &mut self.phase {
                // The device would have nothing to say either.
                Phase::Command | Phase::Sending(_) | Phase::Discard(..) | Phase::Resetting => break,
                Phase::Stalled => {
                    traffic.answer_bulk(id, input, Status::Stall, 0, Vec::new());
                }
                Phase::DataIn(..) | Phase::LocalData(..) if length == 0 => {
                    traffic.answer_bulk(id, input, Status::Success, 0, Vec::new());
                }
                Phase::DataIn(running, at) => {
                    // A device that sends less than it was asked for, in whole packets, would go on
                    // with its CSW in the same transfer if that were longer than the data.
                    let asked = length.min(running.length.saturating_sub(*at));
                    self.flying = Some(Flying { id, command: false, asked, guests: 0 });
                    traffic.forward_bulk(id, input, asked, Vec::new());
                }
                Phase::LocalData(csw, data, left) => {
                    let rest = data.split_off(most.min(data.len()));
                    let now = std::mem::replace(data, rest);
                    let moved = u32::try_from(now.len()).unwrap_or(u32::MAX);
                    *left = left.saturating_sub(moved);
                    if data.is_empty() {
                        // Less than was expected, which a stall says (BOT 6.7.2).
                        self.halted_in = *left > 0;
                        self.phase = Phase::LocalStatus(*csw);
                    }
                    traffic.answer_bulk(id, input, Status::Success, moved, now);
                }
                Phase::Status(..) | Phase::LocalStatus(_) if most < CSW_BYTES => {
                    traffic.refused(Refusal::Protocol(input));
                    traffic.answer_bulk(id, input, Status::Babble, 0, Vec::new());
                    self.stall();
                }
                Phase::Status(..) => {
                    let asked = u32::try_from(CSW_BYTES).unwrap_or(u32::MAX);
                    self.flying = Some(Flying { id, command: false, asked, guests: 0 });
                    traffic.forward_bulk(id, input, asked, Vec::new());
                }
                Phase::LocalStatus(csw) => {
                    let bytes = csw.bytes();
                    self.phase = Phase::Command;
                    let moved = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    traffic.answer_bulk(id, input, Status::Success, moved, bytes);
                }
            }
            self.waiting.pop_front();
        }
    }
}
