//! An arbitrary byte stream plays every vCPU of a guest against a whole bus: configuration space by
//! ports and by memory, BARs wherever it puts them, resets, and the event loop in between. Nothing may
//! panic, and at most one doorbell stays for each queue.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use fuzzinput::FuzzInput;
use pci::host::Doorbells;
use pci::testing::Recorder;
use pci::{Bus, Function};
use virtio::rng::Rng;
use virtio::{Device, GuestMemory};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::{VirtioPci, spec};

const RAM: usize = 1 << 20;
/// Where the BARs start out.
const BARS: std::ops::Range<u64> = 1 << 32..1 << 33;
/// Devices on the bus, beside the host bridge.
const DEVICES: u8 = 2;
/// Steps of one stream, and turns of the event loop a step.
const STEPS_MAX: usize = 512;
const TURNS: usize = 8;

/// Addresses that ring; attaching one twice or detaching one that is not there is a bug of ours.
#[derive(Default)]
struct Bells(Mutex<Vec<u64>>);

impl Doorbells for Bells {
    fn attach(&self, _: &EventFd, address: u64) -> io::Result<()> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the kernel says when a guest puts two windows over one another.
        if bells.contains(&address) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        bells.push(address);
        Ok(())
    }

    fn detach(&self, _: &EventFd, address: u64) -> io::Result<()> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = bells.iter().position(|bell| *bell == address);
        bells.remove(at.ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// Drives a bus with two devices.
pub fn fuzz_bus(data: &[u8]) {
    let mut stream = FuzzInput::new(data);
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).expect("guest memory");
    let bells = Arc::new(Bells::default());
    let mut bus = Bus::new();
    let mut events =
        EventManager::<Arc<Mutex<dyn MutEventSubscriber + Send>>>::new().expect("an event loop");
    let mut functions = Vec::new();
    for slot in 1..=DEVICES {
        let device: Box<dyn Device> = Box::new(Rng::new().expect("the entropy device"));
        let controller = Arc::new(Recorder::default());
        let (function, worker) =
            VirtioPci::new(device, memory.clone(), controller, bells.clone()).expect("a function");
        events.add_subscriber(worker);
        functions.push(Arc::clone(&function));
        bus.add(slot, function);
    }
    bus.place_bars(0..0, BARS).expect("two BARs fit");
    for _ in 0..STEPS_MAX {
        let Some(step) = stream.byte() else { break };
        match step % 9 {
            0 => bus.ecam_write(stream.number(4), &any_data(&mut stream)),
            1 => bus.ecam_read(stream.number(4), &mut any_data(&mut stream)),
            // The registers of a device that is there.
            2 => bus.ecam_write(1 << 15 | stream.number(1), &any_data(&mut stream)),
            3 => bus.io_write(stream.number(1) as u16 % 8, &any_data(&mut stream)),
            4 => bus.io_read(stream.number(1) as u16 % 8, &mut any_data(&mut stream)),
            5 => drop(bus.mmio_write(BARS.start | stream.number(2), &any_data(&mut stream))),
            6 => drop(bus.mmio_read(BARS.start | stream.number(2), &mut any_data(&mut stream))),
            7 => {
                for _ in 0..TURNS {
                    if events.run_with_timeout(0).expect("the event loop runs") == 0 {
                        break;
                    }
                }
            }
            _ => match stream.byte().unwrap_or(0) % 8 {
                0 => bus.reset(),
                // A window the guest moved by itself, to which only the whole address leads.
                1..4 => drop(bus.mmio_write(stream.number(8), &any_data(&mut stream))),
                4..6 => drop(bus.mmio_read(stream.number(8), &mut any_data(&mut stream))),
                slot => {
                    for function in &functions {
                        let function = function.lock().unwrap_or_else(PoisonError::into_inner);
                        assert!(function.windows().iter().flatten().count() <= usize::from(slot));
                    }
                }
            },
        }
    }
    let attached = bells.0.lock().unwrap_or_else(PoisonError::into_inner).len();
    assert!(attached <= usize::from(DEVICES) * spec::QUEUES_MAX, "doorbells are left behind");
    bus.reset();
    assert!(bells.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty(), "a reset frees all");
}

/// Makes one to eight bytes of data.
fn any_data(input: &mut FuzzInput<'_>) -> Vec<u8> {
    let length = 1 << (input.byte().unwrap_or(0) % 4);
    (0..length).map(|_| input.byte().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        // Shows: K-3.1.1, K-5.6.2.
        #[test]
        fn no_stream_of_accesses_breaks_the_bus(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
            super::fuzz_bus(&data);
        }
    }
}
