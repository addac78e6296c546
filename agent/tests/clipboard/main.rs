//! The clipboard mediator against real peers, without a virtual machine: two X servers, each with a `spice-vdagentd` and a
//! `spice-vdagent` of the distribution, and `xclip` as the programs that copy and paste. They connect as external domains do.
//!
//! One agent and one pair of desktops serve all of it; the parts run one after the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../artefacts/mod.rs"]
mod artefacts;
mod desktops;
mod floods;
mod rogue_decoders;
mod rogue_readers;
mod taken;
mod ward;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use desktops::{Desktops, PNG, TEXT, noisy_picture, pattern, picture};

const CLINICAL: usize = 0;
const INTERNET: usize = 1;

// Shows: C-9, P-2.
#[test]
fn distributions_agents_copy_and_paste_through_the_mediator() {
    let mut desktops = Desktops::start();
    text_of_every_size(&mut desktops);
    korean_text_and_what_hides_in_text(&mut desktops);
    pictures(&mut desktops);
    a_denial_in_words(&mut desktops);
    an_owner_that_dies_while_it_is_asked(&mut desktops);
    a_selection_that_changes_all_the_time(&mut desktops);
    a_slow_reader_and_both_directions_at_once(&mut desktops);
    a_guests_agent_that_is_started_anew(&mut desktops);
    what_the_audit_holds(&mut desktops);
}

/// Copies and pastes; what a program in `to` then finds.
fn cross(desktops: &Desktops, from: usize, to: usize, what: &[u8]) -> Result<Vec<u8>, String> {
    let owner = desktops.own(from, TEXT, what);
    let result = desktops.copy(from).and_then(|_| desktops.paste(to));
    let result = result.map(|_| desktops.find(to, TEXT));
    drop(owner);
    result
}

fn text_of_every_size(desktops: &mut Desktops) {
    for size in [1, 4095, 4096] {
        let text = pattern(size);
        assert!(cross(desktops, INTERNET, CLINICAL, &text).unwrap() == text, "{size}");
    }
    let refused = cross(desktops, INTERNET, CLINICAL, &pattern(4097)).unwrap_err();
    assert!(refused.contains("no rule allows text/plain of this size"), "{refused}");
    let empty = cross(desktops, INTERNET, CLINICAL, b"").unwrap_err();
    assert!(
        empty.contains("nothing in its clipboard") || empty.contains("Nothing is copied"),
        "{empty}"
    );
    // The way out of the clinical domain has no small limit here.
    let large = pattern(10 << 20);
    assert!(cross(desktops, CLINICAL, INTERNET, &large).unwrap() == large);
    let refused = cross(desktops, CLINICAL, INTERNET, &pattern(33 << 20)).unwrap_err();
    assert!(refused.contains("more than 32.0 MiB"), "{refused}");
    desktops.rest();
}

fn korean_text_and_what_hides_in_text(desktops: &mut Desktops) {
    let korean = "홍길동 님의 검사 결과: 정상 (2026년 11월)\n특이 사항 없음";
    let found = cross(desktops, INTERNET, CLINICAL, korean.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), korean);
    let tricky = "safe\u{202e}txt\u{200b}\r\nend\u{7}";
    let found = cross(desktops, INTERNET, CLINICAL, tricky.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), "safetxt\nend");
    let found = cross(desktops, CLINICAL, INTERNET, "a\u{200d}b".as_bytes()).unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), "ab", "the way out is cleaned as well");
    let found = cross(desktops, INTERNET, CLINICAL, "Warfarin 1\u{b}5 mg".as_bytes()).unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), "Warfarin 1\n5 mg");
}

fn pictures(desktops: &mut Desktops) {
    let before = picture(320, 200, b"what hangs on a picture");
    for (from, to) in [(INTERNET, CLINICAL), (CLINICAL, INTERNET)] {
        let owner = desktops.own(from, PNG, &before);
        desktops.copy(from).unwrap();
        desktops.paste(to).unwrap();
        let after = desktops.find(to, PNG);
        drop(owner);
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
        assert_eq!(pixels(&before), pixels(&after), "the same pixels");
        assert!(!after.windows(5).any(|bytes| bytes == b"hangs"), "and nothing else");
    }
    // What is no picture does not become one by saying so.
    let owner = desktops.own(INTERNET, PNG, b"<html>");
    desktops.copy(INTERNET).unwrap();
    let refused = desktops.paste(CLINICAL).unwrap_err();
    assert!(refused.contains("not what it claims to be (image/png)"), "{refused}");
    drop(owner);
    desktops.rest();
}

fn a_denial_in_words(desktops: &mut Desktops) {
    let refused = cross(desktops, INTERNET, CLINICAL, b"RRN 900101-1234568").unwrap_err();
    assert!(refused.contains("verdict: deny (rule `text-in`)"), "{refused}");
    assert!(refused.contains("looks like a resident registration number"), "{refused}");
    assert!(refused.contains("Questions: Information Security Office"), "{refused}");
}

fn an_owner_that_dies_while_it_is_asked(desktops: &mut Desktops) {
    let owner = desktops.own(INTERNET, TEXT, b"never handed over");
    owner.freeze();
    let asked = Instant::now();
    let copy = desktops.copy_in_background(INTERNET);
    std::thread::sleep(Duration::from_millis(300));
    drop(owner); // killed
    let refused = copy.join().unwrap().unwrap_err();
    assert!(refused.starts_with("Not copied: INTERNET"), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    let refused = desktops.paste(CLINICAL).unwrap_err();
    assert!(refused.starts_with("Nothing to paste."), "{refused}");
    assert_eq!(cross(desktops, INTERNET, CLINICAL, b"and on").as_deref(), Ok(&b"and on"[..]));
}

fn a_selection_that_changes_all_the_time(desktops: &mut Desktops) {
    let mut before = b"text 0 ".repeat(300);
    let mut owner = desktops.own(INTERNET, TEXT, &before);
    for round in 1..6 {
        let text = format!("text {round} ").into_bytes().repeat(300);
        // The hotkey comes while the guest's agent still learns of the change.
        let next = desktops.own_without_waiting(INTERNET, TEXT, &text);
        let copied = desktops.copy(INTERNET);
        owner = next;
        if copied.is_ok() {
            desktops.paste(CLINICAL).unwrap();
            let found = desktops.find(CLINICAL, TEXT);
            assert!(found == text || found == before, "one or the other, never a mixture");
        }
        before = text;
    }
    drop(owner);
    desktops.rest();
}

/// Content on its way into a desktop that does not read holds up neither the agent nor what is copied out of a desktop.
fn a_slow_reader_and_both_directions_at_once(desktops: &mut Desktops) {
    // More than all sockets and pipes on the way hold together.
    let noise = pattern(6 << 20);
    let large_picture = noisy_picture(1400, 1200, &noise);
    let large = pattern(10 << 20);
    for (from, to, target, what) in
        [(CLINICAL, INTERNET, TEXT, &large), (INTERNET, CLINICAL, PNG, &large_picture)]
    {
        let owner = desktops.own(from, target, what);
        desktops.copy(from).unwrap();
        desktops.paste(to).unwrap();
        let reader = desktops.find_in_background(to, target);
        std::thread::sleep(Duration::from_millis(10));
        desktops.freeze_agent(to);
        assert_eq!(desktops.status()["ok"], true, "nobody waits for it");
        // While that is on its way into one desktop, something else comes out of the other.
        let second = desktops.own(from, TEXT, b"on its way out");
        desktops.copy(from).unwrap();
        desktops.thaw_agent(to);
        let found = reader.join().unwrap();
        if target == TEXT {
            assert!(found == large, "whole, however slow: {} bytes", found.len());
        } else {
            let found = image::load_from_memory(&found).unwrap();
            assert_eq!((found.width(), found.height()), (1400, 1200));
        }
        drop((owner, second));
    }
    desktops.rest();
}

fn a_guests_agent_that_is_started_anew(desktops: &mut Desktops) {
    desktops.stop_agents(INTERNET);
    let refused = desktops.copy(INTERNET).unwrap_err();
    assert!(refused.contains("no clipboard agent runs there"), "{refused}");
    // Somebody speaks nonsense in its place.
    let path = desktops.socket(INTERNET);
    let mut nonsense = UnixStream::connect(&path).unwrap();
    nonsense.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    nonsense.write_all(&[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    let end = nonsense.read_to_end(&mut rest);
    assert!(end.is_ok() || end.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    desktops.start_agents(INTERNET);
    assert_eq!(cross(desktops, INTERNET, CLINICAL, b"again").as_deref(), Ok(&b"again"[..]));
}

fn what_the_audit_holds(desktops: &mut Desktops) {
    let log = desktops.stop_and_read_audit();
    desktops.replay();
    for kind in ["clipboard-copied", "clipboard-taken", "clipboard-stream-refused"] {
        assert!(log.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
    assert!(log.contains("\"normalised\":\"1 line ends changed, 1 control"));
    for secret in ["홍길동", "900101-1234568", "never handed over", "again"] {
        assert!(!log.contains(&format!("\"{secret}")), "{secret} is in the audit log");
        assert!(!log.contains(&secret.escape_unicode().to_string()), "{secret}");
    }
}
