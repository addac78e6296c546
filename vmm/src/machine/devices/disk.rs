//! Disks: a virtio block device each.

use std::time::Duration;

use virtio::blk::{Blk, Disk, HELPERS, SLOW, ThreadWatch};
use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};
use crate::heartbeat::Heartbeat;
use crate::sandbox::Role;

/// Under test every request is worth a helper, so that helpers are seen under their filter.
const WORTH_A_HELPER: Duration = if cfg!(test) { Duration::ZERO } else { SLOW };

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[requests::DISK],
};

fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    for (index, disk) in spec.disks.iter().enumerate() {
        let id = disk.id.clone().unwrap_or_else(|| format!("disk{index}"));
        let disk = Disk::open(&disk.path, disk.readonly, &id).map_err(DeviceError::Disk)?;
        builder.parts.disk_file_bytes_max =
            builder.parts.disk_file_bytes_max.max(disk.writable_file_bytes());
        let heartbeats = [(); HELPERS].map(|()| Heartbeat::resting());
        let watches = heartbeats.iter().map(|it| Box::new(it.clone()) as Box<dyn ThreadWatch>);
        let blk = Blk::with_helpers(disk, WORTH_A_HELPER, watches.collect())
            .map_err(DeviceError::Host)?;
        let worker = builder.virtio(Box::new(blk))?;
        builder.parts.helpers.extend(heartbeats.map(|it| (format!("blk{index}"), it)));
        builder.parts.own_threads.push((format!("blk{index}"), Role::Block, worker));
    }
    Ok(())
}

#[cfg(test)]
mod requests {
    use crate::machine::roles::Requests;

    pub(super) const DISK: Requests = Requests {
        kind: 2,
        functions: 2,
        usual: |driver| {
            // Read, write, flush, identify, discard, write zeroes, and what there is not.
            let header = |kind: u32| [&kind.to_le_bytes()[..], &[0; 12]].concat();
            let range = [&[0; 8][..], &8u32.to_le_bytes(), &[0; 4]].concat();
            driver.ask(0, &[&header(0)], &[512, 1]);
            driver.ask(0, &[&header(1), &[7; 512]], &[1]);
            driver.ask(0, &[&header(4)], &[1]);
            driver.ask(0, &[&header(8)], &[20, 1]);
            for kind in [11, 13] {
                driver.ask(0, &[&header(kind), &range], &[1]);
            }
            driver.ask(0, &[&header(77)], &[1]);
        },
        unanswered: |driver| {
            driver.request(0, &[&[0; 16]], &[512, 1]);
        },
    };
}
