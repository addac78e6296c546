//! Guests that mean harm.

use super::world::{
    A, B, CAPABLE, TEXT, World, announce, chunk, give, grab, message, request, rule, words,
};
use crate::mediator::limits::{AGAIN, FAULT_ENTRIES, HELD_MAX};
use crate::mediator::{Hotkey, Time};
use crate::vdagent::spec::{
    MESSAGE_MAX, PORT_CLIENT, PORT_SERVER, PROTOCOL, SMALL_MAX, content, kind,
};

fn world() -> World {
    World::ready(&(rule("b", "a", "allow") + &rule("a", "b", "allow")))
}

/// A message's header that claims `size` bytes, in a chunk that claims as many.
fn claim(kind: u32, size: u32) -> Vec<u8> {
    let chunk = size.saturating_add(20);
    let mut bytes = words(&[PORT_CLIENT, chunk, PROTOCOL, kind, 0, 0]);
    bytes.extend(size.to_le_bytes());
    bytes
}

/// The other guest still works.
fn others_are_well(world: &mut World) {
    world.copy_text(A, "well");
    assert!(world.last_words().starts_with("Copied from CLINICAL"));
}

#[test]
fn a_stream_that_makes_no_sense_is_closed_and_its_guest_left_alone_for_longer_each_time() {
    let nonsense: Vec<Vec<u8>> = vec![
        words(&[0, 20]),
        words(&[3, 20]),
        words(&[u32::MAX, u32::MAX]),
        words(&[PORT_CLIENT, 20, PROTOCOL + 1, 1, 0, 0, 0]),
        claim(kind::CLIPBOARD, MESSAGE_MAX + 1),
        claim(kind::CLIPBOARD, u32::MAX),
        claim(99, u32::MAX),
        claim(kind::CLIPBOARD_GRAB, SMALL_MAX + 1),
        claim(kind::ANNOUNCE_CAPABILITIES, u32::MAX),
        claim(kind::CLIPBOARD, 3),
        message(kind::CLIPBOARD_REQUEST, &[0; 4]),
        message(kind::CLIPBOARD_GRAB, &[0; 3]),
        message(kind::ANNOUNCE_CAPABILITIES, &[0; 2]),
        message(kind::CLIPBOARD_RELEASE, &[]),
    ];
    let mut world = world();
    let count = nonsense.len();
    for (times, bytes) in nonsense.into_iter().enumerate() {
        world.sends(B, &bytes);
        assert_eq!(world.disconnected.len(), times + 1, "{bytes:?}");
        let (guest, again) = world.disconnected[times];
        assert_eq!(guest, B);
        let pause = again - world.now;
        assert!(pause >= AGAIN.0 && pause <= AGAIN.1);
        assert!(times < 6 || pause == AGAIN.1);
        // That it announces itself in between, as if nothing had been, counts for nothing.
        world.connected(B);
        world.gets(B);
        world.sends(B, &announce(false, CAPABLE));
    }
    let refused =
        world.noted.iter().filter(|event| event.kind == "clipboard-stream-refused").count();
    assert_eq!(refused, 1, "{count} times within a minute are one entry");
    world.wait(FAULT_ENTRIES.every);
    world.sends(B, &words(&[0, 20]));
    let last = world.noted.last().unwrap();
    assert_eq!(last.detail["times"], count);
    others_are_well(&mut world);
}

#[test]
fn content_nobody_asked_for_is_not_kept() {
    let mut world = world();
    world.sends(B, &grab(&[TEXT]));
    world.sends(B, &give(TEXT, b"unasked"));
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."));
    // And as much of it as it likes to claim.
    world.sends(B, &claim(kind::CLIPBOARD, 200 << 20));
    for _ in 0..64 {
        world.sends(B, &[b'x'; 65536]);
        assert!(world.kept() < 100_000, "{}", world.kept());
    }
    assert!(world.disconnected.is_empty());
}

#[test]
fn a_claim_beyond_the_limit_is_refused_before_anything_is_kept() {
    let mut world = world();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.sends(B, &claim(kind::CLIPBOARD, HELD_MAX + 9));
    world.sends(B, &words(&[0, TEXT]));
    assert!(world.last_words().contains("in its clipboard, more than"));
    assert!(world.kept() < 100_000);
}

#[test]
fn a_guest_that_floods_is_read_no_faster_than_its_allowance() {
    let mut world = world();
    let flood = chunk(&[0; 0]).repeat(8192);
    let mut taken = 0usize;
    for _ in 0..1000 {
        if world.unread_for(B).is_zero() {
            world.sends(B, &flood);
            taken += flood.len();
        }
        world.now += Time::from_millis(10);
    }
    assert!(taken < 4 << 20, "{taken} bytes in ten seconds");
    assert!(world.disconnected.is_empty(), "empty chunks are legal");
}

#[test]
fn a_guest_that_asks_without_reading_gets_one_answer_at_a_time() {
    let mut world = world();
    let text = "x".repeat(900_000);
    world.copy_text(B, &text);
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    for _ in 0..1000 {
        world.sends(A, &request(TEXT));
        world.sends(A, &announce(true, CAPABLE));
    }
    assert!(world.kept() < 2 * 900_000 + 200_000, "{}", world.kept());
}

#[test]
fn chunks_for_the_display_server_and_unknown_messages_are_skipped() {
    let mut world = world();
    let mut bytes = words(&[PORT_SERVER, 4]);
    bytes.extend(b"abcd");
    for unknown in [0, 1, 3, 5, 10, 11, 12, 13, 14, 15, 16, 17, 1000, u32::MAX] {
        bytes.extend(message(unknown, b"whatever"));
        bytes.extend(message(unknown, b""));
    }
    world.sends(B, &bytes);
    world.copy_text(B, "goes on");
    assert!(world.last_words().starts_with("Copied"));
}

#[test]
fn malformed_text_pictures_that_are_none_and_bombs_do_not_cross() {
    let mut world = world();
    for (number, bytes, words) in [
        (TEXT, &b"caf\xe9"[..], "not readable text"),
        (content::IMAGE_PNG, b"<svg onload=alert(1)>", "not what it claims to be (image/png)"),
        (content::IMAGE_BMP, b"BM", "damaged"),
        (content::IMAGE_JPG, b"\xff\xd8\xff\xe0", "damaged"),
    ] {
        world.copy(B, number, bytes);
        world.hotkey(Hotkey::Paste, A);
        while !world.to_decode.is_empty() {
            world.decode();
        }
        assert!(world.last_words().contains(words), "{}", world.last_words());
        assert_eq!(world.noted.last().unwrap().verdict.as_deref(), Some("deny"));
        assert!(world.gets(A).is_empty() && world.to_record.is_empty());
    }
}

#[test]
fn a_connection_may_end_at_every_byte_of_a_copy_and_a_paste() {
    let text = "the whole of it";
    let script = [announce(true, CAPABLE), grab(&[TEXT]), give(TEXT, text.as_bytes())].concat();
    let copied_at = announce(true, CAPABLE).len() + grab(&[TEXT]).len();
    for end in 0..script.len() {
        let mut world = world();
        world.disconnected(B);
        world.connected(B);
        for (at, byte) in script.iter().enumerate().take(end) {
            if at == copied_at {
                world.hotkey(Hotkey::Copy, B);
            }
            world.sends(B, &[*byte]);
        }
        world.disconnected(B);
        world.settle();
        world.hotkey(Hotkey::Paste, A);
        assert!(world.to_record.is_empty(), "{end}");
        others_are_well(&mut world);
        world.connected(B);
        world.sends(B, &announce(true, CAPABLE));
        world.gets(B);
        world.copy_text(B, text);
        world.hotkey(Hotkey::Paste, A);
        world.record(true);
        world.gets(A);
        world.sends(A, &request(TEXT));
        let got = world.gets(A);
        assert_eq!(got.last().unwrap().content(), Some((TEXT, text.as_bytes())));
    }
}
