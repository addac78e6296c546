//! The header of a frame from the guest, checked before the host's network stack sees it.
//!
//! The host kernel checks it again; but a guest has no business exercising that code beyond what
//! it negotiated (virtio 1.2 section 5.1.6.2.1).

use super::spec::{HEADER_BYTES, MAX_FRAME, MIN_FRAME, NEEDS_CSUM, feature, gso};

/// Returns the header to send with a frame of `len` bytes; `None` drops the frame.
pub(super) fn admit(
    raw: [u8; HEADER_BYTES],
    len: usize,
    features: u64,
) -> Option<[u8; HEADER_BYTES]> {
    let [flags, gso_type, l0, l1, s0, s1, c0, c1, o0, o1, _, _] = raw;
    let header_len = usize::from(u16::from_le_bytes([l0, l1]));
    let gso_size = u16::from_le_bytes([s0, s1]);
    let checksum_start = usize::from(u16::from_le_bytes([c0, c1]));
    let checksum_offset = usize::from(u16::from_le_bytes([o0, o1]));
    if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
        return None;
    }

    let mut admitted = [0; HEADER_BYTES];
    if flags & NEEDS_CSUM != 0 {
        if features & feature::CSUM == 0 || checksum_start + checksum_offset + 2 > len {
            return None;
        }
        admitted = [NEEDS_CSUM, gso::NONE, 0, 0, 0, 0, c0, c1, o0, o1, 0, 0];
    }

    if gso_type != gso::NONE {
        let needed = match gso_type & !gso::ECN {
            gso::TCPV4 => feature::HOST_TSO4,
            gso::TCPV6 => feature::HOST_TSO6,
            gso::UDP if gso_type & gso::ECN == 0 => feature::HOST_UFO,
            _ => return None,
        };
        let ecn = if gso_type & gso::ECN != 0 { feature::HOST_ECN } else { 0 };
        let needed = needed | ecn;
        let checksummed = flags & NEEDS_CSUM != 0;
        if features & needed != needed || !checksummed || gso_size == 0 || header_len > len {
            return None;
        }
        admitted = [NEEDS_CSUM, gso_type, l0, l1, s0, s1, c0, c1, o0, o1, 0, 0];
    }
    Some(admitted)
}
