//! What the control queues say (virtio 1.2 section 5.3.6.2), as state instead of a list.
//!
//! What the guest has yet to be told about a port is a handful of flags, so a guest that asks and
//! never listens costs no memory, and a client that comes and goes makes no queue of messages.

use super::spec::{CONTROL_BYTES, event};

/// A control message from the driver (virtio 1.2 section 5.3.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverMessage {
    /// The driver knows the control queues (true), or failed.
    DeviceReady(bool),
    /// The driver knows the port (true), or failed to add it.
    PortReady(u32, bool),
    /// A guest process opened (true) or closed the port.
    PortOpen(u32, bool),
    /// Something a driver has no reason to say.
    Other,
}

impl DriverMessage {
    pub(super) fn parse(raw: [u8; CONTROL_BYTES]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = raw;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let yes = u16::from_le_bytes([v0, v1]) == 1;
        match u16::from_le_bytes([e0, e1]) {
            event::DEVICE_READY => Self::DeviceReady(yes),
            event::PORT_READY => Self::PortReady(port, yes),
            event::PORT_OPEN => Self::PortOpen(port, yes),
            _ => Self::Other,
        }
    }
}

/// A message to the driver about one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceMessage {
    /// The port exists.
    Add,
    /// The port is the one that the guest uses as its console.
    Console,
    /// The name of the port follows in the same buffer.
    Name,
    /// Its other side was connected (true) or went away.
    Open(bool),
}

impl DeviceMessage {
    pub(super) fn bytes(self, port: u32) -> [u8; CONTROL_BYTES] {
        let (event, value) = match self {
            Self::Add => (event::PORT_ADD, 1),
            Self::Console => (event::CONSOLE_PORT, 1),
            Self::Name => (event::PORT_NAME, 1),
            Self::Open(open) => (event::PORT_OPEN, u16::from(open)),
        };
        let [p0, p1, p2, p3] = port.to_le_bytes();
        let [e0, e1] = event.to_le_bytes();
        let [v0, v1] = value.to_le_bytes();
        [p0, p1, p2, p3, e0, e1, v0, v1]
    }
}

/// What the guest has yet to be told about one port.
///
/// ```text
///   DEVICE_READY -> Add     PORT_READY -> Console, Name, then Open(_) whenever it changes
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingMessages {
    add: bool,
    console: bool,
    name: bool,
    /// The driver knows the port, so changes of its connection concern it.
    ready: bool,
    /// What the driver thinks of the connection.
    sent_open: bool,
    /// A connection the driver knows of ended: it is told so even if there is a new one by now.
    ended: bool,
}

impl PendingMessages {
    pub(super) fn device_ready(&mut self) {
        self.add = true;
    }

    pub(super) fn port_ready(&mut self, console: bool, named: bool) {
        self.ready = true;
        self.console = console;
        self.name = named;
    }

    pub(super) fn port_failed(&mut self) {
        *self = Self::default();
    }

    pub(super) fn client_gone(&mut self) {
        self.ended |= self.sent_open;
    }

    /// Takes the next message, if there is one; `connected` is whether the port has a client now.
    pub(super) fn next(&self, connected: bool) -> Option<DeviceMessage> {
        if self.add {
            Some(DeviceMessage::Add)
        } else if !self.ready {
            None
        } else if self.console {
            Some(DeviceMessage::Console)
        } else if self.name {
            Some(DeviceMessage::Name)
        } else if self.ended {
            Some(DeviceMessage::Open(false))
        } else {
            (connected != self.sent_open).then_some(DeviceMessage::Open(connected))
        }
    }

    pub(super) fn sent(&mut self, what: DeviceMessage) {
        match what {
            DeviceMessage::Add => self.add = false,
            DeviceMessage::Console => self.console = false,
            DeviceMessage::Name => self.name = false,
            DeviceMessage::Open(open) => {
                self.sent_open = open;
                self.ended = false;
            }
        }
    }
}
