//! Sizes of memory.

use crate::Mistake;
use crate::amount::Amount;
use crate::mistake::shown;

/// Smallest memory of a guest, in bytes: below this no distribution kernel unpacks itself.
pub const MEMORY_MIN: u64 = 64 << 20;
/// Largest memory of a guest, in bytes.
pub const MEMORY_MAX: u64 = 512 << 30;

/// Reads a guest's memory, in bytes: a whole number of MiB from [`MEMORY_MIN`] to [`MEMORY_MAX`].
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn memory(text: &str) -> Result<u64, Mistake> {
    let amount = Amount::only(text).filter(Amount::is_close);
    let Some((count, unit)) = amount.and_then(|it| Some((it.number, unit(it.unit)?))) else {
        return Err(Mistake::new(
            format!("`{}` is not a size of memory", shown(text)),
            "write a whole number and a unit, like 512M or 4G",
        ));
    };
    match count.and_then(|count| count.checked_mul(unit)) {
        Some(bytes) if bytes < MEMORY_MIN => Err(Mistake::new(
            format!("{} is too little memory for a guest", shown(text)),
            "give it at least 64M",
        )),
        Some(bytes) if bytes <= MEMORY_MAX => Ok(bytes),
        _ => Err(Mistake::new(
            format!("{} is more memory than a guest can have", shown(text)),
            "give it at most 512G",
        )),
    }
}

fn unit(word: &str) -> Option<u64> {
    match word.to_ascii_lowercase().as_str() {
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_taken_as_people_write_it() {
        for text in ["4G", "4GB", "4GiB", "4g", "4gb", "4 GB", "4096M", "4096MB", "4096 MiB"] {
            assert_eq!(memory(text), Ok(4 << 30), "{text}");
        }
        for text in ["", "G", "12", "1.5G", "-4G", "+4G", "4T", "4GBB", "4iG", "4  G", " 4G", "4G "]
        {
            assert!(memory(text).unwrap_err().help.contains("512M or 4G"), "{text}");
        }
        assert!(memory("63M").unwrap_err().help.contains("at least 64M"));
        for text in ["513G", "99999999999999999999G", "18446744073709551615G"] {
            assert!(memory(text).unwrap_err().help.contains("at most 512G"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_taken_within_its_range_or_refused(
            text in any::<String>(), near in "[0-9]{0,12} ?\\PC{0,3}"
        ) {
            for text in [text, near] {
                if let Ok(bytes) = memory(&text) {
                    prop_assert!((MEMORY_MIN..=MEMORY_MAX).contains(&bytes) && bytes % (1 << 20) == 0);
                }
            }
        }
    }
}
