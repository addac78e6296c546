//! The first serial port: an 8250 (rust-vmm's `vm-superio`) with a bounded output and, on a
//! terminal, an input.

mod log;
mod output;

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;

pub(crate) use log::LOG_SYSTEM_CALLS;
pub use log::{LOG_MAX, LogWriter, log};
pub use output::Output;
pub(crate) use output::SYSTEM_CALLS;

use crate::port_io::PortDevice;

/// Raises the port's interrupt line.
#[derive(Clone)]
struct Line(Arc<EventFd>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The port as the guest sees it.
pub struct Serial {
    uart: Uart<Line, NoEvents, Output>,
    line: Line,
}

impl Serial {
    /// How many ports it answers on.
    pub const PORTS: u16 = 8;

    /// Makes a port that raises `line` and prints to `output`.
    pub fn new(line: EventFd, output: Output) -> Self {
        let line = Line(Arc::new(line));
        Self { uart: Uart::new(line.clone(), output), line }
    }

    /// Takes what was typed; what the port has no room for is lost.
    #[cfg(test)]
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        let _ = self.uart.enqueue_raw_bytes(bytes);
    }
}

impl PortDevice for Serial {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            *byte = self.uart.read(offset);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            // What the output or the interrupt line cannot take is lost, as on a wire.
            let _ = self.uart.write(offset, *byte);
        }
    }

    /// Makes a new port on the same line and output. What was typed and not read goes with the old one.
    fn reset(&mut self) {
        let fresh = Uart::new(self.line.clone(), Output::Null);
        let output = std::mem::replace(&mut self.uart, fresh).into_writer();
        self.uart = Uart::new(self.line.clone(), output);
    }
}

/// Most bytes taken from the terminal at once: the UART's FIFO.
const INPUT_CHUNK: usize = 64;

/// Feeds what is typed at the terminal to the port; `Ctrl-A x` ends the VMM.
pub struct SerialInput {
    serial: Arc<Mutex<Serial>>,
    escape: bool,
    quit: Box<dyn Fn() + Send>,
}

/// `Ctrl-A`, as in QEMU's and screen's monitors.
const ESCAPE: u8 = 0x01;

impl SerialInput {
    /// Makes the port. `quit` is called when the person asks to leave.
    pub fn new(serial: Arc<Mutex<Serial>>, quit: Box<dyn Fn() + Send>) -> Self {
        Self { serial, escape: false, quit }
    }

    /// Takes the escape sequences out of what was typed.
    fn filter(&mut self, typed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (std::mem::take(&mut self.escape), byte) {
                (false, ESCAPE) => self.escape = true,
                (true, b'x') => (self.quit)(),
                (true, ESCAPE) | (false, _) => plain.push(byte),
                (true, _) => {}
            }
        }
        plain
    }
}

impl MutEventSubscriber for SerialInput {
    fn init(&mut self, ops: &mut EventOps) {
        // A standard input that cannot be polled (a file, /dev/null) gives no input; that is fine.
        if let Err(error) = ops.add(Events::new(&io::stdin(), EventSet::IN)) {
            tracing::debug!(%error, fd = io::stdin().as_raw_fd(), "no input for the serial port");
        }
    }

    fn process(&mut self, _: Events, ops: &mut EventOps) {
        let serial = Arc::clone(&self.serial);
        let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
        // The guest sets the pace: what it has not read stays in the terminal.
        let room = serial.uart.fifo_capacity().min(INPUT_CHUNK);
        if room == 0 {
            // Level-triggered: look again shortly instead of spinning.
            std::thread::sleep(std::time::Duration::from_millis(1));
            return;
        }
        let mut typed = [0; INPUT_CHUNK];
        let typed = match io::stdin().lock().read(typed.get_mut(..room).unwrap_or_default()) {
            Ok(0) | Err(_) => {
                let _ = ops.remove(Events::empty(&io::stdin()));
                return;
            }
            Ok(n) => typed.get(..n).unwrap_or_default(),
        };
        let plain = self.filter(typed);
        let _ = serial.uart.enqueue_raw_bytes(&plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> EventFd {
        EventFd::new(libc::EFD_NONBLOCK).unwrap()
    }

    #[test]
    fn what_the_guest_prints_arrives_and_the_port_is_always_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (output, writer) = log(&path).unwrap();
        let mut serial = Serial::new(line(), output);
        for byte in b"hello\n" {
            serial.write(0, &[*byte]);
            let mut status = [0];
            serial.read(5, &mut status);
            assert_eq!(status[0] & 0x60, 0x60, "transmitter empty");
        }
        drop((serial, writer));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello\n");
    }

    #[test]
    fn every_access_a_guest_can_make_is_harmless() {
        let mut serial = Serial::new(line(), Output::Null);
        for offset in 0..u16::MAX {
            let mut data = [0xff; 4];
            for width in [1, 2, 4] {
                serial.read(offset, &mut data[..width]);
                serial.write(offset, &data[..width]);
            }
        }
    }

    #[test]
    fn the_escape_key_reaches_the_guest_only_when_doubled() {
        let quits = Arc::new(Mutex::new(0));
        let count = Arc::clone(&quits);
        let serial = Arc::new(Mutex::new(Serial::new(line(), Output::Null)));
        let mut input = SerialInput::new(serial, Box::new(move || *count.lock().unwrap() += 1));
        assert_eq!(input.filter(b"a\x01\x01b\x01zc\x01"), b"a\x01bc");
        assert_eq!(*quits.lock().unwrap(), 0);
        assert_eq!(input.filter(b"xd"), b"d", "a sequence may be split over two reads");
        assert_eq!(*quits.lock().unwrap(), 1);
    }
}
