//! Named ports: one virtio console device for all of them.

use virtio::console::{Console, NamedPort};
use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};
use crate::listen;

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[requests::CONSOLE],
};

/// Builds one console device for all named ports; none without a port.
fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    if spec.ports.is_empty() {
        return Ok(());
    }
    let mut ports = Vec::with_capacity(spec.ports.len());
    for port in &spec.ports {
        let name = port.name.clone();
        match listen::streams(&port.socket) {
            Ok(listener) => ports.push(NamedPort { name, listener }),
            Err(source) => return Err(DeviceError::Port { name, source }),
        }
    }
    let console = Console::new(None, ports).map_err(DeviceError::Console)?;
    let worker = builder.virtio(Box::new(console))?;
    builder.parts.main_loop.push(worker);
    Ok(())
}

#[cfg(test)]
mod requests {
    use crate::machine::roles::{BUFFER, Requests};

    pub(super) const CONSOLE: Requests = Requests {
        kind: 3,
        functions: 1,
        usual: |driver| {
            // A port is opened, written to and read from.
            for queue in [0, 2, 4] {
                for _ in 0..4 {
                    driver.request(queue, &[], &[BUFFER]);
                }
            }
            for (port, event) in [(0u32, 0u16), (0, 3), (1, 3), (0, 6), (1, 6)] {
                let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &[1, 0]].concat();
                driver.ask(3, &[&message], &[]);
            }
            for queue in [1, 5] {
                driver.request(queue, &[b"from the guest"], &[]);
            }
        },
        unanswered: |driver| {
            driver.request(3, &[&[0, 0, 0, 0, 0, 0, 1, 0]], &[]);
        },
    };
}
