//! The words that rules, requests and detectors share, each a type that knows how the policy writes it.

mod decision;
mod media_type;
pub(crate) mod name;
mod port;
mod usb_class;
mod words;

pub use decision::Decision;
pub use media_type::MediaType;
pub use name::{Name, RuleId};
pub use usb_class::UsbClass;

pub(crate) use port::check_port;
pub(crate) use words::words;
