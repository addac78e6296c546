//! A part of a device, whose other interfaces a driver of the host's has: nothing is done here that would take them from it. No reset of the
//! device, no choice of a configuration; what a guest asks for of these is done to its own interfaces, or answered.

use nusb::MaybeFuture;
use usbredir::{Body, Status};

use super::Export;

impl Export {
    pub(super) fn is_part(&self) -> bool {
        !self.served.share.is_whole()
    }

    /// Resets its own interfaces as far as these can be: what waits ends, each is in its first setting, and its endpoints are not halted and
    /// begin anew (USB 2.0, sections 9.4.5 and 9.4.10).
    pub(super) fn reset_part(&mut self) {
        self.drop_pipes();
        let interfaces: Vec<_> =
            self.interfaces.iter().map(|(number, own)| (*number, own.clone())).collect();
        for (number, interface) in interfaces {
            // One that does not take it, or is gone, says so with its next transfer.
            let _ = interface.set_alt_setting(0).wait();
            self.open_pipes(number, &interface);
        }
    }

    /// Answers a change of configuration: the device is in its only one and stays there.
    pub(super) fn configure_part(&mut self, id: u64, configuration: u8) {
        let status = match configuration {
            same if same == self.configuration() => Status::Success,
            0 => {
                self.reset_part();
                Status::Success
            }
            _ => Status::Stall,
        };
        self.describe();
        self.queue_packet(id, Body::ConfigurationStatus { status, configuration });
    }
}
