//! What people write for a number, a size or a yes, and what is meant by it.
//!
//! None of this is taken for a value in a file: a policy is read by every version in the same way. It is how a mistake's remedy
//! names the right form of what *was* written.

use std::ops::RangeInclusive;

/// Characters of the longest text that is looked at: a number is short.
const LONGEST: usize = 40;

fn trimmed(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= LONGEST).then_some(text)
}

/// Reads a whole number: `5_000`, `5,000,000`, `0x10`.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    let text = trimmed(text)?;
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    // Separators stand between groups of three, or they are something else.
    let mut groups = text.split([',', '_', ' ', '\'']);
    let first = groups.next()?;
    let grouped = groups.all(|group| group.len() == 3);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let plain = first.len() <= 3 || digits.len() == text.len();
    let numeric = text.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '_' | ' ' | '\''));
    (grouped && plain && numeric && !first.is_empty()).then_some(digits)?.parse().ok()
}

/// Reads a number as `lsusb` prints it, in up to `digits` hexadecimal digits: `08e6`, `0x08E6`.
#[must_use]
pub fn hexadecimal(text: &str, digits: usize) -> Option<u16> {
    let text = text.trim();
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if fits { u16::from_str_radix(text, 16).ok() } else { None }
}

/// Reads vendor and product as `lsusb` prints them: `08e6:3437`.
#[must_use]
pub fn vendor_and_product(text: &str) -> Option<(u16, u16)> {
    let (vendor, product) = text.trim().split_once(':')?;
    Some((hexadecimal(vendor, 4)?, hexadecimal(product, 4)?))
}

/// Reads a size in bytes: `5 MB`, `4 KiB`, `1.5M`. A letter alone counts in powers of 1024, as in the machine file.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let text = trimmed(text)?;
    let unit_at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale: u64 = match unit.to_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" | "바이트" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    let number = number.trim();
    let Some((before, after)) = number.split_once('.') else {
        return whole(number)?.checked_mul(scale);
    };
    let digits = u32::try_from(after.len()).ok().filter(|digits| (1..=6).contains(digits))?;
    let parts = 10_u64.checked_pow(digits)?;
    let fraction: u64 = after.parse().ok()?;
    let all = whole(before)?.checked_mul(parts)?.checked_add(fraction)?.checked_mul(scale)?;
    (all % parts == 0).then_some(all / parts)
}

/// Reads what people write for yes and no; `None` if it is neither.
#[must_use]
pub fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "y" | "예" => Some(true),
        "false" | "no" | "off" | "0" | "n" | "아니오" | "아니요" => Some(false),
        _ => None,
    }
}

/// Reads first and last of a range or a list of numbers: `443-445`, `80, 443`, `6000:6100`, `80/443`.
#[must_use]
pub fn numbers(text: &str) -> Option<RangeInclusive<u64>> {
    let text = trimmed(text)?;
    let mut parts = text.split(['-', ',', ':', '/', '~', '–']).map(|part| whole(part.trim()));
    let (first, second) = (parts.next()??, parts.next()??);
    let (mut least, mut most) = (first.min(second), first.max(second));
    for part in parts {
        let part = part?;
        (least, most) = (least.min(part), most.max(part));
    }
    Some(least..=most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_understood_as_people_write_them() {
        for (written, meant) in [
            ("300", Some(300)),
            ("5_000", Some(5000)),
            ("5,000,000", Some(5_000_000)),
            ("0x10", Some(16)),
            ("1,5", None),
            ("1.5", None),
            ("", None),
            ("five", None),
            ("5,", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(whole(written), meant, "{written}");
        }
    }

    #[test]
    fn sizes_are_understood_in_the_units_of_disks_and_of_memory() {
        for (written, meant) in [
            ("5 MB", Some(5_000_000)),
            ("4KiB", Some(4096)),
            ("4 KIB", Some(4096)),
            ("1.5 kB", Some(1500)),
            ("2M", Some(2 << 20)),
            ("4096", Some(4096)),
            ("4096 bytes", Some(4096)),
            ("1.0005 KB", None),
            ("5 MB/s", None),
            ("five MB", None),
            ("99999999999999999 GB", None),
        ] {
            assert_eq!(size(written), meant, "{written}");
        }
    }
}
