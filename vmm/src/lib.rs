//! bulkhead-vmm: a small KVM virtual machine monitor for one x86_64 Linux guest.
//!
//! ```text
//!  cli -> VmSpec ----> machine ------------------------------------------------+
//!                        |  builds                                             | runs
//!        memory, boot, acpi, kvm::{Vm, Interrupts}, pci::Bus, devices    vCPU threads, I/O threads,
//!                                                                        main event loop, api
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`cli`], [`spec_fd`] | the two ways to a `VmSpec`: options, or JSON on a descriptor from the agent |
//! | [`machine`] | building the machine, running it, resetting it |
//! | [`memory`], [`layout`] | guest RAM, and the one map of its physical addresses |
//! | [`boot`], [`acpi`] | loading a kernel (bzImage, PVH), and the tables it reads |
//! | [`kvm`], [`vcpu`] | KVM's objects; vCPU threads and what may be said to them |
//! | [`heartbeat`] | by which a thread that hangs is told from one that has nothing to do |
//! | [`seat`], [`usb`], [`api`], [`listen`] | what comes from outside: the seat link, usbredir, the control socket |
//! | [`serial`], [`rtc`], [`power`], [`port_io`] | what a PC has besides PCI |
//! | [`sandbox`] | namespaces, Landlock, seccomp by thread: closed before the first guest instruction |
//!
//! PCI, virtio, xHCI and VFIO are crates of their own.
//!
//! A guest is hostile: everything reachable from a vCPU exit or a virtqueue is total. `unsafe`
//! stands only in [`memory`], [`kvm`] and [`spec_fd`], where a mapping or a syscall needs it.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are halves and bytes of wider values; lengths and indices are checked"
)]

pub mod acpi;
mod allocator;
pub mod api;
pub mod boot;
pub mod cli;
pub mod heartbeat;
pub mod kvm;
pub mod layout;
pub mod listen;
pub mod machine;
pub mod memory;
pub mod port_io;
pub mod power;
pub mod rtc;
pub mod sandbox;
pub mod seat;
pub mod serial;
pub mod spec_fd;
pub mod usb;
pub mod vcpu;
