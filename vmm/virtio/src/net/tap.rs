//! A tap interface of the host: opening it, and what it may offload.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::spec::{HEADER_BYTES, feature};

/// Why a tap could not be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Empty, or longer than an interface name can be.
    #[error("tap '{0}': an interface name has 1 to 15 bytes and no slash; check the name")]
    Name(String),
    /// There is no such interface.
    #[error(
        "tap '{0}': no such interface; create it first: ip tuntap add dev {0} mode tap user $USER"
    )]
    Missing(String),
    /// The interface is something else.
    #[error(
        "tap '{0}': not a tap interface of one queue; delete it and create it with: ip tuntap add dev {0} mode tap"
    )]
    NotATap(String),
    /// The kernel has no tap driver.
    #[error("tap '{0}': /dev/net/tun does not exist; load the driver: modprobe tun")]
    NoDriver(String),
    /// The process may not use it.
    #[error(
        "tap '{0}': not permitted; create it for this user (ip tuntap add dev {0} mode tap user $USER) and give it access to /dev/net/tun"
    )]
    NotPermitted(String),
    /// Another process has it open.
    #[error("tap '{0}': in use by another VMM; stop that one, or create another tap")]
    InUse(String),
    /// The tap cannot be opened for another reason.
    #[error("tap '{name}': cannot be opened")]
    Host {
        /// The name of the tap.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An open tap interface that carries whole Ethernet frames behind a virtio header.
#[derive(Debug)]
pub struct Tap {
    file: File,
    offloads: Offloads,
}

/// What the host's stack can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offloads {
    /// Checksums and TCP segmentation, and the fragmentation of UDP if `true`.
    Tap { udp: bool },
    /// None, and none to be switched: a socket that stands in for a tap.
    #[cfg(any(test, feature = "fuzzing"))]
    StandIn,
}

impl Tap {
    /// Opens the existing interface `name`, non-blocking.
    pub fn open(name: &str) -> Result<Self, TapError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(TapError::Name(name.into()));
        }
        // The kernel would create a missing one, if we may, and leave it behind down and unwired.
        match nix::net::if_::if_nametoindex(name) {
            Ok(_) => {}
            Err(Errno::ENODEV | Errno::ENXIO) => return Err(TapError::Missing(name.into())),
            Err(error) => {
                return Err(TapError::Host { name: name.into(), source: error.into() });
            }
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => TapError::NoDriver(name.into()),
                io::ErrorKind::PermissionDenied => TapError::NotPermitted(name.into()),
                _ => TapError::Host { name: name.into(), source: error },
            })?;
        ioctl::attach(&file, name).map_err(|error| match error {
            Errno::EPERM | Errno::EACCES => TapError::NotPermitted(name.into()),
            Errno::EBUSY => TapError::InUse(name.into()),
            Errno::EINVAL => TapError::NotATap(name.into()),
            _ => TapError::Host { name: name.into(), source: error.into() },
        })?;
        Self::from_file(file).map_err(|source| TapError::Host { name: name.into(), source })
    }

    /// Takes a tap that somebody else opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub fn from_file(file: File) -> io::Result<Self> {
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        ioctl::set_header_length(&file, HEADER_BYTES)?;
        let all = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        // Kernels came and went without it.
        let udp = ioctl::set_offloads(&file, all | libc::TUN_F_UFO).is_ok();
        ioctl::set_offloads(&file, 0)?;
        Ok(Self { file, offloads: Offloads::Tap { udp } })
    }

    /// Takes a socket that keeps frames apart in place of a tap.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn stand_in(file: File) -> Self {
        Self { file, offloads: Offloads::StandIn }
    }

    /// Returns the features whose work this tap does, both ways.
    pub(super) fn features(&self) -> u64 {
        let udp = match self.offloads {
            Offloads::Tap { udp } => udp,
            #[cfg(any(test, feature = "fuzzing"))]
            Offloads::StandIn => true,
        };
        let tcp = feature::CSUM
            | feature::GUEST_CSUM
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::GUEST_ECN
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::HOST_ECN;
        if udp { tcp | feature::GUEST_UFO | feature::HOST_UFO } else { tcp }
    }

    /// Lets the host leave to the guest what it negotiated to take.
    pub(super) fn set_features(&self, features: u64) -> io::Result<()> {
        #[cfg(any(test, feature = "fuzzing"))]
        if self.offloads == Offloads::StandIn {
            return Ok(());
        }
        ioctl::set_offloads(&self.file, offloads(features))?;
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns the `TUN_F_*` for negotiated features. The kernel, like the specification, wants
/// checksums with everything else, and ECN only with TCP.
pub(super) fn offloads(features: u64) -> u32 {
    if features & feature::GUEST_CSUM == 0 {
        return 0;
    }
    let mut offloads = libc::TUN_F_CSUM;
    if features & feature::GUEST_TSO4 != 0 {
        offloads |= libc::TUN_F_TSO4;
    }
    if features & feature::GUEST_TSO6 != 0 {
        offloads |= libc::TUN_F_TSO6;
    }
    if features & feature::GUEST_ECN != 0 && offloads & (libc::TUN_F_TSO4 | libc::TUN_F_TSO6) != 0 {
        offloads |= libc::TUN_F_TSO_ECN;
    }
    if features & feature::GUEST_UFO != 0 {
        offloads |= libc::TUN_F_UFO;
    }
    offloads
}

mod ioctl {
    //! The three `TUNSET*` calls of Linux's `if_tun.h`.
    #![allow(unsafe_code, reason = "ioctls")]

    use std::fs::File;
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;

    nix::ioctl_write_ptr_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_vnet_hdr_sz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);

    pub(super) fn attach(file: &File, name: &str) -> Result<(), Errno> {
        // SAFETY: an interface request of zeroes is a valid one, with an empty name.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open and the request lives through the call. The caller has
        // checked that the name leaves room for its terminator.
        unsafe { set_iff(file.as_raw_fd(), &request) }.map(drop)
    }

    pub(super) fn set_header_length(file: &File, bytes: usize) -> Result<(), Errno> {
        let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open, and the kernel reads one integer.
        unsafe { set_vnet_hdr_sz(file.as_raw_fd(), &bytes) }.map(drop)
    }

    pub(super) fn set_offloads(file: &File, offloads: u32) -> Result<(), Errno> {
        let offloads = libc::c_int::try_from(offloads).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open; the argument is a plain integer.
        unsafe { set_offload(file.as_raw_fd(), offloads) }.map(drop)
    }
}
