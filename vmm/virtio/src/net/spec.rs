//! Numbers and layouts of virtio 1.2 section 5.1.

/// Section 5.1.1.
pub(super) const DEVICE_ID: u32 = 1;

/// Section 5.1.2, for one pair.
pub(super) const RECEIVE_QUEUE: usize = 0;
pub(super) const TRANSMIT_QUEUE: usize = 1;

/// Feature bits, section 5.1.3. `GUEST_*` is what the driver takes, `HOST_*` what it may give.
pub(super) mod feature {
    pub(in super::super) const CSUM: u64 = 1 << 0;
    pub(in super::super) const GUEST_CSUM: u64 = 1 << 1;
    pub(in super::super) const MAC: u64 = 1 << 5;
    pub(in super::super) const GUEST_TSO4: u64 = 1 << 7;
    pub(in super::super) const GUEST_TSO6: u64 = 1 << 8;
    pub(in super::super) const GUEST_ECN: u64 = 1 << 9;
    pub(in super::super) const GUEST_UFO: u64 = 1 << 10;
    pub(in super::super) const HOST_TSO4: u64 = 1 << 11;
    pub(in super::super) const HOST_TSO6: u64 = 1 << 12;
    pub(in super::super) const HOST_ECN: u64 = 1 << 13;
    pub(in super::super) const HOST_UFO: u64 = 1 << 14;
    pub(in super::super) const MRG_RXBUF: u64 = 1 << 15;
}

/// Length of `virtio_net_hdr` in bytes, section 5.1.6.
pub(super) const HEADER_BYTES: usize = 12;

/// Where `num_buffers` lies in it.
pub(super) const NUM_BUFFERS: usize = 10;

/// `flags` of the header.
pub(super) const NEEDS_CSUM: u8 = 1;

/// `gso_type` of the header.
pub(super) mod gso {
    pub(in super::super) const NONE: u8 = 0;
    pub(in super::super) const TCPV4: u8 = 1;
    pub(in super::super) const UDP: u8 = 3;
    pub(in super::super) const TCPV6: u8 = 4;
    pub(in super::super) const ECN: u8 = 0x80;
}

/// An Ethernet header in bytes: no frame is shorter.
pub(super) const MIN_FRAME: usize = 14;

/// The longest frame in bytes: what segmentation offload makes of a 64 KiB packet, with room for
/// two VLAN tags.
pub(super) const MAX_FRAME: usize = 0xffff + MIN_FRAME + 8;
