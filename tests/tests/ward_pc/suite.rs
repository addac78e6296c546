//! The tests that run in the simulated ward PC, by what they are about.

mod agent;
mod bad_input;
mod budgets;
mod clipboard;
mod cuts;
mod escape;
mod fleet;
mod flood;
mod hang;
mod hardening;
mod hid;
mod images;
mod installed;
mod outlive;
mod passthrough;
mod pci;
mod pointers;
mod pressure;
mod renewal;
mod seat;
mod seat_trouble;
mod sleep;
mod updates;
mod usb;
mod vmm;
mod volume;
