//! What a function is, by its class code (PCI Code and ID Assignment 1.11, chapter 1).

use std::fmt;

/// Base class, subclass and programming interface: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub u32);

/// Base classes and subclasses that something here depends on.
mod code {
    pub(super) const STORAGE: u8 = 0x01;
    pub(super) const NETWORK: u8 = 0x02;
    pub(super) const DISPLAY: u8 = 0x03;
    pub(super) const MULTIMEDIA: u8 = 0x04;
    pub(super) const MEMORY: u8 = 0x05;
    pub(super) const BRIDGE: u8 = 0x06;
    pub(super) const COMMUNICATION: u8 = 0x07;
    pub(super) const SYSTEM: u8 = 0x08;
    pub(super) const PROCESSOR: u8 = 0x0b;
    pub(super) const OTHER: u8 = 0xff;

    pub(super) const HOST_BRIDGE: u16 = 0x0600;
    pub(super) const ISA_BRIDGE: u16 = 0x0601;
    pub(super) const PCI_BRIDGE: u16 = 0x0604;
    pub(super) const SERIAL_PORT: u16 = 0x0700;
    pub(super) const PARALLEL_PORT: u16 = 0x0701;
    pub(super) const SD_HOST: u16 = 0x0805;
    pub(super) const IOMMU: u16 = 0x0806;
    pub(super) const SYSTEM_OTHER: u16 = 0x0880;
    pub(super) const USB: u16 = 0x0c03;
    pub(super) const SMBUS: u16 = 0x0c05;
    pub(super) const IPMI: u16 = 0x0c07;
    pub(super) const SERIAL_BUS_OTHER: u16 = 0x0c80;
}

impl Class {
    /// Returns the base class, the upper byte.
    #[must_use]
    pub const fn base(self) -> u8 {
        (self.0 >> 16 & 0xff) as u8
    }

    /// Returns base class and subclass.
    #[must_use]
    pub const fn sub(self) -> u16 {
        (self.0 >> 8 & 0xffff) as u16
    }

    /// Returns whether it is a network controller, wired or not.
    #[must_use]
    pub const fn is_network(self) -> bool {
        self.base() == code::NETWORK
    }

    /// Returns whether it is an Ethernet controller.
    #[must_use]
    pub const fn is_ethernet(self) -> bool {
        self.sub() == 0x0200
    }

    /// Returns whether it is a USB controller.
    #[must_use]
    pub const fn is_usb(self) -> bool {
        self.sub() == code::USB
    }

    /// Returns what part of the PC itself this is, if it is one: the PC cannot run, or cannot keep a guest
    /// confined, once a guest programs it.
    #[must_use]
    pub const fn part_of_the_pc(self) -> Option<&'static str> {
        Some(match (self.base(), self.sub()) {
            (_, code::HOST_BRIDGE) => "the host bridge",
            (_, code::ISA_BRIDGE) => "the ISA bridge",
            (_, code::PCI_BRIDGE) => "a PCI bridge",
            (code::BRIDGE, _) => "a bridge",
            (_, code::IOMMU) => "the IOMMU",
            (_, code::SMBUS) => "the SMBus, on which memory modules and sensors are",
            (_, code::SERIAL_BUS_OTHER) => {
                "the controller of the firmware's flash or another internal bus"
            }
            (code::MEMORY, _) => "memory of the PC itself",
            (code::PROCESSOR, _) => "a processor",
            (code::SYSTEM, code::SD_HOST | code::SYSTEM_OTHER) => return None,
            (code::SYSTEM, _) => "an interrupt controller, a timer or another part of the board",
            _ => return None,
        })
    }

    /// Returns whether this PC can do without it while a guest has another function of its group, and it
    /// cannot do harm either. `same_device`: it is a function of the same card or chip.
    #[must_use]
    pub const fn is_spare(self, same_device: bool) -> bool {
        match self.sub() {
            code::SERIAL_PORT | code::PARALLEL_PORT => true,
            // A card's own further functions. What hangs on them is looked at by whoever asks.
            code::USB | code::IPMI | code::SD_HOST => same_device,
            _ => match self.base() {
                code::NETWORK | code::MULTIMEDIA => true,
                code::OTHER => same_device,
                _ => false,
            },
        }
    }
}

impl fmt::Display for Class {
    /// Writes it in words, as far as a person needs them to recognise the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match (self.base(), self.sub()) {
            (_, code::SERIAL_PORT) => "serial port",
            (_, code::PARALLEL_PORT) => "parallel port",
            (_, code::SD_HOST) => "SD card reader",
            (_, code::USB) => "USB controller",
            (_, code::IPMI) => "management controller",
            (_, code::SMBUS) => "SMBus",
            (_, code::SERIAL_BUS_OTHER) => "SPI or another internal bus",
            (_, code::HOST_BRIDGE) => "host bridge",
            (_, code::ISA_BRIDGE) => "ISA bridge",
            (_, code::PCI_BRIDGE) => "PCI bridge",
            (_, code::IOMMU) => "IOMMU",
            (_, 0x0200) => "Ethernet",
            (_, 0x0280) => "Wi-Fi or other network",
            (code::STORAGE, _) => "disk controller",
            (code::NETWORK, _) => "network",
            (code::DISPLAY, _) => "graphics card",
            (code::MULTIMEDIA, _) => "sound or video",
            (code::MEMORY, _) => "memory",
            (code::BRIDGE, _) => "bridge",
            (code::COMMUNICATION, _) => "communication",
            (code::SYSTEM, _) => "part of the board",
            (code::PROCESSOR, _) => "processor",
            _ => return write!(f, "class {:06x}", self.0),
        };
        f.write_str(words)
    }
}
