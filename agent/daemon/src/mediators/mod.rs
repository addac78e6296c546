//! The parts of the agent that ask the monitor for permits.

mod clipboard;
mod mediator;
mod usb;

use std::path::PathBuf;

use monitor::MediatorId;
use monitor::break_glass::BREAK_GLASS;
use seat::ToMediators;

use self::clipboard::ClipboardClient;
use self::mediator::{Client, Start};
use self::usb::UsbClient;
use super::DaemonError;
use super::renewal::RENEWAL;
use base::layout::Layout;
use config::machine::DomainHardware;
use inforce::active::POLICY;

pub(super) use self::mediator::{Duties, Mediator, Place, Rules};

/// One table: the mediators with a thread of their own, and whatever is done with each of them.
macro_rules! mediators {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)+) => {
        /// The mediators with a thread of their own. They end in this order.
        pub(super) struct Mediators { $($(#[$doc])* pub(super) $name: $type,)+ }

        /// All that the monitor knows.
        pub(super) const ALL: &[MediatorId] = &[POLICY, BREAK_GLASS, RENEWAL, $(<$type as Client>::ID),+];

        impl Mediators {
            pub(super) fn start(place: Place<'_>) -> Result<Self, DaemonError> {
                Ok(Self { $($name: Start::start(place)?,)+ })
            }

            /// Lists the paths of their sockets for a domain.
            pub(super) fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf> {
                [$(<$type as Start>::sockets(layout, entry)),+].concat()
            }

            pub(super) fn each(&self) -> impl Iterator<Item = &dyn Mediator> {
                [$(&self.$name as &dyn Mediator),+].into_iter()
            }

            /// Returns each, to be changed.
            pub(super) fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Mediator> {
                [$(&mut self.$name as &mut dyn Mediator),+].into_iter()
            }

            /// Returns the one that the monitor knows by this.
            pub(super) fn find(&mut self, id: MediatorId) -> Option<&mut dyn Mediator> {
                $(if id == <$type as Client>::ID { return Some(&mut self.$name); })+
                None
            }
        }
    };
}

mediators! {
    /// What is copied and pasted. It ends first: devices take seconds, in which a guest could take what is offered to it and nobody would
    /// write that down.
    clipboard: ClipboardClient,
    usb: UsbClient,
}

impl Mediators {
    /// Returns what the seat's thread tells those that listen.
    pub(super) fn listener(&self) -> seat::MediatorListener {
        let listeners: Vec<_> = self.each().filter_map(Duties::listener).collect();
        Box::new(move |what: ToMediators| listeners.iter().for_each(|tell| tell(what)))
    }
}

#[cfg(test)]
mod tests;
