//! What a worker is for, and who it is.

use super::USER;

/// What a worker is started for: its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decodes one picture, and ends.
    Picture,
    /// Reads what the guest of one domain says of its clipboard, for as long as that is connected.
    Clipboard,
    /// Serves one USB device to the VMM of one domain.
    Usb,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Picture, Self::Clipboard, Self::Usb];

    /// Returns it as the worker's first argument.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Clipboard => "clipboard",
            Self::Usb => "usb",
        }
    }

    /// Returns the role of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// All of a worker's environment: its threads share one heap of the C library's. That opens a file of `/proc` before it makes another one smaller, which a
/// worker may not.
pub const ENVIRONMENT: [(&str, &str); 1] = [("MALLOC_ARENA_MAX", "1")];

/// The lowest number that a worker runs under: there are 63 for domains, from here to below [`USER`].
pub const USER_FIRST: u32 = USER - 63;

/// Returns user and group of the workers of the domain at this place among the domains: they are that domain's alone. `None` if there is no number for it.
#[must_use]
pub fn user_of_domain(index: usize) -> Option<u32> {
    let below = u32::try_from(index).ok()?.checked_add(1)?;
    USER.checked_sub(below).filter(|user| *user >= USER_FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domains_workers_have_a_number_that_is_no_others() {
        let numbers: Vec<u32> = (0..63).map(|index| user_of_domain(index).unwrap()).collect();
        assert_eq!((numbers[0], numbers[62]), (63_998, USER_FIRST));
        assert_eq!(user_of_domain(63), None);
        assert_eq!(user_of_domain(usize::MAX), None);
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(Role::of(role.word()), Some(role));
        }
        assert_eq!(Role::of("--version"), None);
    }
}
