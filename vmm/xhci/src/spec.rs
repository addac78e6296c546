//! Numbers of the xHCI specification 1.2 (sections in brackets) and our layout of BAR 0.

/// Bytes of BAR 0.
pub const BAR_SIZE: u64 = 0x4000;
/// Where each group of registers starts in BAR 0.
pub mod base {
    /// Capability registers (5.3).
    pub const CAPABILITY: u64 = 0;
    /// Operational registers (5.4).
    pub const OPERATIONAL: u64 = 0x40;
    /// Port register sets, sixteen bytes a port (5.4.8).
    pub const PORTS: u64 = OPERATIONAL + 0x400;
    /// Extended capabilities (7).
    pub const EXTENDED: u64 = 0x800;
    /// Runtime registers (5.5).
    pub const RUNTIME: u64 = 0x1000;
    /// Doorbells, four bytes a slot (5.6).
    pub const DOORBELLS: u64 = 0x2000;
    /// MSI-X table.
    pub const TABLE: u64 = 0x3000;
    /// MSI-X pending bits.
    pub const PBA: u64 = 0x3800;
}

/// Most device slots in use at once (5.3.3). Hubs never reach a guest, so a port needs one slot, and
/// one more while a driver lets go of a device that was swapped.
pub const SLOTS: u8 = 32;
/// Most ports of one protocol; both together fit their registers.
pub const PORTS_MAX: u8 = 15;
/// Event ring segments: two to the power of this (5.3.4, ERST Max).
pub const EVENT_SEGMENTS_LOG2: u32 = 3;
/// How many event ring segments a driver may give at most.
pub const EVENT_SEGMENTS: u32 = 1 << EVENT_SEGMENTS_LOG2;
/// TRBs an event ring segment may have (6.5).
pub const EVENT_SEGMENT_TRBS: std::ops::RangeInclusive<u32> = 16..=4096;

/// Doorbells a device slot has: device context indices (4.5.1).
pub const CONTEXTS: u8 = 32;
/// Bytes of one context: CSZ is 0 (5.3.6).
pub const CONTEXT_SIZE: u64 = 32;
/// Bytes of a TRB (4.11.1).
pub const TRB_SIZE: u64 = 16;

// Bounds of ours. Each keeps one step short, or one allocation small.

/// Link TRBs followed to reach one TRB. Drivers have one after another only by mistake.
pub const LINKS_MAX: u32 = 16;
/// Bytes moved by one transfer of the backend: the most that is allocated for an endpoint. A larger
/// transfer descriptor takes several. A device has 30 endpoints at most and one slot, so a guest that
/// does its worst makes the devices attached hold less than 4 MiB each.
pub const CHUNK_BYTES: u32 = 128 << 10;
/// TRBs one chunk may be put together from: 4 KiB pages fill one with 32; this is as many of 128 bytes.
pub const CHUNK_TRBS: usize = 1024;
/// TRBs of one control transfer: 64 KiB in 4 KiB pages, setup, status and event data take 20.
pub const CONTROL_TRBS: usize = 256;
/// TRBs passed over in one step, looking for the end of a transfer descriptor.
pub const SKIP_TRBS: u32 = 1024;

/// TRBs passed over before a transfer descriptor without an end is taken for a loop.
pub const TD_TRBS: u32 = 1 << 16;

/// How long a Stop Endpoint command waits until the backend says what the endpoint's transfer has moved.
/// A device that takes longer has failed. Linux gives a command five seconds.
pub const STOP_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// USBCMD (5.4.1).
pub mod usbcmd {
    /// Run/Stop.
    pub const RUN: u32 = 1 << 0;
    /// Host controller reset.
    pub const RESET: u32 = 1 << 1;
    /// Interrupter enable.
    pub const INTE: u32 = 1 << 2;
    /// Host system error enable.
    pub const HSEE: u32 = 1 << 3;
    /// Controller save state.
    pub const SAVE: u32 = 1 << 8;
    /// Controller restore state.
    pub const RESTORE: u32 = 1 << 9;
}

/// USBSTS (5.4.2).
pub mod usbsts {
    /// Halted.
    pub const HALTED: u32 = 1 << 0;
    /// Host system error.
    pub const HSE: u32 = 1 << 2;
    /// Event interrupt.
    pub const EINT: u32 = 1 << 3;
    /// Port change detect.
    pub const PCD: u32 = 1 << 4;
    /// Save/restore error.
    pub const SRE: u32 = 1 << 10;
    /// Host controller error.
    pub const HCE: u32 = 1 << 12;
}

/// CRCR, lower half (5.4.5).
pub mod crcr {
    /// Ring cycle state.
    pub const CYCLE: u32 = 1 << 0;
    /// Command stop.
    pub const STOP: u32 = 1 << 1;
    /// Command abort.
    pub const ABORT: u32 = 1 << 2;
    /// Command ring running.
    pub const RUNNING: u32 = 1 << 3;
    /// The pointer's bits.
    pub const POINTER: u32 = !0x3f;
}

/// IMAN (5.5.2.1).
pub mod iman {
    /// Interrupt pending.
    pub const PENDING: u32 = 1 << 0;
    /// Interrupt enable.
    pub const ENABLE: u32 = 1 << 1;
}

/// ERDP, lower half (5.5.2.3.3).
pub mod erdp {
    /// Event handler busy.
    pub const BUSY: u32 = 1 << 3;
    /// The pointer's bits.
    pub const POINTER: u32 = !0xf;
}

/// PORTSC (5.4.8).
pub mod portsc {
    /// Current connect status.
    pub const CCS: u32 = 1 << 0;
    /// Port enabled; writing one disables.
    pub const PED: u32 = 1 << 1;
    /// Port reset.
    pub const PR: u32 = 1 << 4;
    /// Port link state's shift and mask.
    pub const PLS_SHIFT: u32 = 5;
    /// See [`PLS_SHIFT`].
    pub const PLS_MASK: u32 = 0xf << PLS_SHIFT;
    /// Port power; always on, as HCCPARAMS1.PPC is 0.
    pub const PP: u32 = 1 << 9;
    /// Port speed's shift.
    pub const SPEED_SHIFT: u32 = 10;
    /// Port indicator control.
    pub const PIC: u32 = 3 << 14;
    /// Link state write strobe.
    pub const LWS: u32 = 1 << 16;
    /// Connect status change.
    pub const CSC: u32 = 1 << 17;
    /// Port enabled change.
    pub const PEC: u32 = 1 << 18;
    /// Warm reset change (USB 3).
    pub const WRC: u32 = 1 << 19;
    /// Over-current change.
    pub const OCC: u32 = 1 << 20;
    /// Port reset change.
    pub const PRC: u32 = 1 << 21;
    /// Link state change.
    pub const PLC: u32 = 1 << 22;
    /// Configuration error change (USB 3).
    pub const CEC: u32 = 1 << 23;
    /// Wake on connect, disconnect, over-current.
    pub const WAKE: u32 = 7 << 25;
    /// Warm port reset (USB 3).
    pub const WPR: u32 = 1 << 31;
    /// All that a write of one clears.
    pub const CHANGES: u32 = CSC | PEC | WRC | OCC | PRC | PLC | CEC;

    /// Port link states.
    pub mod link {
        /// U0: the link works.
        pub const U0: u32 = 0;
        /// U3: the device is suspended.
        pub const U3: u32 = 3;
        /// Disabled (USB 3).
        pub const DISABLED: u32 = 4;
        /// RxDetect: no device is there.
        pub const RX_DETECT: u32 = 5;
        /// A USB 2 device that was not reset yet.
        pub const POLLING: u32 = 7;
        /// Resume: the device is being woken.
        pub const RESUME: u32 = 15;
    }
}

/// TRB types (6.4.6).
pub mod trb_type {
    /// Bulk or interrupt data, and more data of a control transfer.
    pub const NORMAL: u8 = 1;
    /// Setup stage.
    pub const SETUP: u8 = 2;
    /// Data stage.
    pub const DATA: u8 = 3;
    /// Status stage.
    pub const STATUS: u8 = 4;
    /// Where the ring goes on.
    pub const LINK: u8 = 6;
    /// An event with the driver's own value.
    pub const EVENT_DATA: u8 = 7;
    /// Nothing, on a transfer ring.
    pub const NO_OP: u8 = 8;
    /// The command Enable Slot (6.4.3.2).
    pub const ENABLE_SLOT: u8 = 9;
    /// The command Disable Slot (6.4.3.3).
    pub const DISABLE_SLOT: u8 = 10;
    /// The command Address Device (6.4.3.4).
    pub const ADDRESS_DEVICE: u8 = 11;
    /// The command Configure Endpoint (6.4.3.5).
    pub const CONFIGURE_ENDPOINT: u8 = 12;
    /// The command Evaluate Context (6.4.3.6).
    pub const EVALUATE_CONTEXT: u8 = 13;
    /// The command Reset Endpoint (6.4.3.7).
    pub const RESET_ENDPOINT: u8 = 14;
    /// The command Stop Endpoint (6.4.3.8).
    pub const STOP_ENDPOINT: u8 = 15;
    /// The command Set TR Dequeue Pointer (6.4.3.9).
    pub const SET_TR_DEQUEUE: u8 = 16;
    /// The command Reset Device (6.4.3.10).
    pub const RESET_DEVICE: u8 = 17;
    /// Nothing, on the command ring.
    pub const NO_OP_COMMAND: u8 = 23;
    /// The event of a transfer (6.4.2.1).
    pub const TRANSFER_EVENT: u8 = 32;
    /// The event of a command (6.4.2.2).
    pub const COMMAND_COMPLETION: u8 = 33;
    /// The event of a port whose state has changed (6.4.2.3).
    pub const PORT_STATUS_CHANGE: u8 = 34;
    /// The event of the controller itself, such as a full event ring (6.4.2.6).
    pub const HOST_CONTROLLER: u8 = 37;
}

/// Bits of a TRB's last dword (6.4.1, 6.4.3, 6.4.4).
pub mod trb_bit {
    /// Whose the TRB is.
    pub const CYCLE: u32 = 1 << 0;
    /// A Link TRB's toggle cycle.
    pub const TOGGLE: u32 = 1 << 1;
    /// A Transfer Event's event data.
    pub const EVENT_DATA: u32 = 1 << 2;
    /// Interrupt on short packet.
    pub const ISP: u32 = 1 << 2;
    /// The transfer descriptor goes on in the next TRB.
    pub const CHAIN: u32 = 1 << 4;
    /// Interrupt on completion.
    pub const IOC: u32 = 1 << 5;
    /// The parameter is the data.
    pub const IDT: u32 = 1 << 6;
    /// Address Device: block the SET_ADDRESS request.
    pub const BSR: u32 = 1 << 9;
    /// Configure Endpoint: deconfigure.
    pub const DECONFIGURE: u32 = 1 << 9;
    /// Reset Endpoint: preserve the transfer state.
    pub const PRESERVE: u32 = 1 << 9;
    /// Block event interrupt.
    pub const BEI: u32 = 1 << 9;
    /// Data and Status stage: towards the host.
    pub const DIRECTION_IN: u32 = 1 << 16;
}

/// Completion codes (6.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the specification's names, in its order")]
pub enum Code {
    Success = 1,
    Babble = 3,
    TransactionError = 4,
    TrbError = 5,
    Stall = 6,
    Bandwidth = 8,
    NoSlots = 9,
    SlotNotEnabled = 11,
    EndpointNotEnabled = 12,
    ShortPacket = 13,
    Parameter = 17,
    ContextState = 19,
    EventRingFull = 21,
    CommandRingStopped = 24,
    Stopped = 26,
}

/// Slot states (6.2.2).
pub mod slot_state {
    /// Disabled or just enabled.
    pub const ENABLED: u32 = 0;
    /// The device has no address yet.
    pub const DEFAULT: u32 = 1;
    /// The device has an address.
    pub const ADDRESSED: u32 = 2;
    /// Has endpoints besides the default one.
    pub const CONFIGURED: u32 = 3;
}

/// Standard requests of USB 2.0 section 9.4, and their `bmRequestType`.
pub mod request {
    /// SET_ADDRESS, 0x00.
    pub const SET_ADDRESS: u8 = 5;
    /// GET_CONFIGURATION, 0x80.
    pub const GET_CONFIGURATION: u8 = 8;
    /// SET_CONFIGURATION, 0x00.
    pub const SET_CONFIGURATION: u8 = 9;
    /// GET_INTERFACE, 0x81.
    pub const GET_INTERFACE: u8 = 10;
    /// SET_INTERFACE, 0x01.
    pub const SET_INTERFACE: u8 = 11;
    /// CLEAR_FEATURE, 0x02 with feature 0: an endpoint's halt.
    pub const CLEAR_FEATURE: u8 = 1;
}
