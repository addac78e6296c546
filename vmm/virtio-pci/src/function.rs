//! The function on the bus: configuration space and BAR 0.

use std::sync::{Arc, Mutex};

use pci::config::{ConfigSpace, Identity};
use pci::host::{Doorbells, MsiController};
use pci::{BarIndex, BarKind, Function, Msix, Window, msix};
use virtio::{Activation, Device, DeviceConfig, GuestMemory, Interrupt};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;
use crate::common::{Common, Transition};
use crate::core::{Core, DeviceRequest};
use crate::line::IrqLine;
use crate::spec::{self, capability};
use crate::worker::VirtioPciWorker;

/// Event fds never block: a full counter is a notification that waits.
const EFD_NONBLOCK: i32 = 0o4000;
/// Bytes of a vendor capability, and where the two special ones go on (section 4.1.4).
const CAPABILITY_SIZE: u8 = 16;
const CAPABILITY_EXTENDED: u8 = 20;
/// Offset, in the PCI configuration access capability, of the data window.
const PCI_DATA: u16 = 16;

/// A virtio device on the PCI bus.
pub struct VirtioPci {
    config: ConfigSpace,
    msix_capability: u16,
    pci_capability: u16,
    common: Common,
    line: Arc<IrqLine>,
    core: Arc<Core>,
    device_config: Arc<dyn DeviceConfig>,
    memory: GuestMemory,
    doorbells: Arc<dyn Doorbells>,
    notifications: Vec<EventFd>,
    /// Whether the device was told to start, and not yet to reset.
    started: bool,
    /// Whether a reset was asked for that was not complete when last looked at.
    resetting: bool,
    /// Where the doorbells are attached now.
    window: Option<Window>,
}

impl VirtioPci {
    /// Puts `device` behind a transport. The first result goes on the bus, the second into the
    /// event loop that is to serve the device.
    ///
    /// # Errors
    /// When the device has more queues than fit, or vectors or eventfds run out.
    #[expect(clippy::type_complexity, reason = "two shared halves of one device")]
    pub fn new(
        device: Box<dyn Device>,
        memory: GuestMemory,
        msi: Arc<dyn MsiController>,
        doorbells: Arc<dyn Doorbells>,
    ) -> Result<(Arc<Mutex<Self>>, Arc<Mutex<VirtioPciWorker>>), Error> {
        let sizes = device.queue_sizes().to_vec();
        if sizes.len() > spec::QUEUES_MAX {
            return Err(Error::Queues(sizes.len()));
        }
        // One vector a queue and one for configuration changes. At most QUEUES_MAX + 1.
        let msix = Msix::new(&*msi, sizes.len() as u16 + 1)?;
        let (mut config, msix_capability, pci_capability) = config_space(&*device, &msix)?;
        let bar = BarKind::Memory64;
        config.add_bar(BAR, spec::BAR_SIZE, bar, false)?;

        let eventfd = || EventFd::new(EFD_NONBLOCK).map_err(Error::EventFd);
        let clone = |fd: &EventFd| fd.try_clone().map_err(Error::EventFd);
        let control = eventfd()?;
        let notifications = sizes.iter().map(|_| eventfd()).collect::<Result<Vec<_>, _>>()?;
        let line = Arc::new(IrqLine::new(msix, sizes.len()));
        let common = Common::new(device.features(), &sizes, Arc::clone(&line));
        let device_config = device.config();
        let core = Arc::new(Core::new(device, Arc::clone(&line), control));
        let worker = VirtioPciWorker {
            core: Arc::clone(&core),
            notifications: notifications.iter().map(clone).collect::<Result<_, _>>()?,
        };
        let function = Self {
            config,
            msix_capability,
            pci_capability,
            common,
            line,
            core,
            device_config,
            memory,
            doorbells,
            notifications,
            started: false,
            resetting: false,
            window: None,
        };
        Ok((Arc::new(Mutex::new(function)), Arc::new(Mutex::new(worker))))
    }

    /// Resets the device: complete at once, or when the device lets go ([`Self::resetting`]).
    fn reset_device(&mut self) {
        // One that never started has nothing to let go of.
        if std::mem::take(&mut self.started) {
            self.core.ask(DeviceRequest::Reset);
        }
        self.resetting = true;
        self.resetting();
    }

    /// Returns whether a reset is under way; finishes one that has become complete.
    fn resetting(&mut self) -> bool {
        if self.resetting && !self.line.stopping() {
            self.resetting = false;
            self.common.reset();
            self.device_config.reset();
        }
        self.resetting
    }

    fn activate(&mut self) {
        let queues = match self.common.queues(&self.memory) {
            Ok(queues) => queues,
            Err((queue, error)) => {
                tracing::warn!(queue, %error, "the driver set up a queue that cannot be");
                return self.common.fail();
            }
        };
        let activation = Activation {
            memory: self.memory.clone(),
            queues,
            interrupt: Arc::clone(&self.line) as Arc<dyn Interrupt>,
            features: self.common.features(),
        };
        self.started = true;
        self.core.ask(DeviceRequest::Start(activation));
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.resetting();
        if let Some(at) = within(offset, spec::COMMON, spec::COMMON_SIZE) {
            self.common.read(at, data);
        } else if let Some(at) = within(offset, spec::DEVICE, spec::DEVICE_SIZE) {
            self.device_config.read(at as usize, data);
        } else if let Some(at) = within(offset, spec::TABLE, spec::PBA - spec::TABLE) {
            self.line.msix().table_read(at, data);
        } else if let Some(at) = within(offset, spec::PBA, spec::BAR_SIZE - spec::PBA) {
            self.line.msix().pba_read(at, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let resetting = self.resetting();
        if let Some(at) = within(offset, spec::TABLE, spec::PBA - spec::TABLE) {
            self.line.msix().table_write(at, data);
        } else if resetting {
            // The driver must wait (section 4.1.4.3.2), and is not told again.
        } else if let Some(at) = within(offset, spec::COMMON, spec::COMMON_SIZE) {
            match self.common.write(at, data) {
                Transition::None => {}
                Transition::Activate => self.activate(),
                Transition::Reset => self.reset_device(),
            }
        } else if let Some(at) = within(offset, spec::DEVICE, spec::DEVICE_SIZE) {
            self.device_config.write(at as usize, data);
        } else if let Some(at) = within(offset, spec::NOTIFY, spec::NOTIFY_SIZE) {
            // Mostly the doorbell takes this before it gets here.
            let queue = (at / u64::from(spec::NOTIFY_MULTIPLIER)) as usize;
            if let Some(notification) = self.notifications.get(queue) {
                let _ = notification.write(1);
            }
        }
    }

    /// Returns the window of the PCI configuration access capability: BAR offset and length, if
    /// they are such that the guest may use them (section 4.1.4.9).
    fn pci_window(&self) -> Option<(u64, usize)> {
        let at = self.pci_capability;
        let mut fields = [0; 16];
        self.config.read(at, &mut fields);
        let [_, _, _, _, bar, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = fields;
        let offset = u64::from(u32::from_le_bytes([o0, o1, o2, o3]));
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let sound = usize::from(bar) == BAR.index()
            && matches!(length, 1 | 2 | 4)
            && offset + u64::from(length) <= spec::BAR_SIZE;
        sound.then_some((offset, length as usize))
    }

    fn is_pci_data(&self, offset: u16) -> bool {
        offset == self.pci_capability + PCI_DATA
    }

    fn move_doorbells(&mut self, now: Option<Window>) {
        let before = std::mem::replace(&mut self.window, now);
        for (fd, step) in
            self.notifications.iter().zip((0..).step_by(spec::NOTIFY_MULTIPLIER as usize))
        {
            let at = |window: Window| window.address.saturating_add(spec::NOTIFY + step);
            if let Some(window) = before
                && let Err(error) = self.doorbells.detach(fd, at(window))
            {
                tracing::debug!(%error, "a doorbell was not attached");
            }
            if let Some(window) = now
                && let Err(error) = self.doorbells.attach(fd, at(window))
            {
                // The access then comes to `write`: slower, but it works.
                tracing::debug!(%error, "a doorbell could not be attached");
            }
        }
    }
}

/// The BAR that holds everything.
const BAR: BarIndex = match BarIndex::new(0) {
    Some(bar) => bar,
    None => unreachable!(),
};

/// Returns `offset` relative to a region, if it lies in it.
fn within(offset: u64, start: u64, size: u64) -> Option<u64> {
    offset.checked_sub(start).filter(|at| *at < size)
}

fn config_space(device: &dyn Device, msix: &Msix) -> Result<(ConfigSpace, u16, u16), Error> {
    // Device types are small numbers (section 5); the ID space has room for 64.
    let kind = device.device_type();
    let id = spec::DEVICE_BASE + (kind & 0x3f) as u16;
    let mut config = ConfigSpace::new(Identity {
        vendor: spec::VENDOR,
        device: id,
        revision: spec::REVISION,
        class: spec::class(kind),
        subsystem_vendor: spec::VENDOR,
        subsystem: id,
    });
    let control = msix::CONTROL_WRITABLE.to_le_bytes();
    let bar = BAR.index() as u8;
    let body = msix.capability((bar, spec::TABLE as u32), (bar, spec::PBA as u32));
    let msix_at = config.add_capability(msix::CAPABILITY_ID, &body, &control)?;

    let mut vendor = |kind: u8, start: u64, size: u64, extra: Option<u32>, writable: &[u8]| {
        let length = if extra.is_some() { CAPABILITY_EXTENDED } else { CAPABILITY_SIZE };
        let mut body = vec![length, kind, bar, 0, 0, 0];
        body.extend((start as u32).to_le_bytes());
        body.extend((size as u32).to_le_bytes());
        body.extend(extra.map(u32::to_le_bytes).into_iter().flatten());
        config.add_capability(spec::CAPABILITY_VENDOR, &body, writable)
    };
    vendor(capability::COMMON, spec::COMMON, spec::COMMON_SIZE, None, &[])?;
    vendor(capability::ISR, spec::ISR, spec::ISR_SIZE, None, &[])?;
    vendor(capability::DEVICE, spec::DEVICE, spec::DEVICE_SIZE, None, &[])?;
    let multiplier = Some(spec::NOTIFY_MULTIPLIER);
    vendor(capability::NOTIFY, spec::NOTIFY, spec::NOTIFY_SIZE, multiplier, &[])?;
    // BAR, offset and length are the guest's to write; the data window is not stored at all.
    let writable = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let pci_at = vendor(capability::PCI, 0, 0, Some(0), &writable)?;
    Ok((config, msix_at, pci_at))
}

impl Function for VirtioPci {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        if self.is_pci_data(offset) {
            data.fill(0);
            if let Some((at, length)) = self.pci_window()
                && let Some(data) = data.get_mut(..length)
            {
                self.read(at, data);
            }
            return;
        }
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        if self.is_pci_data(offset) {
            if let Some((at, length)) = self.pci_window()
                && let Some(data) = data.get(..length)
            {
                self.write(at, data);
            }
            return;
        }
        self.config.write(offset, data);
        let control = self.msix_capability + 2;
        if offset < control + 2 && usize::from(offset) + data.len() > usize::from(control) {
            self.line.msix().set_control(self.config.word(control));
        }
    }

    fn config_space(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        if bar == BAR {
            self.read(offset, data);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        if bar == BAR {
            self.write(offset, data);
        }
    }

    fn bar_moved(&mut self, bar: BarIndex, now: Option<Window>) {
        if bar == BAR {
            self.move_doorbells(now);
        }
    }

    fn reset(&mut self) {
        self.reset_device();
        self.line.renew();
        self.config.reset();
    }

    fn is_reset(&mut self) -> bool {
        let complete = !self.resetting();
        if complete {
            // What the device signalled while it was still at work is not for the driver that comes.
            self.line.renew();
        }
        complete
    }
}
