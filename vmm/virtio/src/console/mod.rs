//! Console device (virtio 1.2 section 5.3) with several named ports, each a Unix socket.
//!
//! | queue | | |
//! |---|---|---|
//! | 0, 1 | port 0, the console | to the guest, from the guest |
//! | 2, 3 | control | to the guest, from the guest |
//! | 2n+2, 2n+3 | port n | to the guest, from the guest |
//!
//! The VMM listens; a port has one client at a time and a second one is refused. The guest sees
//! the port open while a client is there. What the guest writes without a client is dropped. What
//! a client sends while no guest process has the port open waits in the socket. When the guest
//! process closes the port, or the guest resets, the client is hung up on.
//!
//! Not offered: console size, emergency write, ports that come and go.
#![forbid(unsafe_code)]

mod control;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod port;
mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use event_manager::{EventOps, Events};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{
    ActivateError, Activation, Backlog, Device, DeviceConfig, FixedConfig, Interrupt, QueueError,
};
use control::DriverMessage;
use port::{Port, Queues, Tokens};
use spec::queue::Role;

/// The most ports, the console included.
pub const MAX_PORTS: usize = 32;

/// The longest name of a port, in bytes; a driver's control buffer has to hold it.
pub const MAX_NAME: usize = 64;

/// Descriptors in each queue.
const QUEUE_SIZE: u16 = 128;

/// The most control messages taken before other devices have their turn.
const CONTROL_BUDGET: usize = 32;

/// A port to make: its name in the guest (`/dev/virtio-ports/NAME`), and where its client connects.
#[derive(Debug)]
pub struct NamedPort {
    /// At most [`MAX_NAME`] bytes, not empty.
    pub name: String,
    /// Already bound, so that nothing has to be opened later.
    pub listener: UnixListener,
}

/// Why a console device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// There would be more than [`MAX_PORTS`].
    #[error("{0} ports are more than the {MAX_PORTS} a guest can have; leave some out")]
    TooManyPorts(usize),
    /// Empty, too long, or used twice.
    #[error(
        "the port name '{0}' is empty, longer than {MAX_NAME} bytes, or used twice; choose another"
    )]
    Name(String),
    /// The process has no file descriptor left, or the like.
    #[error("a port cannot be set up")]
    Host(#[from] io::Error),
}

/// A console device with named ports (virtio 1.2 section 5.3).
pub struct Console {
    backlog: Backlog,
    ports: Vec<Port>,
    queue_sizes: Vec<u16>,
    running: Option<Running>,
}

struct Running {
    interrupt: Arc<dyn Interrupt>,
    /// To the guest and from it, if the multiport feature was negotiated.
    control: Option<(CheckedQueue, CheckedQueue)>,
}

impl Console {
    /// Makes the device. Port 0 is the console; without a listener what the guest writes to it is
    /// dropped. The named ports get the numbers from 1 on.
    pub fn new(console: Option<UnixListener>, named: Vec<NamedPort>) -> Result<Self, ConsoleError> {
        let count = named.len() + 1;
        if count > MAX_PORTS {
            return Err(ConsoleError::TooManyPorts(count));
        }
        let mut ports = vec![Port::new(None, console)?];
        for NamedPort { name, listener } in named {
            let taken = ports.iter().any(|port| port.name() == name);
            if taken || name.is_empty() || name.len() > MAX_NAME {
                return Err(ConsoleError::Name(name));
            }
            ports.push(Port::new(Some(name), Some(listener))?);
        }
        Ok(Self {
            backlog: Backlog::new()?,
            queue_sizes: vec![QUEUE_SIZE; 2 * count + 2],
            ports,
            running: None,
        })
    }

    /// Does `work` on the running device, tells the guest what it has yet to be told, and keeps
    /// the promises of `Progress` and of ended clients.
    fn run(
        &mut self,
        work: impl FnOnce(&mut [Port], &mut Running) -> Result<Progress, QueueError>,
    ) {
        let Some(running) = &mut self.running else { return };
        let worked = work(&mut self.ports, running).and_then(|progress| {
            running.send_pending(&mut self.ports)?;
            Ok(progress)
        });
        match worked {
            Ok(Progress::Emptied) => {}
            Ok(Progress::Unfinished) => self.backlog.again(),
            Err(error) => {
                driver_error!("virtio-console", &error);
                running.interrupt.needs_reset();
                self.stop();
            }
        }
        if self.ports.iter().any(Port::has_ended_client) {
            self.backlog.again();
        }
    }

    fn stop(&mut self) {
        self.running = None;
        for port in &mut self.ports {
            port.stop();
        }
    }
}

impl Running {
    /// Takes what the guest says on the control queue.
    fn listen(&mut self, ports: &mut [Port]) -> Result<Progress, QueueError> {
        let Some((_, from_guest)) = &mut self.control else { return Ok(Progress::Emptied) };
        let index = spec::queue::CONTROL_OUT;
        from_guest.serve(&*self.interrupt, index, CONTROL_BUDGET, |chain| {
            if let Ok(raw) = chain.reader().read_array() {
                handle_message(ports, DriverMessage::parse(raw));
            }
            Ok(0)
        })
    }

    /// Tells the guest what it has yet to be told, as far as it has room. Each port has a handful
    /// of messages at most, so this ends.
    fn send_pending(&mut self, ports: &mut [Port]) -> Result<(), QueueError> {
        let Some((to_guest, _)) = &mut self.control else { return Ok(()) };
        'ports: for (number, port) in (0..).zip(ports) {
            while let Some(what) = port.next_message() {
                let Some(chain) = to_guest.pop_or_wait()? else { break 'ports };
                let mut message = chain.writer();
                let name = if what == control::DeviceMessage::Name { port.name() } else { "" };
                let too_small = |_| QueueError::Request("a control buffer without room");
                message.write_all(&what.bytes(number)).map_err(too_small)?;
                message.write_all(name.as_bytes()).map_err(too_small)?;
                to_guest.add_used(chain, spec::CONTROL_BYTES + name.len())?;
                port.sent(what);
            }
        }
        to_guest.announce(&*self.interrupt, spec::queue::CONTROL_IN)
    }
}

fn handle_message(ports: &mut [Port], message: DriverMessage) {
    match message {
        DriverMessage::DeviceReady(true) => ports.iter_mut().for_each(Port::device_ready),
        DriverMessage::PortReady(number, ready) => {
            if let Some(port) = ports.get_mut(number as usize) {
                port.port_ready(ready);
            }
        }
        DriverMessage::PortOpen(number, open) => {
            if let Some(port) = ports.get_mut(number as usize) {
                port.guest_opened(open);
            }
        }
        DriverMessage::DeviceReady(false) | DriverMessage::Other => {}
    }
}

/// Moves everything that can be moved on any port.
fn pump_all(ports: &mut [Port], running: &mut Running) -> Result<Progress, QueueError> {
    let mut all = running.listen(ports)?;
    for port in ports {
        if port.pump(&*running.interrupt)? == Progress::Unfinished {
            all = Progress::Unfinished;
        }
    }
    Ok(all)
}

impl Device for Console {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        RING_FEATURES | spec::F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        let mut space = vec![0; spec::CONFIG_MAX_NR_PORTS];
        space.extend(u32::try_from(self.ports.len()).unwrap_or(1).to_le_bytes());
        Arc::new(FixedConfig(space))
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let memory = Arc::new(memory);
        let mut queues: Vec<_> = queues
            .into_iter()
            .map(|queue| queue.map(|queue| CheckedQueue::new(queue, &memory, features, u32::MAX)))
            .collect();
        let mut take = |index: usize| {
            queues.get_mut(index).and_then(Option::take).ok_or(ActivateError::QueueMissing(index))
        };

        let multiport = features & spec::F_MULTIPORT != 0;
        let control = if multiport {
            Some((take(spec::queue::CONTROL_IN)?, take(spec::queue::CONTROL_OUT)?))
        } else {
            None
        };
        for (number, port) in self.ports.iter_mut().enumerate() {
            let first = spec::queue::input(number);
            // The driver may leave out the queues of ports it does not want, but not the first.
            let port_queues = match (take(first), take(first + 1)) {
                (Ok(input), Ok(output)) => Some(Queues { first, input, output, unsent: None }),
                (Err(missing), _) | (_, Err(missing)) if number == 0 => return Err(missing),
                _ => None,
            };
            port.start(port_queues, !multiport && number == 0);
        }
        self.running = Some(Running { interrupt, control });
        Ok(())
    }

    fn reset(&mut self) {
        self.stop();
        if self.ports.iter().any(Port::has_ended_client) {
            self.backlog.again();
        }
    }

    fn queue_notified(&mut self, index: usize) {
        self.run(|ports, running| match spec::queue::role(index) {
            Role::Input(port) => match ports.get_mut(port) {
                Some(port) => port.receive(&*running.interrupt),
                None => Ok(Progress::Emptied),
            },
            Role::Output(port) => match ports.get_mut(port) {
                Some(port) => port.transmit(&*running.interrupt),
                None => Ok(Progress::Emptied),
            },
            // What the guest says may open a port whose client has been waiting.
            Role::ControlOutput => pump_all(ports, running),
            Role::ControlInput => Ok(Progress::Emptied), // `run` tells
        });
    }

    fn register(&mut self, ops: &mut EventOps) {
        self.backlog.register(ops);
        for (number, port) in (0..).zip(&mut self.ports) {
            port.register(tokens(number), ops);
        }
    }

    fn host_event(&mut self, events: Events, ops: &mut EventOps) {
        if events.data() == Backlog::TOKEN {
            self.backlog.take();
        }
        for (number, port) in (0..).zip(&mut self.ports) {
            let tokens = tokens(number);
            if events.data() == tokens.listener {
                if port.accept(tokens, ops) == Progress::Unfinished {
                    self.backlog.again();
                }
            } else if events.data() == tokens.client {
                port.client_event(events.event_set());
            }
        }
        self.run(pump_all);
        for port in &mut self.ports {
            port.reap(ops);
        }
    }
}

fn tokens(port: u32) -> Tokens {
    let listener = Backlog::TOKEN + 1 + 2 * port;
    Tokens { listener, client: listener + 1 }
}
