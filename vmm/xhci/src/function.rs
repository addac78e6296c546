//! The controller as a PCI function: configuration space, BAR 0, MSI-X.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use pci::config::{ConfigSpace, Identity};
use pci::host::MsiController;
use pci::{BarIndex, BarKind, Function, Msix, Window, msix};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::{Backend, Interrupt};
use crate::controller::{Controller, Ports};
use crate::memory::GuestMemory;
use crate::spec::{BAR_SIZE, base};
use crate::worker::{Handle, XhciWorker};

/// Event fds never block: a full counter is a notification that waits.
const EFD_NONBLOCK: i32 = 0o4000;
/// BAR 0, the only one.
const BAR: BarIndex = match BarIndex::new(0) {
    Some(bar) => bar,
    None => unreachable!(),
};
/// One interrupter, one vector.
const VECTORS: u16 = 1;
/// What every system knows as a standard xHCI without quirks: QEMU's.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x000d,
    revision: 1,
    class: [0x0c, 0x03, 0x30],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Why a controller could not be put on the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An interrupt vector could not be had or set.
    #[error("no interrupt vectors")]
    Msi(#[from] pci::host::MsiError),
    /// Its capabilities or BARs do not fit the configuration space.
    #[error("configuration space")]
    Layout(#[from] pci::config::LayoutError),
    /// An eventfd could not be made.
    #[error("could not create an eventfd")]
    EventFd(#[source] std::io::Error),
    /// A timer could not be made.
    #[error("could not create a timer")]
    Timer(#[source] std::io::Error),
}

/// MSI-X as the controller sees it.
struct Line(Arc<Mutex<Msix>>);

impl Interrupt for Line {
    fn raise(&self) -> bool {
        let msix = lock(&self.0);
        if msix.enabled() {
            msix.trigger(0);
        }
        msix.enabled()
    }
}

/// An xHCI on the PCI bus.
pub struct XhciPci<B> {
    config: ConfigSpace,
    msix_capability: u16,
    msix: Arc<Mutex<Msix>>,
    handle: Handle<B>,
}

impl<B: Backend> XhciPci<B> {
    /// Makes a controller with its devices behind `backend`. The first result goes on the bus, the
    /// second into the event loop, the third to whoever feeds it devices.
    ///
    /// # Errors
    /// When vectors or eventfds run out.
    #[expect(clippy::type_complexity, reason = "three shares of one device")]
    pub fn new(
        ports: Ports,
        memory: GuestMemory,
        backend: B,
        msi: &dyn MsiController,
    ) -> Result<(Arc<Mutex<Self>>, Arc<Mutex<XhciWorker<B>>>, Handle<B>), Error> {
        let msix = Msix::new(msi, VECTORS)?;
        let mut config = ConfigSpace::new(IDENTITY);
        let bar = BAR.index() as u8;
        let body = msix.capability((bar, base::TABLE as u32), (bar, base::PBA as u32));
        let writable = msix::CONTROL_WRITABLE.to_le_bytes();
        let msix_capability = config.add_capability(msix::CAPABILITY_ID, &body, &writable)?;
        config.add_bar(BAR, BAR_SIZE, BarKind::Memory64, false)?;

        let msix = Arc::new(Mutex::new(msix));
        let line = Box::new(Line(Arc::clone(&msix)));
        let kick = EventFd::new(EFD_NONBLOCK).map_err(Error::EventFd)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .map_err(|error| Error::Timer(error.into()))?;
        let handle = Handle::new(Controller::new(ports, memory, backend, line), kick, timer);
        let worker = Arc::new(Mutex::new(XhciWorker(handle.clone())));
        let function = Self { config, msix_capability, msix, handle: handle.clone() };
        Ok((Arc::new(Mutex::new(function)), worker, handle))
    }
}

impl<B: Backend> Function for XhciPci<B> {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        let control = self.msix_capability + 2;
        if offset < control + 2 && usize::from(offset) + data.len() > usize::from(control) {
            lock(&self.msix).set_control(self.config.word(control));
            self.handle.lock().interrupts_changed();
        }
    }

    fn config_space(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match (bar, offset) {
            (BAR, ..base::TABLE) => self.handle.lock().read(offset, data),
            (BAR, base::TABLE..base::PBA) => {
                lock(&self.msix).table_read(offset - base::TABLE, data);
            }
            (BAR, base::PBA..) => lock(&self.msix).pba_read(offset - base::PBA, data),
            _ => {}
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        match (bar, offset) {
            (BAR, ..base::TABLE) => self.handle.write(offset, data),
            (BAR, base::TABLE..base::PBA) => {
                lock(&self.msix).table_write(offset - base::TABLE, data);
            }
            _ => {}
        }
    }

    fn bar_moved(&mut self, _: BarIndex, _: Option<Window>) {}

    fn reset(&mut self) {
        self.handle.lock().reset();
        lock(&self.msix).reset();
        self.config.reset();
    }
}

fn lock(msix: &Mutex<Msix>) -> MutexGuard<'_, Msix> {
    msix.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
