//! Numbers and layouts of virtio 1.2 section 5.3.

/// Section 5.3.1.
pub(super) const DEVICE_ID: u32 = 3;

/// Section 5.3.2: which queue is what. Ports from 1 on have theirs after the control queues.
pub(super) mod queue {
    pub(in super::super) const CONTROL_IN: usize = 2;
    pub(in super::super) const CONTROL_OUT: usize = 3;

    /// What a queue carries, towards the guest (`Input`) or from it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) enum Role {
        Input(usize),
        Output(usize),
        ControlInput,
        ControlOutput,
    }

    /// Returns the input queue of port number `port`; its output queue is the next.
    pub(in super::super) const fn input(port: usize) -> usize {
        if port == 0 { 0 } else { 2 * port + 2 }
    }

    pub(in super::super) const fn role(index: usize) -> Role {
        let port = if index < 2 { 0 } else { (index.saturating_sub(2)) / 2 };
        match index {
            CONTROL_IN => Role::ControlInput,
            CONTROL_OUT => Role::ControlOutput,
            _ if index.is_multiple_of(2) => Role::Input(port),
            _ => Role::Output(port),
        }
    }
}

/// Section 5.3.3: ports are numbered and named over the control queues.
pub(super) const F_MULTIPORT: u64 = 1 << 1;

/// `virtio_console_config`, section 5.3.4: columns and rows (2 bytes each, not offered), then the
/// number of ports and the emergency write register (4 bytes each, the latter not offered).
pub(super) const CONFIG_MAX_NR_PORTS: usize = 4;

/// Length of `virtio_console_control` in bytes, section 5.3.6.2: port, event, value.
pub(super) const CONTROL_BYTES: usize = 8;

/// Control events, section 5.3.6.2.
pub(super) mod event {
    pub(in super::super) const DEVICE_READY: u16 = 0;
    pub(in super::super) const PORT_ADD: u16 = 1;
    pub(in super::super) const PORT_READY: u16 = 3;
    pub(in super::super) const CONSOLE_PORT: u16 = 4;
    pub(in super::super) const PORT_OPEN: u16 = 6;
    pub(in super::super) const PORT_NAME: u16 = 7;
}
