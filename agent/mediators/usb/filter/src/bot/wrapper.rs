//! Command and status block wrappers (BOT 1.0 sections 5.1 and 5.2).

/// Length of a command block wrapper (Bulk-Only Transport 1.0, section 5.1).
pub(crate) const CBW_BYTES: usize = 31;
/// Length of a command status wrapper (Bulk-Only Transport 1.0, section 5.2).
pub(crate) const CSW_BYTES: usize = 13;
/// Bytes of the command block in a CBW.
pub(crate) const CDB_BYTES: usize = 16;
const CBW_SIGNATURE: [u8; 4] = *b"USBC";
/// `dCSWSignature` as the specification has it. Some devices have another: Olympus cameras say "USBU".
pub(crate) const CSW_SIGNATURE: [u8; 4] = *b"USBS";
/// Logical units are numbered 0 to 15.
pub(crate) const UNITS: usize = 16;

/// A command, valid and meaningful (sections 6.2.1 and 6.2.2) but for the command block's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cbw {
    pub(crate) tag: u32,
    /// `dCBWDataTransferLength`.
    pub(crate) length: u32,
    /// Whether the data comes from the device. Of no meaning if there is none.
    pub(crate) from_device: bool,
    pub(crate) lun: u8,
    /// `bCBWCBLength`, 1 to 16.
    pub(crate) cdb_length: u8,
    /// What is beyond `bCBWCBLength` is 0: it is not of the command.
    pub(crate) cdb: [u8; CDB_BYTES],
}

impl Cbw {
    /// Reads one; `None` if it is not valid, or has reserved bits set.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, cdb) = <&[u8; CBW_BYTES]>::try_from(bytes).ok()?.split_at_checked(15)?;
        let &[s0, s1, s2, s3, t0, t1, t2, t3, l0, l1, l2, l3, flags, lun, cdb_length] = head else {
            return None;
        };
        let meaningful = flags & 0x7f == 0 && lun & 0xf0 == 0 && (1..=16).contains(&cdb_length);
        if [s0, s1, s2, s3] != CBW_SIGNATURE || !meaningful {
            return None;
        }
        let mut cdb = <[u8; CDB_BYTES]>::try_from(cdb).ok()?;
        for beyond in cdb.iter_mut().skip(usize::from(cdb_length)) {
            *beyond = 0;
        }
        Some(Self {
            tag: u32::from_le_bytes([t0, t1, t2, t3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            from_device: flags & 0x80 != 0,
            lun,
            cdb_length,
            cdb,
        })
    }

    /// Returns the bytes of it: what a device is sent is always written here.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CBW_BYTES);
        bytes.extend_from_slice(&CBW_SIGNATURE);
        bytes.extend_from_slice(&self.tag.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&[u8::from(self.from_device) << 7, self.lun, self.cdb_length]);
        bytes.extend_from_slice(&self.cdb);
        bytes
    }

    pub(crate) fn opcode(&self) -> u8 {
        let [opcode, ..] = self.cdb;
        opcode
    }
}

/// The status of a command, `bCSWStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed = 0,
    Failed = 1,
    PhaseError = 2,
}

/// A command status wrapper (CSW): how a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Csw {
    pub(crate) tag: u32,
    /// `dCSWDataResidue`.
    pub(crate) residue: u32,
    pub(crate) outcome: Outcome,
}

impl Csw {
    /// Reads what can be one, with its signature: of its length, and `bCSWStatus` a defined one. Whether it is the one that is due is for
    /// who knows what was asked.
    pub(crate) fn read(bytes: &[u8]) -> Option<([u8; 4], Self)> {
        let &[s0, s1, s2, s3, t0, t1, t2, t3, r0, r1, r2, r3, status] =
            <&[u8; CSW_BYTES]>::try_from(bytes).ok()?;
        let outcome = match status {
            0 => Outcome::Passed,
            1 => Outcome::Failed,
            2 => Outcome::PhaseError,
            _ => return None,
        };
        let (tag, residue) =
            (u32::from_le_bytes([t0, t1, t2, t3]), u32::from_le_bytes([r0, r1, r2, r3]));
        Some(([s0, s1, s2, s3], Self { tag, residue, outcome }))
    }

    /// Returns the bytes of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CSW_BYTES);
        bytes.extend_from_slice(&CSW_SIGNATURE);
        bytes.extend_from_slice(&self.tag.to_le_bytes());
        bytes.extend_from_slice(&self.residue.to_le_bytes());
        bytes.push(self.outcome as u8);
        bytes
    }
}
