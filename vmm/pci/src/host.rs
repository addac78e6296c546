//! What a PCI function asks of the machine around it.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// The address and data a device writes to raise a message-signalled interrupt (PCI Express 5.0,
/// section 7.7.1). Guest-chosen, so it may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// Address of the write, upper and lower half joined.
    pub address: u64,
    /// The 32 bits that are written there.
    pub data: u32,
}

/// Why an interrupt vector could not be had or set.
#[derive(Debug, thiserror::Error)]
pub enum MsiError {
    /// Every interrupt number the VMM sets aside is taken.
    #[error("no free interrupt vector: all {limit} are in use; give the guest fewer devices")]
    Exhausted {
        /// How many there are for the whole guest.
        limit: usize,
    },
    /// KVM refused a route or an irqfd.
    #[error("KVM refused to route an interrupt")]
    Kvm(#[source] io::Error),
    /// An eventfd could not be made.
    #[error("could not create an eventfd")]
    EventFd(#[source] io::Error),
}

/// A source of interrupt vectors. It is implemented over KVM's GSI routing and irqfd.
pub trait MsiController: Send + Sync {
    /// Allocates a new vector, masked. Cheap: host resources are taken when it is first unmasked.
    fn allocate(&self) -> Result<Box<dyn MsiVector>, MsiError>;
}

/// One interrupt vector of one function.
///
/// While it is masked the irqfd is detached: what is signalled meanwhile stays in the eventfd, so
/// that no interrupt is lost, and is delivered on unmask.
pub trait MsiVector: Send + Sync {
    /// Returns the eventfd whose signal raises the interrupt (now, or at unmask). A VFIO device is given it.
    fn trigger(&self) -> &EventFd;

    /// Delivers to `message` from now on, including what was signalled while masked. Calling it on
    /// an unmasked vector changes the message.
    fn unmask(&mut self, message: MsiMessage) -> Result<(), MsiError>;

    /// Delivers nothing until the next unmask.
    fn mask(&mut self) -> Result<(), MsiError>;

    /// Returns whether something was signalled while masked and waits: the bit of the pending bit array.
    fn pending(&self) -> bool;

    /// Forgets what was signalled while masked: for a reset.
    fn clear(&mut self);
}

/// What turns guest writes to an address into eventfd signals without a userspace exit (ioeventfd).
pub trait Doorbells: Send + Sync {
    /// Attaches `fd`: each guest write of any size (1 to 8 bytes) at `address` signals it from now on.
    fn attach(&self, fd: &EventFd, address: u64) -> io::Result<()>;

    /// Undoes an [`Doorbells::attach`] with the same arguments.
    fn detach(&self, fd: &EventFd, address: u64) -> io::Result<()>;
}
