//! Network interfaces: a virtio network device on a tap each.

use virtio::net::{Mac, Net};
use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[requests::NETWORK],
};

fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    for net in &spec.nets {
        let tap = (builder.host.tap)(&net.tap).map_err(DeviceError::Net)?;
        let mac = net.mac.unwrap_or_else(|| Mac::derived(&net.tap));
        let net = Net::new(tap, mac).map_err(DeviceError::Host)?;
        let worker = builder.virtio(Box::new(net))?;
        builder.parts.main_loop.push(worker);
    }
    Ok(())
}

#[cfg(test)]
mod requests {
    use crate::machine::roles::{BUFFER, Requests};

    pub(super) const NETWORK: Requests = Requests {
        kind: 1,
        functions: 1,
        usual: |driver| {
            // Frames both ways.
            for _ in 0..4 {
                driver.request(0, &[], &[BUFFER]);
            }
            driver.ask(1, &[&[0; 12], &[0xff; 60]], &[]);
        },
        unanswered: |driver| {
            driver.request(1, &[&[0; 12], &[0xff; 60]], &[]);
        },
    };
}
