//! The way in for fuzzing: whatever a bundle begins with.

use crate::container::{Described, Head};
use crate::manifest::Manifest;

/// Reads the bytes as the beginning of a bundle with an image.
pub fn bundle(data: &[u8]) {
    beginning::<Manifest>(data);
}

/// Reads the bytes as the beginning of a bundle with this kind of manifest. What is taken is written and read again as the same.
///
/// # Panics
/// It is not: a mistake of this crate's.
#[allow(clippy::panic, reason = "a fuzzer says by panicking what it found")]
pub fn beginning<M: Described>(data: &[u8]) {
    let (length, bytes) = match data.split_first_chunk::<8>() {
        Some((length, bytes)) => (u64::from_le_bytes(*length), bytes),
        None => (u64::MAX, data),
    };
    let Ok(head) = Head::<M>::parse(bytes, length) else { return };
    let Ok(written) = head.bytes() else { panic!("what was read cannot be written") };
    match Head::<M>::parse(&written, length) {
        Ok(again) if again.text == head.text && again.signatures == head.signatures => {}
        _ => panic!("what was read is written as something else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(manifest: &str, signatures: &[u8], numbers: [u32; 4]) -> Vec<u8> {
        let mut bytes = b"BULKHEAD BUNDLE\n".to_vec();
        numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend(signatures);
        bytes.resize(32 + (16 << 10), 0);
        bytes.extend(manifest.as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn whatever_a_bundle_begins_with_is_read_or_refused(
            length: u64, header in prop::array::uniform4(0_u32..20_000), signatures in prop::collection::vec(any::<u8>(), 0..100),
            manifest in ".{0,400}", cut in 0_usize..17_000,
        ) {
            let whole = bytes(&manifest, &signatures, header);
            for bytes in [&whole[..], &whole[..cut.min(whole.len())]] {
                bundle(&[&length.to_le_bytes()[..], bytes].concat());
            }
        }

        #[test]
        fn a_manifest_with_anything_in_its_places_is_read_or_refused(
            serial: u64, floor: u64, name in "[a-z./]{0,40}", cmdline in "[ -~]{0,60}", size: u64, part in "kernel|initrd|disk|x",
        ) {
            let manifest = format!(
                "format = 1\npurpose = \"image\"\nname = \"{name}\"\nserial = {serial}\nfloor = {floor}\ncmdline = \"{}\"\n\n[[member]]\npart = \"{part}\"\nsize = {size}\nsha256 = \"{}\"\n",
                cmdline.replace(['"', '\\'], ""), "0".repeat(64),
            );
            let whole = bytes(&manifest, b"", [1, u32::try_from(manifest.len()).unwrap(), 0, 0]);
            let length = (whole.len() as u64).wrapping_add(size);
            bundle(&[&length.to_le_bytes()[..], &whole].concat());
        }
    }
}
