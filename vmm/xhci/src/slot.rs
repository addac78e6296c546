//! A device slot: the guest's handle on one device (4.5.3).

use std::collections::BTreeMap;

use crate::backend::{Backend, PortId};
use crate::endpoint::Endpoint;
use crate::port::Port;
use crate::spec::slot_state;

#[derive(Debug)]
pub(crate) struct Slot {
    /// Guest-physical address of the output device context; 0 until the device is addressed.
    pub(crate) context: u64,
    /// The slot's state, one of [`slot_state`].
    pub(crate) state: u32,
    /// Which device: its port, and which of the devices that were there.
    pub(crate) device: Option<(PortId, u64)>,
    /// By device context index.
    pub(crate) endpoints: BTreeMap<u8, Endpoint>,
    /// A bit for each device context index that has something to do.
    pub(crate) ready: u32,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            context: 0,
            state: slot_state::ENABLED,
            device: None,
            endpoints: BTreeMap::new(),
            ready: 0,
        }
    }

    /// Returns where the device is, if it still is.
    pub(crate) fn port(&self, ports: &[Port]) -> Option<PortId> {
        let (id, generation) = self.device?;
        let port = ports.get(usize::from(id.number()).checked_sub(1)?)?;
        (port.enabled_generation() == Some(generation)).then_some(id)
    }

    pub(crate) fn is_at(&self, id: PortId) -> bool {
        self.device.is_some_and(|(port, _)| port == id)
    }

    /// Takes away the endpoints that `which` names, and all transfers of theirs.
    pub(crate) fn remove(
        &mut self,
        ports: &[Port],
        backend: &mut dyn Backend,
        which: impl Fn(u8) -> bool,
    ) {
        let port = self.port(ports);
        self.endpoints.retain(|index, endpoint| {
            let goes = which(*index);
            if goes {
                endpoint.abandon(port, backend);
                self.ready &= !(1 << index);
            }
            !goes
        });
    }
}
