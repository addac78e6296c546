//! What is decided.

use super::words::words;

words! {
    /// What may happen, from least to most.
    Decision {
        /// It does not cross.
        Deny = "deny",
        /// It crosses if the clinician says yes.
        Ask = "ask",
        /// The domain gets the device and cannot write to it.
        ReadOnly = "read-only",
        /// It crosses.
        Allow = "allow",
    }
}
