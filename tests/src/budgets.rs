//! `tests/budgets.toml`: what Bulkhead may cost.

use std::fs;
use std::path::Path;

use toml_edit::DocumentMut;

use crate::Outcome;

/// The budgets of `tests/budgets.toml`.
pub struct Budgets(DocumentMut);

impl Budgets {
    /// Reads `tests/budgets.toml`.
    pub fn load() -> Outcome<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.toml");
        Ok(Self(fs::read_to_string(path)?.parse()?))
    }

    /// Checks a count that must not be exceeded.
    pub fn count(&self, section: &str, key: &str) -> Outcome<u64> {
        let found = self.0.get(section).and_then(|table| table.get(key)?.as_integer());
        let count = found.and_then(|value| u64::try_from(value).ok());
        Ok(count.ok_or_else(|| format!("tests/budgets.toml has no count {section}.{key}"))?)
    }

    /// Checks a ratio to a peer's figure.
    pub fn ratio(&self, section: &str, key: &str) -> Outcome<f64> {
        let found = self.0.get(section).and_then(|table| table.get(key)?.as_float());
        Ok(found.ok_or_else(|| format!("tests/budgets.toml has no ratio {section}.{key}"))?)
    }
}
