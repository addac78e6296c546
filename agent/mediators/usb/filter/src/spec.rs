//! Numbers of the specifications: USB 2.0 chapter 9, Mass Storage Bulk-Only 1.0 (BOT), DFU 1.1.

/// `bInterfaceClass` of human interface devices.
pub(crate) const HID: u8 = 0x03;
/// `bInterfaceClass` of mass storage.
pub(crate) const MASS_STORAGE: u8 = 0x08;
/// `bInterfaceSubClass` of mass storage: the SCSI transparent command set.
pub(crate) const SCSI: u8 = 0x06;
/// `bInterfaceSubClass` that CD drives of old have: MMC commands. BOT devices with it take 12-byte CDBs.
pub(crate) const MMC: u8 = 0x02;
/// `bInterfaceSubClass` of mass storage: SFF-8070i, drives with removable media.
pub(crate) const SFF_8070I: u8 = 0x05;
/// `bInterfaceProtocol` of mass storage: Bulk-Only Transport.
pub(crate) const BULK_ONLY: u8 = 0x50;
/// `bInterfaceProtocol` of mass storage: USB Attached SCSI.
pub(crate) const UAS: u8 = 0x62;
/// Application-specific class, with DFU (subclass 1) below it.
pub(crate) const APPLICATION: u8 = 0xfe;
/// `bInterfaceSubClass` of DFU.
pub(crate) const DFU: u8 = 0x01;
/// Vendor-specific class.
pub(crate) const VENDOR: u8 = 0xff;
/// Printer class.
pub(crate) const PRINTER: u8 = 0x07;
/// Wireless controller class.
pub(crate) const WIRELESS: u8 = 0xe0;
/// Communications class and its data class.
pub(crate) const COMMUNICATIONS: u8 = 0x02;
/// Interface class of what carries the data of [`COMMUNICATIONS`].
pub(crate) const COMMUNICATIONS_DATA: u8 = 0x0a;

/// Bits 1:0 of `bmAttributes`: bulk.
pub(crate) const BULK: u8 = 2;

/// `bRequest` of standard requests (USB 3.2 table 9-5).
pub(crate) mod request {
    pub(crate) const GET_STATUS: u8 = 0;
    pub(crate) const CLEAR_FEATURE: u8 = 1;
    pub(crate) const SET_FEATURE: u8 = 3;
    pub(crate) const GET_DESCRIPTOR: u8 = 6;
    pub(crate) const GET_CONFIGURATION: u8 = 8;
    pub(crate) const SET_CONFIGURATION: u8 = 9;
    pub(crate) const GET_INTERFACE: u8 = 10;
    pub(crate) const SET_INTERFACE: u8 = 11;
    pub(crate) const SYNCH_FRAME: u8 = 12;
    pub(crate) const SET_SEL: u8 = 48;
    pub(crate) const SET_ISOCH_DELAY: u8 = 49;
}

/// Class requests of BOT (section 3).
pub(crate) const BOT_RESET: u8 = 0xff;
/// Class request of Bulk-Only Transport for the highest logical unit (1.0, section 3.2).
pub(crate) const GET_MAX_LUN: u8 = 0xfe;
