//! The seat: screen, keyboard and pointer.

use std::sync::{Arc, Mutex};

use vmm_control::VmSpec;

use super::builder::{Builder, DeviceError, Kind};
use crate::sandbox::Role;
use crate::seat::Seat;

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[requests::SCREEN, requests::INPUT],
};

/// Builds screen, keyboard and pointer, if an agent is there to look, type and point.
fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    match &spec.seat_socket {
        Some(socket) => add(builder, Seat::listen(socket)?),
        None => Ok(()),
    }
}

fn add(builder: &mut Builder<'_>, seat: Seat) -> Result<(), DeviceError> {
    let Seat { gpu, keyboard, pointer, server } = seat;
    let worker = builder.virtio(Box::new(gpu))?;
    builder.parts.own_threads.push(("gpu".to_owned(), Role::Screen, worker));
    for device in [keyboard, pointer] {
        let worker = builder.virtio(Box::new(device))?;
        builder.parts.main_loop.push(worker);
    }
    builder.parts.main_loop.push(Arc::new(Mutex::new(server)));
    Ok(())
}

#[cfg(test)]
mod requests {
    use crate::machine::roles::{BUFFER, Requests};

    pub(super) const SCREEN: Requests = Requests {
        kind: 16,
        functions: 1,
        usual: |driver| {
            let command = |kind: u32, fields: &[u32]| {
                let words = [kind, 0, 0, 0, 0, 0].into_iter().chain(fields.iter().copied());
                words.flat_map(u32::to_le_bytes).collect::<Vec<_>>()
            };
            // A picture is made, shown, changed and taken away.
            for (kind, fields) in [
                (0x100, &[][..]),
                (0x10a, &[0, 0]),
                (0x101, &[1, 2, 640, 480]),
                (0x106, &[1, 1, 0x0300_0000, 0, 640 * 480 * 4, 0]),
                (0x103, &[0, 0, 640, 480, 0, 1]),
                (0x105, &[0, 0, 640, 480, 0, 0, 1, 0]),
                (0x104, &[0, 0, 640, 480, 1, 0]),
                (0x107, &[1, 0]),
                (0x102, &[1, 0]),
                (0x77, &[]),
            ] {
                driver.ask(0, &[&command(kind, fields)], &[BUFFER, BUFFER]);
            }
            driver.ask(1, &[&command(0x300, &[0, 1, 1, 0, 1, 0, 0, 0])], &[BUFFER]);
        },
        unanswered: |driver| {
            driver.request(0, &[&[&0x100u32.to_le_bytes()[..], &[0; 20]].concat()], &[BUFFER]);
        },
    };

    /// What a driver asks of keyboard and pointer.
    pub(super) const INPUT: Requests = Requests {
        kind: 18,
        functions: 2,
        usual: |driver| {
            // Events to come, lights to set.
            for _ in 0..8 {
                driver.request(0, &[], &[8]);
            }
            driver.ask(1, &[&[0x11, 0, 1, 0, 1, 0, 0, 0]], &[]);
        },
        unanswered: |driver| {
            driver.request(1, &[&[0x11, 0, 1, 0, 1, 0, 0, 0]], &[]);
        },
    };
}
