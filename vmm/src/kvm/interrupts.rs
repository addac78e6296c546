//! Message-signalled interrupts over KVM's GSI routing table and irqfd.
//!
//! The table is one array for the whole VM and is replaced as a whole, so one lock owns it. A
//! vector takes a number from it when it is first unmasked and gives it back when dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use nix::libc::EFD_NONBLOCK;
use pci::host::{MsiController, MsiError, MsiMessage, MsiVector};
use vmm_sys_util::eventfd::EventFd;

use crate::layout::gsi;

/// Most vectors of one guest: sixteen devices with sixteen queues, far below KVM's 4096 routes.
const VECTORS_MAX: usize = 1024;

/// The VM's interrupt routes.
pub struct Interrupts {
    vm: Arc<VmFd>,
    routes: Mutex<BTreeMap<u32, MsiMessage>>,
}

impl Interrupts {
    /// Returns the I/O APIC pins routed one to one, and no message vector yet.
    pub fn new(vm: Arc<VmFd>) -> Result<Arc<Self>, MsiError> {
        let this = Arc::new(Self { vm, routes: Mutex::new(BTreeMap::new()) });
        this.commit(&this.lock())?;
        Ok(this)
    }

    /// Ties an eventfd to an I/O APIC pin: signalling it raises an edge there.
    pub fn connect_pin(&self, trigger: &EventFd, pin: u32) -> Result<(), MsiError> {
        self.vm.register_irqfd(trigger, pin).map_err(kvm)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, MsiMessage>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives KVM the table as it should be.
    fn commit(&self, routes: &BTreeMap<u32, MsiMessage>) -> Result<(), MsiError> {
        let pins = (0..gsi::IOAPIC_PINS).map(pin_entry);
        let messages = routes.iter().map(|(&number, &message)| message_entry(number, message));
        let entries: Vec<_> = pins.chain(messages).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| MsiError::Exhausted { limit: VECTORS_MAX })?;
        self.vm.set_gsi_routing(&table).map_err(kvm)
    }

    /// Routes `number`, or a new one, to `message`.
    fn route(&self, number: Option<u32>, message: MsiMessage) -> Result<u32, MsiError> {
        let mut routes = self.lock();
        let number = match number {
            Some(number) => number,
            None => {
                let first = gsi::IOAPIC_PINS;
                let limit = first + VECTORS_MAX as u32;
                (first..limit)
                    .find(|n| !routes.contains_key(n))
                    .ok_or(MsiError::Exhausted { limit: VECTORS_MAX })?
            }
        };
        if routes.insert(number, message) != Some(message) {
            self.commit(&routes)?;
        }
        Ok(number)
    }

    fn release(&self, number: u32) {
        // The stale route in KVM's table is harmless: no irqfd is attached to it any more.
        self.lock().remove(&number);
    }
}

fn kvm(e: kvm_ioctls::Error) -> MsiError {
    MsiError::Kvm(io::Error::from_raw_os_error(e.errno()))
}

fn pin_entry(pin: u32) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: pin, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin };
    entry
}

fn message_entry(number: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: number, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

/// A handle on [`Interrupts`] for the devices.
pub struct KvmMsi(pub Arc<Interrupts>);

impl MsiController for KvmMsi {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, MsiError> {
        Ok(Box::new(Vector {
            interrupts: Arc::clone(&self.0),
            trigger: EventFd::new(EFD_NONBLOCK).map_err(MsiError::EventFd)?,
            number: None,
            attached: false,
        }))
    }
}

struct Vector {
    interrupts: Arc<Interrupts>,
    trigger: EventFd,
    number: Option<u32>,
    attached: bool,
}

impl MsiVector for Vector {
    fn trigger(&self) -> &EventFd {
        &self.trigger
    }

    fn unmask(&mut self, message: MsiMessage) -> Result<(), MsiError> {
        let number = self.interrupts.route(self.number, message)?;
        self.number = Some(number);
        if !self.attached {
            // KVM looks at the eventfd when it attaches: what waits in it is delivered now.
            self.interrupts.vm.register_irqfd(&self.trigger, number).map_err(kvm)?;
            self.attached = true;
        }
        Ok(())
    }

    fn mask(&mut self) -> Result<(), MsiError> {
        if let (true, Some(number)) = (self.attached, self.number) {
            self.interrupts.vm.unregister_irqfd(&self.trigger, number).map_err(kvm)?;
            self.attached = false;
        }
        Ok(())
    }

    fn pending(&self) -> bool {
        if self.attached {
            return false;
        }
        // An eventfd cannot be looked at, only taken from; what was taken goes back.
        match self.trigger.read() {
            Ok(count) => self.trigger.write(count).is_ok(),
            Err(_) => false,
        }
    }

    fn clear(&mut self) {
        // Non-blocking: an empty eventfd is what we want anyway.
        let _ = self.trigger.read();
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        if let Err(error) = self.mask() {
            tracing::warn!(fd = self.trigger.as_raw_fd(), %error, "an interrupt stays attached");
        }
        if let Some(number) = self.number {
            self.interrupts.release(number);
        }
    }
}
