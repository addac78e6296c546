//! The permit: proof that an effect was authorised and that its audit entry is on the disk.

/// Proof that the effect described by `grant` was authorised, and that the entry which says so is on the disk.
///
/// Only the [`Monitor`](crate::Monitor) makes one, after the entry was written and synchronised. A permit is neither `Clone` nor `Copy`: an
/// effect that takes it by value happens at most once for each entry. What the permit is for cannot be changed on the way, since the grant
/// cannot be reached but by giving the permit up.
///
/// ```
/// # use monitor::Permit;
/// struct Paste(Vec<u8>);
/// fn offer(permit: Permit<Paste>) -> Vec<u8> {
///     permit.into_grant().0
/// }
/// ```
#[must_use = "what was recorded as allowed should happen, or a second entry should say that it did not"]
#[derive(Debug)]
pub struct Permit<G> {
    grant: G,
    entry: u64,
}

impl<G> Permit<G> {
    pub(crate) const fn new(grant: G, entry: u64) -> Self {
        Self { grant, entry }
    }

    /// Returns the sequence number of the audit entry.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// Returns what is permitted, for looking at it.
    #[must_use]
    pub const fn grant(&self) -> &G {
        &self.grant
    }

    /// Gives the permit up for what it permits.
    #[must_use]
    pub fn into_grant(self) -> G {
        self.grant
    }
}
