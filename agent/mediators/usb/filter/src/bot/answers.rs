//! What the device answers: allegations, each checked against the phase it is for.

use usbredir::Status;
use usbredir::packet::Bulk;

use super::scsi::Look;
use super::wrapper::{CSW_BYTES, CSW_SIGNATURE, Csw, Outcome};
use super::{Bot, Flying, Phase, Running};
use crate::traffic::Traffic;

/// Empty answers or stalls instead of a CSW, after which the command is lost. BOT 5.3.3 has the host
/// try again once; some sticks send an empty packet after their data besides.
const STATUS_TRIES: u8 = 3;

impl Bot {
    /// Takes it that the device has answered the CBW.
    pub(super) fn sent(&mut self, flying: Flying, bulk: &Bulk, traffic: &mut Traffic<'_>) {
        let Phase::Sending(running) = self.phase else {
            // The guest broke the protocol meanwhile.
            return traffic.answer_bulk(flying.id, self.output, Status::Stall, 0, Vec::new());
        };
        match bulk.status {
            Status::Success if bulk.length == flying.asked => {
                self.phase = if running.length == 0 {
                    Phase::Status(running, 0)
                } else {
                    Phase::DataIn(running, 0)
                };
                let guests = flying.guests;
                traffic.answer_bulk(flying.id, self.output, Status::Success, guests, Vec::new());
            }
            // Half a CBW went, or nobody knows how much.
            Status::Success => {
                traffic.fault();
                self.stall();
                traffic.answer_bulk(flying.id, self.output, Status::IoError, 0, Vec::new());
            }
            other => {
                self.stall();
                traffic.answer_bulk(flying.id, self.output, other, 0, Vec::new());
            }
        }
    }

    /// Takes it that the device has answered a transfer from it, with no more data than it was asked for.
    pub(super) fn received(&mut self, flying: Flying, mut bulk: Bulk, traffic: &mut Traffic<'_>) {
        let moved = u32::try_from(bulk.data.len()).unwrap_or(u32::MAX);
        match self.phase {
            Phase::DataIn(running, at) => {
                if let Some(csw) = self.in_place_of_data(running, at, &bulk) {
                    return self.ended(flying, csw, traffic);
                }
                self.look(running, at, &mut bulk.data);
                let at = at.saturating_add(moved);
                let ends = match bulk.status {
                    Status::Success => moved < flying.asked || at >= running.length,
                    Status::Stall => true,
                    // What is too much is lost (BOT 6.7.2, cases 7 and 8: it may say so in its status). If it goes on, what comes is no status.
                    Status::Babble => {
                        traffic.fault();
                        true
                    }
                    // Cancelled, or lost on the way: the guest may go on with what is left, or reset.
                    _ => at >= running.length,
                };
                self.phase =
                    if ends { Phase::Status(running, 0) } else { Phase::DataIn(running, at) };
                traffic.answer_bulk(flying.id, self.input, bulk.status, moved, bulk.data);
            }
            Phase::Status(running, tries) => self.status(flying, running, tries, bulk, traffic),
            // The guest broke the protocol meanwhile: what comes now belongs to no phase.
            _ => {
                let status =
                    if bulk.status == Status::Cancelled { bulk.status } else { Status::Stall };
                traffic.answer_bulk(flying.id, self.input, status, 0, Vec::new());
            }
        }
    }

    fn status(
        &mut self,
        flying: Flying,
        running: Running,
        tries: u8,
        bulk: Bulk,
        traffic: &mut Traffic<'_>,
    ) {
        match bulk.status {
            Status::Success if !bulk.data.is_empty() => {
                if let Some(csw) = self.due(running, &bulk.data) {
                    return self.ended(flying, csw, traffic);
                }
                traffic.fault();
                self.stall();
                return traffic.answer_bulk(flying.id, self.input, Status::Stall, 0, Vec::new());
            }
            // Not the device's fault if the guest has not taken its halt away.
            Status::Success | Status::Stall => {
                let tries = tries.saturating_add(1);
                if tries < STATUS_TRIES {
                    self.phase = Phase::Status(running, tries);
                } else {
                    self.stall();
                }
            }
            Status::Babble => {
                traffic.fault();
                self.stall();
            }
            // It was cancelled, or did not come: it may still be asked for.
            _ => {}
        }
        let moved = u32::try_from(bulk.data.len()).unwrap_or(u32::MAX);
        traffic.answer_bulk(flying.id, self.input, bulk.status, moved, bulk.data);
    }

    /// Returns the status of a command, if these bytes are one. A signature is learnt from what has the command's own tag.
    fn due(&mut self, running: Running, data: &[u8]) -> Option<Csw> {
        let (signature, csw) = Csw::read(data)?;
        let known = match self.signature {
            Some(known) => signature == known,
            None => csw.tag == running.tag || signature == CSW_SIGNATURE,
        };
        if !known {
            return None;
        }
        self.signature = Some(signature);
        Some(Csw { residue: csw.residue.min(running.length), ..csw })
    }

    /// Returns a status where data were due. Blocks are never of its length, and no command has data that begin with "USBS"; with a
    /// signature that was learnt some might, so that the tag has to be the command's as well.
    fn in_place_of_data(&self, running: Running, at: u32, bulk: &Bulk) -> Option<Csw> {
        let short = u32::try_from(CSW_BYTES).is_ok_and(|bytes| bytes < running.length);
        if at != 0 || !short || bulk.status != Status::Success {
            return None;
        }
        let (signature, csw) = Csw::read(&bulk.data)?;
        let learnt = Some(signature) == self.signature && csw.tag == running.tag;
        let known = signature == CSW_SIGNATURE || learnt;
        known.then(|| Csw { residue: csw.residue.min(running.length), ..csw })
    }

    /// Takes it that a command has ended so.
    fn ended(&mut self, flying: Flying, csw: Csw, traffic: &mut Traffic<'_>) {
        if csw.outcome == Outcome::PhaseError {
            self.stall();
        } else {
            self.phase = Phase::Command;
            traffic.well();
        }
        let bytes = csw.bytes();
        let moved = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        traffic.answer_bulk(flying.id, self.input, Status::Success, moved, bytes);
    }

    /// Looks at, and changes, what of a command's data begins at byte `at`.
    fn look(&mut self, running: Running, at: u32, data: &mut [u8]) {
        /// WP of the device-specific parameter.
        const WRITE_PROTECTED: u8 = 0x80;
        /// PERIPHERAL DEVICE TYPE of CD and DVD drives; bits 7:5 are the qualifier.
        const CD: u8 = 0x05;
        match running.look {
            Look::Away => {}
            Look::Type => {
                if let (0, Some(first), Some(unit)) =
                    (at, data.first(), self.units.get_mut(usize::from(running.lun)))
                {
                    unit.cd = *first == CD;
                }
            }
            Look::Parameter(offset) => {
                let here = offset.checked_sub(at).and_then(|at| usize::try_from(at).ok());
                if let Some(parameter) = here.and_then(|at| data.get_mut(at)) {
                    *parameter |= WRITE_PROTECTED;
                }
            }
        }
    }
}
