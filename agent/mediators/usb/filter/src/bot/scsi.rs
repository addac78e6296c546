//! Which SCSI commands reach read-only storage (SPC-4, SBC-4, MMC-6).
//!
//! | commands | done with them |
//! | --- | --- |
//! | TEST UNIT READY, REQUEST SENSE, INQUIRY, REPORT LUNS | pass |
//! | READ (6, 10, 12, 16), READ CAPACITY (10, 16), READ FORMAT CAPACITIES | pass |
//! | VERIFY (10, 12, 16) without data (BYTCHK 0) | passes |
//! | MODE SENSE (6, 10) | passes; the answer says write-protected |
//! | PREVENT ALLOW MEDIUM REMOVAL, START STOP UNIT | pass, see [`judge`] |
//! | GET CONFIGURATION, GET EVENT STATUS NOTIFICATION, READ TOC, READ DISC and TRACK INFORMATION, READ DISC STRUCTURE, MECHANISM STATUS | pass to CD and DVD drives only: elsewhere 51h is XPWRITE, BDh is SPARE (OUT) |
//! | SYNCHRONIZE CACHE (10, 16) | answered here: nothing was written |
//! | what only reads, and nothing needs | refused: ILLEGAL REQUEST |
//! | everything else | refused: DATA PROTECT |
//!
//! No command that passes has data for the device, so that after a command nothing but the next command
//! is ever sent to it. READ (32) has a longer CDB than BOT can carry.

use super::wrapper::Cbw;
use crate::event::CommandRefusal;

/// Values of the first byte of a CDB, `OPERATION CODE` (SPC-4, SBC-4).
pub(crate) mod opcode {
    pub(crate) const TEST_UNIT_READY: u8 = 0x00;
    pub(crate) const REQUEST_SENSE: u8 = 0x03;
    pub(crate) const READ_6: u8 = 0x08;
    pub(crate) const INQUIRY: u8 = 0x12;
    pub(crate) const MODE_SENSE_6: u8 = 0x1a;
    pub(crate) const START_STOP_UNIT: u8 = 0x1b;
    pub(crate) const RECEIVE_DIAGNOSTIC_RESULTS: u8 = 0x1c;
    pub(crate) const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
    pub(crate) const READ_FORMAT_CAPACITIES: u8 = 0x23;
    pub(crate) const READ_CAPACITY_10: u8 = 0x25;
    pub(crate) const READ_10: u8 = 0x28;
    pub(crate) const VERIFY_10: u8 = 0x2f;
    pub(crate) const PREFETCH_10: u8 = 0x34;
    pub(crate) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(crate) const READ_BUFFER: u8 = 0x3c;
    pub(crate) const READ_LONG_10: u8 = 0x3e;
    pub(crate) const READ_TOC: u8 = 0x43;
    pub(crate) const GET_CONFIGURATION: u8 = 0x46;
    pub(crate) const GET_EVENT_STATUS: u8 = 0x4a;
    pub(crate) const LOG_SENSE: u8 = 0x4d;
    pub(crate) const READ_DISC_INFORMATION: u8 = 0x51;
    pub(crate) const READ_TRACK_INFORMATION: u8 = 0x52;
    pub(crate) const MODE_SENSE_10: u8 = 0x5a;
    pub(crate) const PERSISTENT_RESERVE_IN: u8 = 0x5e;
    pub(crate) const READ_16: u8 = 0x88;
    pub(crate) const VERIFY_16: u8 = 0x8f;
    pub(crate) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(crate) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(crate) const REPORT_LUNS: u8 = 0xa0;
    pub(crate) const SECURITY_PROTOCOL_IN: u8 = 0xa2;
    pub(crate) const MAINTENANCE_IN: u8 = 0xa3;
    pub(crate) const READ_12: u8 = 0xa8;
    pub(crate) const READ_DISC_STRUCTURE: u8 = 0xad;
    pub(crate) const VERIFY_12: u8 = 0xaf;
    pub(crate) const MECHANISM_STATUS: u8 = 0xbd;
}
use opcode as op;

/// SERVICE ACTION of READ CAPACITY (16) in SERVICE ACTION IN (16) (SBC-4).
const READ_CAPACITY_16: u8 = 0x10;
/// Logical blocks are of these many bytes: 512 and 4096 on sticks and disks, 2048 on CDs.
const BLOCK_BYTES: [u32; 4] = [512, 1024, 2048, 4096];

/// What of a command's data is looked at as it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The data pass unseen.
    Away,
    /// The peripheral device type, in byte 0 (SPC-4, standard INQUIRY data).
    Type,
    /// The device-specific parameter of the mode parameter header, at this offset (SPC-4): the
    /// guest is to see the WP bit set (SBC-4).
    Parameter(u32),
}

/// What is done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It goes to the device.
    Pass(Look),
    /// It goes to the device, unless there is sense data here: so many bytes of it at most, in
    /// descriptor format if `descriptor`.
    Sense { most: u32, descriptor: bool },
    /// It is done here, and well.
    Good,
    /// It ends with CHECK CONDITION.
    Refuse(CommandRefusal),
}

/// How much data a command has, all of it from the device.
enum Data {
    None,
    /// The device may send up to so many bytes.
    UpTo(u32),
    /// It sends exactly so many.
    Exactly(u32),
    /// So many logical blocks.
    Blocks(u32),
}

impl Data {
    fn agrees(&self, cbw: &Cbw) -> bool {
        if cbw.length > 0 && !cbw.from_device {
            return false;
        }
        match *self {
            Self::None => cbw.length == 0,
            // A host that has less room than it tells the device is in for a phase error (BOT 6.7,
            // cases 2 and 7), which not every stick survives; one that has more gets less (case 5).
            Self::UpTo(most) => cbw.length >= most && (most > 0 || cbw.length == 0),
            Self::Exactly(bytes) => cbw.length == bytes,
            Self::Blocks(blocks) => {
                BLOCK_BYTES.iter().any(|bytes| blocks.checked_mul(*bytes) == Some(cbw.length))
            }
        }
    }
}

/// Judges a command.
///
/// START STOP UNIT passes, ejecting too: it moves no data, the guest's own "safely remove" ends with
/// it, and what it stops starts again at the next plugging. Its power conditions and format layers do
/// not pass: nothing needs them.
///
/// `cd`: the unit has said that it is a CD or DVD drive.
pub(crate) fn judge(cbw: &Cbw, cd: bool) -> Judgement {
    let needed = match cbw.opcode() >> 5 {
        0 => 6,
        1 | 2 => 10,
        4 => 16,
        5 => 12,
        _ => 1,
    };
    let Some((judgement, data)) = on_the_list(cbw, cd) else {
        return Judgement::Refuse(not_on_the_list(cbw.opcode()));
    };
    if cbw.cdb_length < needed {
        return Judgement::Refuse(CommandRefusal::Field);
    }
    match judgement {
        Judgement::Refuse(_) => judgement,
        _ if !data.agrees(cbw) => Judgement::Refuse(CommandRefusal::Length),
        _ => judgement,
    }
}

fn on_the_list(cbw: &Cbw, cd: bool) -> Option<(Judgement, Data)> {
    let [opcode, b1, _, b3, b4, _, b6, b7, b8, b9, b10, b11, b12, b13, _, _] = cbw.cdb;
    let pass = Judgement::Pass(Look::Away);
    let (short, long) =
        (u32::from(u16::from_be_bytes([b7, b8])), u32::from_be_bytes([b6, b7, b8, b9]));
    let wide = u32::from_be_bytes([b10, b11, b12, b13]);
    // SBC-4, VERIFY: with BYTCHK 1 or 3 the host sends data; 2 is reserved.
    let verify = if b1 & 0x06 == 0 { pass } else { Judgement::Refuse(CommandRefusal::Field) };
    Some(match opcode {
        op::TEST_UNIT_READY => (pass, Data::None),
        op::REQUEST_SENSE => {
            let most = u32::from(b4);
            (Judgement::Sense { most, descriptor: b1 & 1 != 0 }, Data::UpTo(most))
        }
        op::INQUIRY => {
            // Only standard INQUIRY data begin with what the device is; vital product data say it too,
            // but the guest may ask for a page that lies.
            let look = if b1 & 3 == 0 { Look::Type } else { Look::Away };
            (Judgement::Pass(look), Data::UpTo(u16::from_be_bytes([b3, b4]).into()))
        }
        op::READ_6 => {
            // 0 stands for 256 blocks (SBC-4).
            (pass, Data::Blocks(if b4 == 0 { 256 } else { b4.into() }))
        }
        op::READ_10 => (pass, Data::Blocks(short)),
        op::READ_12 => (pass, Data::Blocks(long)),
        op::READ_16 => (pass, Data::Blocks(wide)),
        op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => (verify, Data::None),
        op::READ_CAPACITY_10 => (pass, Data::Exactly(8)),
        op::SERVICE_ACTION_IN_16 if b1 & 0x1f == READ_CAPACITY_16 => (pass, Data::UpTo(wide)),
        op::READ_FORMAT_CAPACITIES => (pass, Data::UpTo(short)),
        // A CD drive's parameter has no such bit.
        op::MODE_SENSE_6 if cd => (pass, Data::UpTo(b4.into())),
        op::MODE_SENSE_10 if cd => (pass, Data::UpTo(short)),
        op::MODE_SENSE_6 => (Judgement::Pass(Look::Parameter(2)), Data::UpTo(b4.into())),
        op::MODE_SENSE_10 => (Judgement::Pass(Look::Parameter(3)), Data::UpTo(short)),
        op::REPORT_LUNS => (pass, Data::UpTo(long)),
        op::PREVENT_ALLOW_MEDIUM_REMOVAL => (pass, Data::None),
        // POWER CONDITION is in bits 7:4, FL of MMC-6 in bit 2.
        op::START_STOP_UNIT if b4 & 0xf4 == 0 && b3 == 0 => (pass, Data::None),
        op::START_STOP_UNIT => (Judgement::Refuse(CommandRefusal::Field), Data::None),
        op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => (Judgement::Good, Data::None),
        op::READ_TOC
        | op::GET_CONFIGURATION
        | op::GET_EVENT_STATUS
        | op::READ_DISC_INFORMATION
        | op::READ_TRACK_INFORMATION
            if cd =>
        {
            (pass, Data::UpTo(short))
        }
        op::READ_DISC_STRUCTURE | op::MECHANISM_STATUS if cd => {
            (pass, Data::UpTo(u16::from_be_bytes([b8, b9]).into()))
        }
        _ => return None,
    })
}

/// Returns whether a command that does not pass is one that only asks. The rest is answered as a
/// write-protected medium answers a write: guests then stop trying, and say why in their own words.
fn not_on_the_list(opcode: u8) -> CommandRefusal {
    match opcode {
        op::RECEIVE_DIAGNOSTIC_RESULTS
        | op::PREFETCH_10
        | op::READ_BUFFER
        | op::READ_LONG_10
        | op::LOG_SENSE
        | op::PERSISTENT_RESERVE_IN
        | op::SERVICE_ACTION_IN_16
        | op::SECURITY_PROTOCOL_IN
        | op::MAINTENANCE_IN => CommandRefusal::NotOffered,
        _ => CommandRefusal::Writes,
    }
}
