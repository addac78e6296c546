//! The devices on I/O ports: what every PC has had since the eighties, and the power registers.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::{MachineError, eventfd};
use crate::kvm::Interrupts;
use crate::layout::{gsi, port};
use crate::port_io::PortBus;
use crate::power::{Power, Request, ResetLine};
use crate::rtc::Rtc;
use crate::serial::{Output, Serial};
use crate::vcpu::{Event, Events};

/// The bus, and the two devices that something besides the guest talks to.
pub(super) struct Legacy {
    pub(super) ports: PortBus,
    pub(super) power: Arc<Mutex<Power>>,
    pub(super) serial: Arc<Mutex<Serial>>,
}

/// Builds them; the serial port prints to `output`.
pub(super) fn build(
    interrupts: &Interrupts,
    events: &Arc<Events>,
    output: Output,
) -> Result<Legacy, MachineError> {
    let (power_line, serial_line) = (eventfd()?, eventfd()?);
    interrupts.connect_pin(&power_line, gsi::EVENTS)?;
    interrupts.connect_pin(&serial_line, gsi::SERIAL)?;
    Ok(assemble([power_line, serial_line], events, output, Rtc::default()))
}

fn assemble(
    [power_line, serial_line]: [EventFd; 2],
    events: &Arc<Events>,
    output: Output,
    rtc: Rtc,
) -> Legacy {
    let ask = || {
        let events = Arc::clone(events);
        Box::new(move |request: Request| events.raise(Event::Guest(request)))
    };
    let power = Arc::new(Mutex::new(Power::new(power_line, ask())));
    let serial = Arc::new(Mutex::new(Serial::new(serial_line, output)));
    let mut ports = PortBus::default();
    ports.add(port::KEYBOARD, ResetLine::PORTS, Arc::new(Mutex::new(ResetLine::new(ask()))));
    ports.add(port::POWER, Power::PORTS, power.clone());
    ports.add(port::RTC, Rtc::PORTS, Arc::new(Mutex::new(rtc)));
    ports.add(port::SERIAL, Serial::PORTS, serial.clone());
    Legacy { ports, power, serial }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes a machine's ports at a moment at which the clock stands still.
    fn machine() -> Legacy {
        let line = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let events = Arc::new(Events::new(line()));
        assemble([line(), line()], &events, Output::Null, Rtc::showing(|| 1_709_210_096))
    }

    #[derive(Clone, Debug)]
    enum Access {
        Read(u16, usize),
        Write(u16, Vec<u8>),
        Typed(Vec<u8>),
        Button,
    }

    fn access() -> impl Strategy<Value = Access> {
        let port = prop_oneof![
            4 => port::SERIAL..port::SERIAL + Serial::PORTS,
            1 => port::POWER..port::POWER + Power::PORTS,
            2 => port::RTC..port::RTC + Rtc::PORTS,
            1 => Just(port::KEYBOARD),
        ];
        let data = prop_oneof![4 => prop::collection::vec(any::<u8>(), 1), 1 => prop::collection::vec(any::<u8>(), 1..5)];
        prop_oneof![
            2 => (port.clone(), 1usize..5).prop_map(|(port, width)| Access::Read(port, width)),
            6 => (port, data).prop_map(|(port, data)| Access::Write(port, data)),
            1 => prop::collection::vec(any::<u8>(), 1..80).prop_map(Access::Typed),
            1 => Just(Access::Button),
        ]
    }

    fn apply(machine: &Legacy, access: &Access) -> Vec<u8> {
        match access {
            Access::Read(port, width) => {
                let mut data = vec![0; *width];
                machine.ports.read(*port, &mut data);
                return data;
            }
            Access::Write(port, data) => machine.ports.write(*port, data),
            Access::Typed(bytes) => machine.serial.lock().unwrap().type_in(bytes),
            Access::Button => Power::press_button(&machine.power).unwrap(),
        }
        Vec::new()
    }

    proptest! {
        #[test]
        fn after_a_reset_the_ports_answer_as_on_a_new_machine_whatever_was_done_before(
            before in prop::collection::vec(access(), 0..64),
            after in prop::collection::vec(access(), 0..64),
        ) {
            let (used, fresh) = (machine(), machine());
            for access in &before {
                apply(&used, access);
            }
            used.ports.reset();
            // Every register once, and then whatever a guest does next.
            let registers = (port::SERIAL..port::SERIAL + Serial::PORTS)
                .chain(port::POWER..port::POWER + Power::PORTS)
                .chain(port::RTC..port::RTC + Rtc::PORTS)
                .map(|port| Access::Read(port, 1));
            for access in registers.chain(after) {
                prop_assert_eq!(apply(&used, &access), apply(&fresh, &access), "{:?}", access);
            }
        }
    }
}
