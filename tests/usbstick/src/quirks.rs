//! What real sticks do against the specification.

/// The ways in which a [`Storage`](super::Storage) differs from what Bulk-Only Transport 1.0 wants. By default it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `dCSWDataResidue` of every status, whatever was moved.
    pub residue: Option<u32>,
    /// `dCSWSignature` of every status.
    pub signature: Option<[u8; 4]>,
    /// `dCSWTag` of every status.
    pub tag: Option<[u8; 4]>,
    /// Opcodes of commands in place of whose data it sends the status.
    pub skips: Vec<u8>,
    /// Opcodes of commands whose data it ends with more than was asked for.
    pub babbles: Vec<u8>,
    /// An empty packet comes before a status.
    pub empty_packet: bool,
    /// A status is stalled when it is asked for first.
    pub stalls_status: bool,
    /// What GET MAX LUN is answered with.
    pub max_lun: MaxLun,
}

/// An answer to GET MAX LUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaxLun {
    /// The stick answers with these bytes.
    Bytes(Vec<u8>),
    /// The stick stalls the request.
    Stall,
}

impl Default for MaxLun {
    fn default() -> Self {
        Self::Bytes(vec![0])
    }
}
