//! Functions of the host, passed through.

use std::sync::{Arc, Mutex};

use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};
use crate::machine::functions::FunctionNotices;

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[],
};

fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    if spec.vfio.is_empty() {
        return Ok(());
    }
    let container = (builder.host.container)().map_err(DeviceError::Vfio)?;
    for address in &spec.vfio {
        let function = container
            .open(*address, Arc::clone(&builder.host.msi), Arc::clone(&builder.host.slots))
            .map_err(DeviceError::Vfio)?;
        let function = Arc::new(Mutex::new(function));
        builder.add(function.clone())?;
        let notices = FunctionNotices::new(function.clone()).map_err(DeviceError::Host)?;
        builder.parts.main_loop.push(Arc::new(Mutex::new(notices)));
        builder.parts.functions.push(function);
    }
    Ok(())
}
