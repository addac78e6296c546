//! Whatever is done to the files is found.

use std::fs;

use audit::verify;
use proptest::prelude::*;

use crate::{Place, event, filled};

#[derive(Clone, Debug)]
enum Tampering {
    Flip(u8),
    Delete,
    Swap,
    Double,
    Insert,
    Cut,
    LoseFile,
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        (0..8u8).prop_map(Tampering::Flip),
        Just(Tampering::Delete),
        Just(Tampering::Swap),
        Just(Tampering::Double),
        Just(Tampering::Insert),
        Just(Tampering::Cut),
        Just(Tampering::LoseFile),
    ]
}

/// Changes the files; `false` if that came out as no change.
fn tamper(place: &Place, tampering: &Tampering, at: prop::sample::Index) -> bool {
    let files = place.files();
    let path = &files[at.index(files.len())];
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    let mut lines: Vec<Vec<u8>> =
        before.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = at.index(lines.len());
    match tampering {
        Tampering::Flip(bit) => bytes[at.index(before.len())] ^= 1 << bit,
        Tampering::Cut => bytes.truncate(at.index(before.len())),
        Tampering::LoseFile => {
            fs::remove_file(path).unwrap();
            return true;
        }
        Tampering::Delete => drop(lines.remove(line)),
        Tampering::Swap => lines.swap(line, 0),
        Tampering::Double => lines.insert(line, lines[line].clone()),
        Tampering::Insert => lines.insert(line, b"{}\n".to_vec()),
    }
    if !matches!(tampering, Tampering::Flip(_) | Tampering::Cut) {
        bytes = lines.concat();
    }
    fs::write(path, &bytes).unwrap();
    bytes != before
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // Shows: P-3, K-3.1.2, K-5.4.3.
    #[test]
    fn whatever_is_done_to_a_log_is_found(tampering in tampering(), at in any::<prop::sample::Index>()) {
        let (place, head) = filled(23);
        prop_assert!(place.verify(&[head]).is_ok());
        prop_assert_eq!(place.flaws(), None);
        if tamper(&place, &tampering, at) {
            // Who only reads it, without a key, sees it too, as long as the head beside it was left.
            prop_assert!(place.flaws().is_some());
            // With nothing but what was kept off the PC: key and head. A head beside the log says nothing of it.
            let key = place.key().public();
            fs::write(place.log().join("head"), format!("bulkhead-audit-head:0:{:064}", 0)).unwrap();
            prop_assert!(verify(&place.log(), Some(&key), &[head]).unwrap().is_err());
        }
    }

    #[test]
    fn arbitrary_files_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..3000), good in any::<bool>()) {
        let place = if good { filled(3).0 } else { Place::new() };
        fs::create_dir_all(place.log()).unwrap();
        let path = place.log().join("audit-000000000005.jsonl");
        fs::write(&path, &bytes).unwrap();
        let _ = place.verify(&[]);
        let _ = place.entries();
        let (mut log, _) = place.open();
        log.append(&[event(1)]).unwrap();
    }
}
