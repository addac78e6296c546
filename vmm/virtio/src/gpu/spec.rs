//! Constants of the GPU device (virtio 1.2 section 5.7).

/// Device ID (section 5.7.1).
pub(super) const DEVICE_ID: u32 = 16;
/// Queues (section 5.7.2): control and cursor.
pub(super) const CONTROL_QUEUE: usize = 0;
/// The queue for the commands of the cursor (virtio 1.2 section 5.7.2).
pub(super) const CURSOR_QUEUE: usize = 1;
/// Sizes of both, as QEMU has them.
pub(super) const QUEUE_SIZES: [u16; 2] = [64, 16];
/// `VIRTIO_GPU_F_EDID` (section 5.7.3).
pub(super) const F_EDID: u64 = 1 << 1;

/// Device configuration (section 5.7.4): `events_read`, `events_clear`, `num_scanouts`, `num_capsets`.
pub(super) const CONFIG_EVENTS_CLEAR: usize = 4;
/// `VIRTIO_GPU_EVENT_DISPLAY`.
pub(super) const EVENT_DISPLAY: u32 = 1 << 0;

/// `struct virtio_gpu_ctrl_hdr` (section 5.7.6.7): type, flags, fence, context, ring, padding.
pub(super) const HEADER_BYTES: usize = 24;
/// `VIRTIO_GPU_FLAG_FENCE`.
pub(super) const FLAG_FENCE: u32 = 1 << 0;

/// Commands (section 5.7.6.7).
pub(super) mod command {
    pub(crate) const GET_DISPLAY_INFO: u32 = 0x0100;
    pub(crate) const RESOURCE_CREATE_2D: u32 = 0x0101;
    pub(crate) const RESOURCE_UNREF: u32 = 0x0102;
    pub(crate) const SET_SCANOUT: u32 = 0x0103;
    pub(crate) const RESOURCE_FLUSH: u32 = 0x0104;
    pub(crate) const TRANSFER_TO_HOST_2D: u32 = 0x0105;
    pub(crate) const RESOURCE_ATTACH_BACKING: u32 = 0x0106;
    pub(crate) const RESOURCE_DETACH_BACKING: u32 = 0x0107;
    pub(crate) const GET_EDID: u32 = 0x010a;
    pub(crate) const UPDATE_CURSOR: u32 = 0x0300;
    pub(crate) const MOVE_CURSOR: u32 = 0x0301;
}

/// Responses (section 5.7.6.7).
pub(super) mod response {
    pub(crate) const OK_NODATA: u32 = 0x1100;
    pub(crate) const OK_DISPLAY_INFO: u32 = 0x1101;
    pub(crate) const OK_EDID: u32 = 0x1104;
    pub(crate) const ERR_UNSPEC: u32 = 0x1200;
    pub(crate) const ERR_OUT_OF_MEMORY: u32 = 0x1201;
    pub(crate) const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
    pub(crate) const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
    pub(crate) const ERR_INVALID_PARAMETER: u32 = 0x1205;
}

/// `VIRTIO_GPU_MAX_SCANOUTS` (section 5.7.6.8, `GET_DISPLAY_INFO`).
pub(super) const SCANOUTS_MAX: usize = 16;
/// Bytes of an EDID response's blob.
pub(super) const EDID_BYTES: usize = 1024;
/// `VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM` and `..X8_UNORM`: what frame memory holds too.
pub(super) const FORMATS: [u32; 2] = [1, 2];
