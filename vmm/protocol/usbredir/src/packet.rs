//! The packets of usbredir 0.7, as data. Isochronous streams, bulk streams and device filters are not
//! spoken by us: their packets are not here, and whoever reads a stream refuses them.

/// Most data a bulk, control or interrupt packet carries here, in bytes: what an xHCI hands over at once,
/// and far above what a control (64 KiB) or interrupt (3 KiB) transfer can be.
pub const MAX_DATA: usize = 128 * 1024;
/// Endpoints of a device: 16 numbers, towards the device and from it.
pub const ENDPOINTS: usize = 32;
/// Interfaces that [`Body::InterfaceInfo`] has room for.
pub const INTERFACES: usize = 32;

/// One packet, whichever way it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Chosen by the guest's end, repeated in the answer; 0 for packets that answer nothing. 32 bits on
    /// the wire unless both ends have the capability `64bits_ids`.
    pub id: u64,
    /// What the packet says, by its type.
    pub body: Body,
}

/// How something ended (`usb_redir_*` status values).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// The transfer was carried out.
    Success = 0,
    /// It was cancelled, or the device went away.
    Cancelled = 1,
    /// A packet that made no sense.
    Invalid = 2,
    /// The host could not reach the device.
    IoError = 3,
    /// The device stalled the endpoint.
    Stall = 4,
    /// The device did not answer in time.
    Timeout = 5,
    /// The device sent more than was asked for.
    Babble = 6,
}

/// How fast a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Speed {
    /// 1.5 Mbit/s.
    Low = 0,
    /// 12 Mbit/s.
    Full = 1,
    /// 480 Mbit/s.
    High = 2,
    /// 5 Gbit/s and more.
    Super = 3,
    /// The speed was not told.
    Unknown = 255,
}

/// What a device says of itself when it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConnect {
    /// Of the port it is plugged into.
    pub speed: Speed,
    /// `bDeviceClass`.
    pub class: u8,
    /// `bDeviceSubClass`.
    pub subclass: u8,
    /// `bDeviceProtocol`.
    pub protocol: u8,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// `bcdDevice`; on the wire only with the capability `connect_device_version`, else 0.
    pub version: u16,
}

/// One interface of the active configuration, in its active alternate setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `bInterfaceNumber`.
    pub number: u8,
    /// `bInterfaceClass`.
    pub class: u8,
    /// `bInterfaceSubClass`.
    pub subclass: u8,
    /// `bInterfaceProtocol`.
    pub protocol: u8,
}

/// The kind of an endpoint (`bmAttributes` bits 1:0; 255 where there is none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EndpointType {
    /// A control endpoint.
    Control = 0,
    /// An isochronous endpoint, which is not spoken here.
    Isochronous = 1,
    /// A bulk endpoint.
    Bulk = 2,
    /// An interrupt endpoint.
    Interrupt = 3,
    /// There is no such endpoint.
    #[default]
    Invalid = 255,
}

/// One endpoint of the active configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The transfer type of the endpoint.
    pub kind: EndpointType,
    /// `bInterval`.
    pub interval: u8,
    /// The interface it belongs to.
    pub interface: u8,
    /// `wMaxPacketSize`; on the wire only with the capability `ep_info_max_packet_size`, else 0.
    pub max_packet_size: u16,
}

/// Returns the index in [`Body::EndpointInfo`] of an endpoint address: 0 to 15 towards the device, 16 to 31 from it.
pub fn endpoint_index(address: u8) -> usize {
    usize::from(address & 0x0f) | usize::from(address & 0x80) >> 3
}

/// Returns the endpoint address that an index in [`Body::EndpointInfo`] stands for.
pub fn endpoint_address(index: usize) -> u8 {
    let [low, ..] = index.to_le_bytes();
    (low & 0x0f) | (low & 0x10) << 3
}

/// A control transfer. To the device it carries data if the request does; the answer carries what the
/// device sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The endpoint, with bit 7 set if data comes from the device.
    pub endpoint: u8,
    /// `bRequest`.
    pub request: u8,
    /// `bmRequestType`.
    pub request_type: u8,
    /// How it ended; 0 in a request.
    pub status: Status,
    /// `wValue`.
    pub value: u16,
    /// `wIndex`.
    pub index: u16,
    /// `wLength` in a request; bytes moved in an answer.
    pub length: u16,
    /// The data stage, if it goes this packet's way.
    pub data: Vec<u8>,
}

/// A bulk transfer: a request of the guest's, or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// The endpoint's address.
    pub endpoint: u8,
    /// How it ended; 0 in a request.
    pub status: Status,
    /// Bytes asked for or sent in a request; bytes moved in an answer.
    pub length: u32,
    /// Always 0: streams are not spoken here.
    pub stream: u32,
    /// The data, if it goes this packet's way.
    pub data: Vec<u8>,
}

/// Data of an interrupt endpoint. From the device it comes unasked between
/// [`Body::StartInterruptReceiving`] and [`Body::StopInterruptReceiving`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The endpoint's address.
    pub endpoint: u8,
    /// How it ended; 0 in a request.
    pub status: Status,
    /// Bytes sent in a request; bytes moved in an answer.
    pub length: u16,
    /// The data, if it goes this packet's way.
    pub data: Vec<u8>,
}

/// What a packet says. "Host" is the end that has the device, "guest" the one that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The first packet of each end: who it is, and its capabilities as bits of 32-bit words.
    Hello {
        /// Name and version of the program; at most 64 bytes, not to be trusted.
        version: String,
        /// Capability words, at most four are read.
        capabilities: Vec<u32>,
    },
    /// Host: a device is there. Comes after [`Body::InterfaceInfo`] and [`Body::EndpointInfo`].
    DeviceConnect(DeviceConnect),
    /// Host: the device is gone.
    DeviceDisconnect,
    /// Guest: answer to [`Body::DeviceDisconnect`], with the capability `device_disconnect_ack`.
    DeviceDisconnectAck,
    /// Guest: reset the device. Not answered.
    Reset,
    /// Host: the interfaces, at most [`INTERFACES`].
    InterfaceInfo(Vec<Interface>),
    /// Host: the endpoints, by [`endpoint_index`].
    EndpointInfo(Box<[EndpointInfo; ENDPOINTS]>),
    /// Guest: choose a configuration by its `bConfigurationValue`.
    SetConfiguration(u8),
    /// Guest: which configuration is it?
    GetConfiguration,
    /// Host: answer to both.
    ConfigurationStatus {
        /// How it ended.
        status: Status,
        /// `bConfigurationValue` of the configuration that is set now.
        configuration: u8,
    },
    /// Guest: choose an alternate setting.
    SetAltSetting {
        /// `bInterfaceNumber`.
        interface: u8,
        /// `bAlternateSetting`.
        alternate: u8,
    },
    /// Guest: which alternate setting is it?
    GetAltSetting {
        /// `bInterfaceNumber`.
        interface: u8,
    },
    /// Host: answer to both.
    AltSettingStatus {
        /// How it ended.
        status: Status,
        /// `bInterfaceNumber`.
        interface: u8,
        /// The alternate setting now.
        alternate: u8,
    },
    /// Guest: begin to poll an interrupt endpoint that sends from the device.
    StartInterruptReceiving {
        /// The endpoint's address.
        endpoint: u8,
    },
    /// Guest: poll no longer.
    StopInterruptReceiving {
        /// The endpoint's address.
        endpoint: u8,
    },
    /// Host: answer to both; also sent unasked when an endpoint stalls.
    InterruptReceivingStatus {
        /// How it ended.
        status: Status,
        /// The endpoint's address.
        endpoint: u8,
    },
    /// Guest: cancel the data packet with this packet's ID. Answered by that packet, cancelled or done.
    CancelDataPacket,
    /// A control transfer, or its end.
    Control(Control),
    /// A bulk transfer, or its end.
    Bulk(Bulk),
    /// Interrupt data, or its end.
    Interrupt(Interrupt),
}
