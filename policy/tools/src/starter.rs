//! `bulkhead policy new`: something to start from.

/// A commented policy for a ward PC with two domains. It denies everything; each rule that most wards want stands in it,
/// commented out. It passes [`check`](super::check()) without a warning.
pub const STARTER: &str = include_str!("starter.toml");

/// Returns it with a serial that PCs take: those that ran with the policy that they are delivered with refuse another one with its serial, 1.
#[must_use]
pub fn first_policy() -> String {
    STARTER.replacen("\nserial = 1 ", "\nserial = 2 ", 1)
}
