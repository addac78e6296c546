//! Numbers of the SPICE agent protocol (spice-protocol, `vd_agent.h`), all little-endian on the wire.

/// Version in every message's header.
pub const PROTOCOL: u32 = 1;
/// Bytes of a chunk's header: port, size.
pub const CHUNK_HEADER: usize = 8;
/// Bytes of a message's header: protocol, type, opaque (8), size.
pub const MESSAGE_HEADER: usize = 20;
/// Most bytes of a message that a chunk to the guest carries (`VD_AGENT_MAX_DATA_SIZE`); `spice-vdagentd` refuses more.
pub const CHUNK_MAX: usize = 2048;

/// Chunks of the conversation with the one who pastes and copies (`VDP_CLIENT_PORT`).
pub const PORT_CLIENT: u32 = 1;
/// Chunks meant for the display server (`VDP_SERVER_PORT`).
pub const PORT_SERVER: u32 = 2;

/// Message types (`VD_AGENT_*`). Any other is skipped.
pub mod kind {
    /// The screens' sizes, to the guest.
    pub const MONITORS_CONFIG: u32 = 2;
    /// The clipboard's content.
    pub const CLIPBOARD: u32 = 4;
    /// What the sender can do.
    pub const ANNOUNCE_CAPABILITIES: u32 = 6;
    /// The sender's side has something in its clipboard.
    pub const CLIPBOARD_GRAB: u32 = 7;
    /// The sender wants it.
    pub const CLIPBOARD_REQUEST: u32 = 8;
    /// The sender's side has nothing any more.
    pub const CLIPBOARD_RELEASE: u32 = 9;
}

/// Bits of the capability words (`VD_AGENT_CAP_*`).
pub mod capability {
    /// Understands [`super::kind::MONITORS_CONFIG`].
    pub const MONITORS_CONFIG: u32 = 1;
    /// Clipboards by grab and request.
    pub const CLIPBOARD_BY_DEMAND: u32 = 5;
    /// Clipboard messages begin with four bytes that name the selection.
    pub const CLIPBOARD_SELECTION: u32 = 6;
    /// The guest's lines end with CR LF.
    pub const GUEST_LINEEND_CRLF: u32 = 9;
    /// Neither side sends a release when it grabs again.
    pub const CLIPBOARD_NO_RELEASE_ON_REGRAB: u32 = 16;
}

/// Types of clipboard content (`VD_AGENT_CLIPBOARD_*`). The protocol has none for formatted text.
pub mod content {
    /// Nothing; the answer of who cannot answer.
    pub const NONE: u32 = 0;
    /// Text in UTF-8.
    pub const UTF8_TEXT: u32 = 1;
    /// PNG.
    pub const IMAGE_PNG: u32 = 2;
    /// BMP.
    pub const IMAGE_BMP: u32 = 3;
    /// TIFF.
    pub const IMAGE_TIFF: u32 = 4;
    /// JPEG.
    pub const IMAGE_JPG: u32 = 5;
    /// Names of files.
    pub const FILE_LIST: u32 = 6;
}

/// The selection that copying and pasting by key uses (`VD_AGENT_CLIPBOARD_SELECTION_CLIPBOARD`).
pub const SELECTION_CLIPBOARD: u8 = 0;

/// Largest message whose body is kept whole, clipboard content aside, in bytes: an announcement or a grab is below 100.
pub const SMALL_MAX: u32 = 4096;
/// Largest message a guest may declare, in bytes. What is not wanted is skipped without being kept, so this only ends
/// streams that have lost their way.
pub const MESSAGE_MAX: u32 = 256 << 20;
