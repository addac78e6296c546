//! The language: what an officer can write, one kind of rule a file, each type with the code that reads it.
//!
//! Everything here exists only once it is known to be well formed: names that resolve, sizes in range, patterns that
//! compile. What remains to be judged afterwards is what the rules *do*, which is the lint's business.

mod break_glass;
mod chord;
mod clipboard;
pub(crate) mod coherence;
mod detector;
mod domain;
mod egress;
mod expect;
mod hotkeys;
mod time_of_day;
mod usb;
mod vocabulary;

pub use crate::terms::{MediaType, Name, RuleId, UsbClass};
pub use break_glass::{BreakGlass, REASONS_MAX};
pub use chord::{Chord, Key, Modifiers};
pub use clipboard::{ClipboardAction, ClipboardRule};
pub use domain::{Colour, Domain, DomainId, Network, Persistence, Priority};
pub use egress::{Egress, Prefix, Protocol};
pub use expect::{Expectation, ExpectedRequest};
pub use hotkeys::Hotkeys;
pub use time_of_day::TimeOfDay;
pub use usb::{DeviceMatch, InputRule, UsbAction, UsbRule};
pub use vocabulary::Head;

pub(crate) use vocabulary::{Vocabulary, already_taken, no_domain};

/// Domains of the largest policy: what the decisions' index takes grows with the square of it.
pub const DOMAINS_MAX: usize = 32;
