//! An arbitrary byte stream plays the guest and the devices against a controller: registers, guest
//! memory, doorbells, completions right and wrong, plugging and pulling. Nothing may panic, every step
//! is bounded, and a reset leaves nothing in flight.

use fuzzinput::FuzzInput;
use vm_memory::{Bytes, GuestAddress};

use crate::backend::{Moved, Payload, PortId, Speed, Status, TransferId};
use crate::spec::{CHUNK_BYTES, base, trb_type};
use crate::testing::{Driver, EVENTS, INPUT, RINGS};

/// Actions of one stream.
const ACTIONS_MAX: usize = 1024;
/// Steps after an action; a hostile ring may have no end, so the controller need not come to rest.
const STEPS: usize = 32;

/// Drives a controller with a driver and devices that do what `data` says.
pub fn fuzz_controller(data: &[u8]) {
    let mut stream = FuzzInput::new(data);
    let mut driver = Driver::new();
    if stream.below(4) != 0 {
        driver.plug_stick();
        driver.plug(Speed::Super);
    }
    for _ in 0..ACTIONS_MAX {
        let Some(action) = stream.byte() else { break };
        act(action, &mut stream, &mut driver);
        for _ in 0..STEPS {
            if driver.controller.step() == crate::Progress::Idle {
                break;
            }
        }
        let backend = driver.controller.backend_mut();
        backend.cancelled.clear();
        backend.stopping.clear();
        backend.resets.clear();
        backend.stopped.clear();
        for transfer in &backend.transfers {
            let length = match transfer.request.payload() {
                Payload::Out(data) => data.len(),
                Payload::In(most) => *most as usize,
            };
            assert!(length <= CHUNK_BYTES as usize, "a chunk is larger than the cap");
        }
    }
    driver.controller.reset();
    assert_eq!(driver.controller.in_flight(), 0, "a reset leaves nothing in flight");
}

fn act(action: u8, stream: &mut FuzzInput<'_>, driver: &mut Driver) {
    match action % 12 {
        0 => drop(driver.controller.write(stream.number(2) % 0x4000, &{
            let mut data = stream.number(8).to_le_bytes().to_vec();
            data.truncate(1 << stream.below(4));
            data
        })),
        1 => {
            let group = [base::OPERATIONAL, base::PORTS, base::RUNTIME + 0x20, base::DOORBELLS];
            let at = group.get(stream.below(4) as usize).copied().unwrap_or(0);
            driver.write(at + 4 * stream.below(16), stream.number(4) as u32);
        }
        2 => driver.controller.read(stream.number(2) % 0x4000, &mut [0; 8]),
        3 => {
            let data = stream.number(8).to_le_bytes();
            let _ = driver.memory.write_slice(&data, GuestAddress(any_address(stream)));
        }
        4 => {
            // A TRB that has a chance of being one.
            let (at, to) = (any_address(stream) & !0xf, any_address(stream));
            let control = stream.number(2) as u32 & 0x3ff | (stream.below(24) as u32) << 10;
            let words = [to as u32, (to >> 32) as u32, stream.number(3) as u32, control];
            for (word, step) in words.iter().zip((0..).step_by(4)) {
                let at = GuestAddress(at.saturating_add(step));
                let _ = driver.memory.write_slice(&word.to_le_bytes(), at);
            }
        }
        5 => {
            let (slot, index) = (1 + stream.below(2) as u8, stream.below(6) as u8);
            driver.write(base::DOORBELLS + 4 * u64::from(slot), index.into());
        }
        6 | 7 => transfer(stream, driver),
        8 => {
            let commands = trb_type::ENABLE_SLOT as u64;
            let kind = commands + stream.below(16);
            let control = (kind as u32) << 10 | (stream.number(2) as u32) << 16 | 1;
            let index = stream.below(8);
            let at = crate::testing::COMMANDS + 16 * index;
            driver.put(at, &[any_address(stream) as u32, 0, 0, control]);
            driver.write(base::DOORBELLS, 0);
        }
        9 => {
            let port = PortId(stream.below(10) as u8);
            let speeds = [Speed::Low, Speed::Full, Speed::High, Speed::Super];
            match speeds.get(stream.below(8) as usize) {
                Some(speed) => drop(driver.controller.attach(port, *speed)),
                None => driver.controller.detach(port),
            }
        }
        10 => {
            let any = driver.controller.backend().transfers.len() as u64;
            let at = stream.below(any.max(1)) as usize;
            if any > 0 {
                let transfer = driver.controller.backend_mut().transfers.remove(at);
                let moved = if stream.below(2) == 0 {
                    Moved::In(vec![0x5a; stream.number(2) as usize])
                } else {
                    Moved::Out(stream.number(3) as u32)
                };
                driver.controller.complete(transfer.id, any_status(stream), moved);
            }
        }
        _ => {
            let id = TransferId::from_number(stream.number(8));
            driver.controller.complete(id, any_status(stream), Moved::Out(0));
            while driver.next_event().is_some() {}
            let at = driver.event_address() | 8;
            driver.write_wide(base::RUNTIME + 0x38, at);
        }
    }
}

/// Asks a transfer as a driver would ask for it, but for its numbers.
fn transfer(stream: &mut FuzzInput<'_>, driver: &mut Driver) {
    let index = [1, 2, 3, 5].get(stream.below(4) as usize).copied().unwrap_or(1);
    if !driver.has_ring(1, index) {
        return;
    }
    if index == 1 && stream.below(4) != 0 {
        driver.queue_control(1, stream.number(8).to_le_bytes());
        driver.write(base::DOORBELLS + 4, 1);
        return;
    }
    let kinds = [trb_type::NORMAL, trb_type::EVENT_DATA, trb_type::NO_OP, trb_type::NORMAL];
    for _ in 0..=stream.below(4) {
        let kind = kinds.get(stream.below(4) as usize).copied().unwrap_or(0);
        let flags = stream.number(2) as u32 & 0x3fe;
        let (at, length) = (stream.number(3), stream.number(3) as u32 & 0x1_ffff);
        driver.queue(1, index, at, length, u32::from(kind) << 10 | flags);
    }
    driver.write(base::DOORBELLS + 4, index.into());
}

fn any_status(input: &mut FuzzInput<'_>) -> Status {
    match input.below(6) {
        0 => Status::Stall,
        1 => Status::Babble,
        2 => Status::Error,
        3 => Status::Stopped,
        _ => Status::Success,
    }
}

/// Returns an address that is mostly somewhere something is.
fn any_address(input: &mut FuzzInput<'_>) -> u64 {
    match input.below(8) {
        0 => input.number(8),
        1 => input.number(3),
        2 => EVENTS + input.number(1) * 16,
        3 => INPUT + input.number(1) * 4,
        4 => 0x1000 + input.number(2),
        _ => RINGS + 0x8000 + input.number(2) * 4 % 0x1_0000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        // Shows: K-3.1.1, K-5.6.2.
        #[test]
        fn no_guest_and_no_device_breaks_the_controller(
            data in proptest::collection::vec(any::<u8>(), 0..4096)
        ) {
            super::fuzz_controller(&data);
        }
    }
}
