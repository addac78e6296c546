//! The function on a bus, its worker in an event loop.

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use pci::Bus;
use pci::testing::Recorder as Vectors;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::spec::{trb_type, usbcmd};
use crate::testing::{COMMANDS, EVENTS, Recorder, SEGMENT_TABLE};
use crate::{Moved, Speed, Status};

/// Where the BAR is put.
const AT: u64 = 1 << 32;
/// Configuration space of device 1.
const CONFIG: u64 = 1 << 15;

struct Machine {
    bus: Bus,
    vectors: Vectors,
    memory: GuestMemory,
    events: EventManager<Arc<Mutex<dyn MutEventSubscriber + Send>>>,
    handle: Handle<Recorder>,
}

impl Machine {
    fn new() -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let vectors = Vectors::default();
        let (function, worker, handle) =
            XhciPci::new(Ports::default(), memory.clone(), Recorder::default(), &vectors).unwrap();
        let mut events = EventManager::<Arc<Mutex<dyn MutEventSubscriber + Send>>>::new().unwrap();
        events.add_subscriber(worker);
        let mut bus = Bus::new();
        bus.add(1, function);
        bus.place_bars(0..0, AT..AT << 1).unwrap();
        bus.ecam_write(CONFIG + 4, &6_u16.to_le_bytes());
        Self { bus, vectors, memory, events, handle }
    }

    fn write(&self, at: u64, value: u32) {
        assert!(self.bus.mmio_write(AT + at, &value.to_le_bytes()));
    }

    fn read(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        assert!(self.bus.mmio_read(AT + at, &mut data));
        u32::from_le_bytes(data)
    }

    fn put(&self, at: u64, words: &[u32]) {
        for (word, at) in words.iter().zip((at..).step_by(4)) {
            self.memory.write_slice(&word.to_le_bytes(), GuestAddress(at)).unwrap();
        }
    }

    /// Starts the controller: MSI-X with vector 0 live, an event ring, a command ring, and the controller running.
    fn start(&self) {
        let mut capability = [0];
        self.bus.ecam_read(CONFIG + 0x34, &mut capability);
        let control = CONFIG + u64::from(capability[0]) + 2;
        self.write(base::TABLE, 0xfee0_0000);
        self.write(base::TABLE + 12, 0);
        self.bus.ecam_write(control, &0x8000_u16.to_le_bytes());
        self.put(SEGMENT_TABLE, &[EVENTS as u32, 0, 64, 0]);
        self.write(base::RUNTIME + 0x28, 1);
        self.write(base::RUNTIME + 0x30, SEGMENT_TABLE as u32);
        self.write(base::RUNTIME + 0x38, EVENTS as u32);
        self.write(base::RUNTIME + 0x20, 2);
        self.write(base::OPERATIONAL + 0x18, COMMANDS as u32 | 1);
        self.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
    }

    fn run(&mut self) {
        while self.events.run_with_timeout(0).unwrap() > 0 {}
    }
}

#[test]
fn a_system_finds_an_ordinary_controller() {
    let machine = Machine::new();
    let mut class = [0; 4];
    machine.bus.ecam_read(CONFIG + 8, &mut class);
    assert_eq!(class, [1, 0x30, 0x03, 0x0c]);
    assert_eq!(machine.read(0), 0x0100_0040);
}

#[test]
fn a_doorbell_is_answered_by_the_event_loop_with_a_message() {
    let mut machine = Machine::new();
    machine.start();
    machine.put(COMMANDS, &[0, 0, 0, u32::from(trb_type::NO_OP_COMMAND) << 10 | 1]);
    machine.write(base::DOORBELLS, 0);
    assert!(!machine.vectors.waiting(0), "a vCPU does no work");
    machine.run();
    assert!(machine.vectors.take(0));
    let mut code = [0];
    machine.memory.read_slice(&mut code, GuestAddress(EVENTS + 11)).unwrap();
    assert_eq!(code, [1]);
}

#[test]
fn what_happens_to_a_device_is_told_at_once() {
    let mut machine = Machine::new();
    machine.start();
    machine.run();
    let attached = machine.handle.with(|controller| {
        let port = controller.free_port(Speed::Super).unwrap();
        controller.complete(crate::TransferId::from_number(77), Status::Stall, Moved::Out(0));
        controller.attach(port, Speed::Super)
    });
    assert!(attached.is_ok());
    assert!(machine.vectors.take(0));
}

#[test]
fn a_reset_machine_has_a_reset_controller() {
    let machine = Machine::new();
    machine.start();
    machine.bus.reset();
    assert!(!machine.bus.mmio_read(AT, &mut [0; 4]), "the window is shut");
    machine.bus.ecam_write(CONFIG + 4, &6_u16.to_le_bytes());
    assert_eq!(machine.read(base::OPERATIONAL), 0);
    assert_eq!(machine.read(base::OPERATIONAL + 4), 1);
    assert_eq!(machine.vectors.live(0), None);
}
