//! What of the kernel's memory for USB transfers each domain's devices have.
//!
//! Linux keeps 16 MiB for the transfers of all programs of the PC (`usbfs_memory_mb`, its default), and fails whatever is more. Each domain has the same part of
//! it, whatever the others have plugged in, so that no guest can take what another's devices need, nor tell by it what those do.

use usbfilter::{BYTES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MIN};

/// Bytes of transfers that the kernel keeps for all devices of the PC at once.
const KERNELS: usize = 16 << 20;
/// What no domain's budget has of them: it is for what is asked of devices before they are judged, and for what is not counted.
const RESERVE: usize = 4 << 20;
/// What of a device's transfers its budget leaves out: two at each of 15 interrupt endpoints, of a packet, and a control request of a page.
#[cfg(test)]
const UNCOUNTED: usize = 15 * 2 * (1024 + 512) + 4096 + 1024;

/// What each domain's devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of transfers of each device that may be with the kernel at once.
    pub(crate) bytes: u32,
    /// How many devices a domain may have at once.
    pub(crate) devices: usize,
}

impl Budget {
    /// Divides the kernel's memory among so many domains, each of which may have so many devices.
    pub(crate) fn of(domains: usize, devices: usize) -> Self {
        let domains_part = (KERNELS - RESERVE) / domains.max(1);
        let bytes = (domains_part / devices.max(1)).clamp(BYTES_IN_FLIGHT_MIN, BYTES_IN_FLIGHT_MAX);
        // With many domains a device would have too little to work: then a domain has fewer.
        let devices = devices.min(domains_part / bytes).max(1);
        Self { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), devices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Domains that may have devices: there is a number for the workers of no more.
    const DOMAINS_MAX: usize = 63;
    /// The sockets that a domain has for devices.
    const DEVICES: usize = 4;

    // Shows: C-10.
    #[test]
    fn however_many_domains_there_are_all_their_guests_together_do_not_fill_the_kernels_memory() {
        assert!((0..DOMAINS_MAX).all(|domain| worker_link::user_of_domain(domain).is_some()));
        assert_eq!(worker_link::user_of_domain(DOMAINS_MAX), None);
        for domains in 1..=DOMAINS_MAX {
            let Budget { bytes, devices } = Budget::of(domains, DEVICES);
            let bytes = usize::try_from(bytes).unwrap();
            assert!((BYTES_IN_FLIGHT_MIN..=BYTES_IN_FLIGHT_MAX).contains(&bytes), "{domains}");
            assert!((1..=DEVICES).contains(&devices), "{domains}");
            let taken = domains * devices * (bytes + UNCOUNTED);
            assert!(taken <= KERNELS - (512 << 10), "{domains} domains take {taken}");
        }
    }

    #[test]
    fn few_domains_have_as_much_as_a_device_ever_needs_and_many_have_fewer_devices() {
        let of = |domains| {
            let Budget { bytes, devices } = Budget::of(domains, DEVICES);
            (bytes >> 10, devices)
        };
        assert_eq!([of(1), of(2), of(3), of(4)], [(1024, 4), (1024, 4), (1024, 4), (768, 4)]);
        assert_eq!([of(8), of(16)], [(384, 4), (192, 4)]);
        assert_eq!([of(17), of(63)], [(192, 3), (192, 1)]);
    }
}
