//! `bulkhead policy new`: something to start from.

/// A commented policy for a ward PC with two domains. It denies everything; each rule that most wards want stands in it,
/// commented out. It passes [`check`](super::check()) without a warning.
pub const STARTER: &str = include_str!("starter.toml");
