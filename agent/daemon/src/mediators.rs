//! The parts of the agent that ask the monitor for permits.

use monitor::MediatorId;

/// Which policy is in force.
pub(super) const POLICY: MediatorId = MediatorId::new("policy");
/// Whether break-glass is open.
pub(super) const BREAK_GLASS: MediatorId = MediatorId::new("break-glass");
pub(super) const CLIPBOARD: MediatorId = MediatorId::new("clipboard");
/// USB devices.
pub(super) const USB: MediatorId = MediatorId::new("usb");
/// All.
pub(super) const ALL: [MediatorId; 4] = [POLICY, BREAK_GLASS, CLIPBOARD, USB];
