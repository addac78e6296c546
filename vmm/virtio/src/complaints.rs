//! A cap on what a guest can make us log.

/// How many complaints a device writes to the log in its life.
const MAX_COMPLAINTS: u8 = 16;

/// Lets the first [`MAX_COMPLAINTS`] through. A guest can break its rings, reset and break them
/// again as fast as it likes; the log must not grow with that.
#[derive(Debug)]
pub(crate) struct Complaints {
    device: &'static str,
    left: u8,
}

impl Complaints {
    pub(crate) fn new(device: &'static str) -> Self {
        Self { device, left: MAX_COMPLAINTS }
    }

    /// Something the guest did wrong.
    pub(crate) fn guest(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.write(error, "the guest's driver broke the rules; the device waits for a reset");
    }

    /// Something that went wrong on our side.
    pub(crate) fn host(&mut self, error: &(dyn std::error::Error + 'static), what: &str) {
        self.write(error, what);
    }

    fn write(&mut self, error: &(dyn std::error::Error + 'static), what: &str) {
        let Some(left) = self.left.checked_sub(1) else { return };
        self.left = left;
        let device = self.device;
        tracing::warn!(device, error, "{what}");
        if left == 0 {
            tracing::warn!(device, "nothing more will be logged about this device");
        }
    }
}
