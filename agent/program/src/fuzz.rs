//! The way in for fuzzing: whatever a bundle begins with.

use crate::manifest::Manifest;

/// Reads the bytes as the beginning of a bundle with a package. What is taken is written and read again as the same.
pub fn bundle(data: &[u8]) {
    images::fuzz::beginning::<Manifest>(data);
}

#[cfg(test)]
mod tests {
    use images::container::Described as _;
    use images::digest::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{Head, Member, Package};

    /// The length of a file that begins so and brings so many bytes, and its beginning.
    fn beginning(text: &[u8], member: u64) -> Vec<u8> {
        let mut head = b"BULKHEAD BUNDLE\n".to_vec();
        for number in [1, u32::try_from(text.len()).unwrap(), 0, 0] {
            head.extend(number.to_le_bytes());
        }
        head.resize(32 + (16 << 10), 0);
        head.extend(text);
        let length = (head.len() as u64).wrapping_add(member);
        [&length.to_le_bytes()[..], &head].concat()
    }

    #[test]
    fn a_bundle_that_begins_with_anything_in_a_manifests_places_is_read_or_refused() {
        let manifest = Manifest {
            serial: 7,
            floor: 5,
            version: "0.3.0~rc1+1-2".parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
            package: Member { part: Package, size: 9, sha256: Digest::of(b"package") },
        };
        let text = manifest.text();
        // Every byte of it other than it is, and every length but its own.
        for at in 0..text.len() {
            for other in [b'"', b'9', b'\n', 0] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = other;
                bundle(&beginning(&bytes, 9));
            }
            bundle(&beginning(&text.as_bytes()[..at], 9));
        }
        let whole = beginning(text.as_bytes(), 9);
        let read = Head::parse(&whole[8..], whole.len() as u64 - 8 + 9).unwrap();
        assert_eq!(read.manifest, manifest);
    }

    proptest! {
        #[test]
        fn a_manifest_with_anything_in_its_places_is_read_or_refused(
            serial: u64, floor: u64, name in "bulkhead|[a-z./]{0,20}", version in "[0-9a-z.~+:-]{0,70}", architecture in "[a-z0-9-]{0,40}", size: u64,
        ) {
            let text = format!(
                "format = 1\npurpose = \"program\"\nname = \"{name}\"\nserial = {serial}\nfloor = {floor}\nversion = \"{version}\"\narchitecture = \"{architecture}\"\n\n[package]\nsize = {size}\nsha256 = \"{}\"\n",
                "0".repeat(64),
            );
            bundle(&beginning(text.as_bytes(), size));
        }
    }
}
