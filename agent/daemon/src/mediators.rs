//! The parts of the agent that ask the monitor for permits.

use monitor::MediatorId;

/// One table: the type, whose every use has an arm for each of them, the names for the monitor, and the list of all.
macro_rules! mediators {
    ($($(#[$doc:meta])* $variant:ident = $id:ident: $name:literal,)+) => {
        /// A part of the agent that asks the monitor for permits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Mediator { $($(#[$doc])* $variant,)+ }

        $($(#[$doc])* pub(super) const $id: MediatorId = MediatorId::new($name);)+

        /// All, as the monitor knows them.
        pub(super) const ALL: &[MediatorId] = &[$($id),+];

        impl Mediator {
            /// The one of this name; the monitor knows no others than [`ALL`].
            pub(super) fn of(id: MediatorId) -> Option<Self> {
                $(if id == $id { return Some(Self::$variant); })+
                None
            }
        }
    };
}

mediators! {
    /// Which policy is in force.
    Policy = POLICY: "policy",
    /// Whether break-glass is open.
    BreakGlass = BREAK_GLASS: "break-glass",
    /// What is copied and pasted.
    Clipboard = CLIPBOARD: "clipboard",
    /// USB devices.
    Usb = USB: "usb",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_monitor_is_told_of_is_one_that_the_daemon_has_an_arm_for() {
        let known: Vec<_> = ALL.iter().filter_map(|id| Mediator::of(*id)).collect();
        assert_eq!(known.len(), ALL.len());
        assert_eq!(Mediator::of(MediatorId::new("nobody")), None);
    }
}
