//! What a signature is for. A signature made for one purpose is none for another, whatever the key may sign (K-2.2.2).
//!
//! | purpose | what is signed | signed message begins with |
//! | --- | --- | --- |
//! | `policy` | the text of `policy.toml` | `Bulkhead separation policy, signature format 1` and a NUL |
//! | `trust` | the text of `trust.toml` | `Bulkhead trust store, signature format 1` and a NUL |
//! | `image` | what describes a guest image: the manifest of its bundle | `Bulkhead guest image, signature format 1` and a NUL |
//! | `program` | what describes Bulkhead's own package: the manifest of its bundle | `Bulkhead program, signature format 1` and a NUL |
//!
//! Each beginning ends with its only NUL. So none of them begins another, and no message of one purpose is a message of another,
//! whatever the signed text says.

use std::fmt;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Separation policies.
    Policy,
    /// Guest images.
    Image,
    /// Bulkhead's own programs.
    Program,
    /// Changes of the trust store.
    Trust,
}

impl Purpose {
    /// Every purpose, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Policy, Self::Image, Self::Program, Self::Trust];

    /// Returns the word for it in files and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Image => "image",
            Self::Program => "program",
            Self::Trust => "trust",
        }
    }

    /// Returns the purpose that a word stands for.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }

    /// Returns what is signed, for a sentence.
    #[must_use]
    pub const fn signed(self) -> &'static str {
        match self {
            Self::Policy => "a policy",
            Self::Image => "a guest image",
            Self::Program => "a program of Bulkhead's",
            Self::Trust => "a trust store",
        }
    }

    /// Returns what every signed message of this purpose begins with.
    const fn beginning(self) -> &'static [u8] {
        match self {
            Self::Policy => b"Bulkhead separation policy, signature format 1\0",
            Self::Image => b"Bulkhead guest image, signature format 1\0",
            Self::Program => b"Bulkhead program, signature format 1\0",
            Self::Trust => b"Bulkhead trust store, signature format 1\0",
        }
    }

    /// Returns the message that is signed for a text.
    pub(super) fn message(self, text: &str) -> Vec<u8> {
        [self.beginning(), text.as_bytes()].concat()
    }

    /// Returns how somebody signs for it.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Policy => "bulkhead policy sign",
            Self::Trust => "bulkhead trust sign",
            Self::Image => "bulkhead images sign",
            Self::Program => "bulkhead program sign",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What can be signed: a type for each [`Purpose`], so that signatures and approvals of one are not taken for those of another.
pub trait Signable: sealed::Sealed + fmt::Debug {
    /// What a key must be allowed to sign.
    const PURPOSE: Purpose;
}

macro_rules! signable {
    ($($(#[$doc:meta])* $name:ident = $purpose:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Signable for $name {
            const PURPOSE: Purpose = Purpose::$purpose;
        }
    )*};
}

signable! {
    /// The text of a policy, for [`Purpose::Policy`].
    PolicyText = Policy,
    /// What describes a guest image: the manifest of its bundle.
    ImageManifest = Image,
    /// What describes Bulkhead's own package: the manifest of its bundle.
    ProgramManifest = Program,
    /// The text of a trust store.
    TrustText = Trust,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Shows: K-2.2.2.
    #[test]
    fn no_message_of_one_purpose_begins_as_one_of_another_does() {
        for purpose in Purpose::ALL {
            let (nul, before) = purpose.beginning().split_last().unwrap();
            assert_eq!(*nul, 0, "{purpose}");
            assert!(!before.contains(&0), "{purpose}");
            for other in Purpose::ALL.into_iter().filter(|other| *other != purpose) {
                assert!(!other.beginning().starts_with(before), "{purpose} and {other}");
            }
            assert_eq!(Purpose::of(purpose.word()), Some(purpose));
        }
    }

    #[test]
    fn what_policies_are_signed_with_stays_as_it_was_when_there_was_no_other_purpose() {
        let message = Purpose::Policy.message("text");
        assert_eq!(message, b"Bulkhead separation policy, signature format 1\0text");
    }
}
