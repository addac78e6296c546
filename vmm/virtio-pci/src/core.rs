//! The device between its two users: the registers, which tell it to start and to stop, and its I/O
//! thread, which works with it for as long as it takes.
//!
//! Registers never wait for the device. What they want is left here; whoever has the device carries it
//! out, and that is mostly themselves, as it is mostly idle:
//!
//! ```text
//!   registers: ask(Start | Reset) --> wanted --+--> device idle: carried out at once
//!                                              '--> device at work: IrqLine says `stopping`, the I/O thread
//!                                                   returns, is woken by `control`, and carries it out
//! ```
//!
//! A reset is complete when the device has let go of guest memory, threads of its own included. Until then the status register does
//! not read as zero, which is what a driver waits for (virtio 1.2 sections 2.4.2 and 4.1.4.3.2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use virtio::{Activation, Device, Interrupt};
use vmm_sys_util::eventfd::EventFd;

use crate::line::IrqLine;

/// A request of the registers to the device.
pub(crate) enum DeviceRequest {
    /// Start, as the driver is ready.
    Start(Activation),
    /// Go back to the state before the start.
    Reset,
}

/// The transport without lock and threads: a register access in, what follows from it out.
pub(crate) struct Core {
    device: Mutex<Box<dyn Device>>,
    /// The latest, if it is not carried out yet. Held for an instant only; after `device` where both are.
    wanted: Mutex<Option<DeviceRequest>>,
    line: Arc<IrqLine>,
    /// Wakes the I/O thread.
    control: EventFd,
}

impl Core {
    pub(crate) fn new(device: Box<dyn Device>, line: Arc<IrqLine>, control: EventFd) -> Self {
        Self { device: Mutex::new(device), wanted: Mutex::new(None), line, control }
    }

    pub(crate) fn line(&self) -> &Arc<IrqLine> {
        &self.line
    }

    pub(crate) fn control(&self) -> &EventFd {
        &self.control
    }

    fn wanted(&self) -> MutexGuard<'_, Option<DeviceRequest>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants something of the device, for the registers, and never waits for it.
    pub(crate) fn ask(&self, wanted: DeviceRequest) {
        {
            let mut place = self.wanted();
            if matches!(wanted, DeviceRequest::Reset) {
                self.line.stop();
            }
            *place = Some(wanted);
        }
        match self.device.try_lock() {
            Ok(mut device) => self.carry_out(&mut **device),
            Err(TryLockError::Poisoned(device)) => self.carry_out(&mut **device.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        // The I/O thread carries out what could not be done here, and in any case looks at its device's
        // file descriptors anew. A full counter is a wake-up that waits.
        let _ = self.control.write(1);
    }

    /// Returns the device to the I/O thread, which alone may wait, with nothing that was wanted left undone.
    pub(crate) fn device(&self) -> MutexGuard<'_, Box<dyn Device>> {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        self.carry_out(&mut **device);
        device
    }

    /// Ends the device's own threads; on the I/O thread, as it ends.
    pub(crate) fn end(&self) {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).end();
    }

    fn carry_out(&self, device: &mut dyn Device) {
        loop {
            let Some(wanted) = self.wanted().take() else { return };
            let started = match wanted {
                DeviceRequest::Start(activation) => match device.activate(activation) {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(%error, "a virtio device could not start");
                        self.line.needs_reset();
                        false
                    }
                },
                DeviceRequest::Reset => {
                    device.reset();
                    if !device.has_let_go() {
                        // It has the I/O thread called when it has: that comes by here again.
                        self.wanted().get_or_insert(DeviceRequest::Reset);
                        return;
                    }
                    false
                }
            };
            // Something may be wanted by now that makes this one history.
            let later = self.wanted();
            if later.is_none() {
                self.line.settle(started);
                return;
            }
        }
    }
}
