//! What can happen with two domains' devices at one broker.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::attached::DetachReason;

/// What a device turns out to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// What a rule gives to its domain.
    Its,
    Keyboard,
    /// What no rule is about.
    Other,
    /// It does not answer.
    Unreadable,
}

/// Something that happens with a device, or that its thread does; nothing where that cannot be.
#[derive(Clone, Debug)]
pub(super) enum Does {
    ComesIn,
    Leaves,
    IsRead(Kind, String),
    /// The monitor answers what was asked for it; whether it may be recorded.
    IsAnswered(bool),
    Begins,
    /// Its content goes to the guest.
    Sends(Vec<u8>),
    IsRefused(u64),
    Ends(DetachReason),
    /// Somebody attaches it to this domain, or takes it away.
    ByHand(Option<&'static str>, u64),
    /// All that it takes for a device to be in its domain, and to send this there.
    IsUsed(Vec<u8>),
}

/// Something that concerns all devices.
#[derive(Clone, Debug)]
pub(super) enum Happens {
    Nothing,
    TimePasses,
    /// The policy of this number is put in force; whether break-glass is open.
    Rules(usize, bool),
    /// The log had failed, and is back: what was permitted is taken back.
    RecordLost,
    /// The log can be written no more.
    LogFails,
}

pub(super) fn does() -> impl Strategy<Value = Does> {
    let kind = prop::sample::select(vec![Kind::Its, Kind::Keyboard, Kind::Other, Kind::Unreadable]);
    let reason = prop::sample::select(vec![
        DetachReason::NoVmm,
        DetachReason::NoDevice("it was pulled out".to_owned()),
        DetachReason::Broken("its answers make no sense".to_owned()),
        DetachReason::Changed("its firmware is another".to_owned()),
    ]);
    let domain = prop::sample::select(vec![None, Some("clinical"), Some("internet")]);
    let content = || vec(any::<u8>(), 1..40);
    prop_oneof![
        2 => Just(Does::ComesIn),
        1 => Just(Does::Leaves),
        2 => (kind, "[a-z]{0,8}").prop_map(|(kind, name)| Does::IsRead(kind, name)),
        3 => prop::bool::weighted(0.8).prop_map(Does::IsAnswered),
        1 => Just(Does::Begins),
        2 => content().prop_map(Does::Sends),
        1 => (1..9u64).prop_map(Does::IsRefused),
        1 => reason.prop_map(Does::Ends),
        1 => (domain, 1..99u64).prop_map(|(domain, request)| Does::ByHand(domain, request)),
        3 => content().prop_map(Does::IsUsed),
    ]
}

pub(super) fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Nothing),
        3 => Just(Happens::TimePasses),
        2 => (0..3usize, any::<bool>()).prop_map(|(which, open)| Happens::Rules(which, open)),
        1 => Just(Happens::RecordLost),
        1 => Just(Happens::LogFails),
    ]
}
