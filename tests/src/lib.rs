//! The simulated ward PC and the end-to-end tests that run on it.
//!
//! QEMU emulates a PC with nested virtualisation, an IOMMU and two NICs on two simulated networks;
//! Bulkhead runs in it as on a ward PC, with stock Debian kernels as guests. A test says what it wants
//! in a few lines:
//!
//! ```text
//! let pc = WardPc::start(&networks)?;
//! pc.bind_vfio("0000:00:05.0")?;
//! let guest = Guest::start(&pc, "clinical", &["--vfio", "0000:00:05.0"])?;
//! guest.configure("10.1.0.5/24")?;
//! assert!(guest.reaches("10.1.0.1")?);
//! ```
#![allow(clippy::indexing_slicing, reason = "serde_json values are indexed by key")]

pub mod agent;
pub mod budgets;
pub mod compliance;
pub mod confinement;
pub mod desktops;
pub mod guest;
pub mod installed;
pub mod isolation;
pub mod measure;
pub mod measure_builds;
pub mod measure_installed;
pub mod measure_seat;
pub mod measure_usb;
pub mod network;
pub mod patience;
pub mod peers;
pub mod power_cut;
pub mod qemu;
pub mod qmp;
pub mod runner;
pub mod seat;
pub mod usb_device;
pub mod ward;
pub mod wardpc;
mod watch;

#[doc(hidden)]
pub use linkme;
pub use tests_macros::ward_test;

pub use guest::Guest;
pub use network::Network;
pub use wardpc::WardPc;

/// What went wrong, with everything a person needs to see why.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Result of a test or a step of one.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Fails a test unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Failure(format!($($message)+)));
        }
    };
}
