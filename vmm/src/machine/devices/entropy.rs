//! The source of entropy.

use virtio::rng::Rng;
use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[requests::ENTROPY],
};

fn build(builder: &mut Builder<'_>, _: &VmSpec) -> Result<(), DeviceError> {
    let rng = Rng::new().map_err(DeviceError::Host)?;
    let worker = builder.virtio(Box::new(rng))?;
    builder.parts.main_loop.push(worker);
    Ok(())
}

#[cfg(test)]
mod requests {
    use crate::machine::roles::{BUFFER, Requests};

    pub(super) const ENTROPY: Requests = Requests {
        kind: 4,
        functions: 1,
        usual: |driver| {
            driver.ask(0, &[], &[64]);
        },
        unanswered: |driver| {
            driver.request(0, &[], &[BUFFER]);
        },
    };
}
