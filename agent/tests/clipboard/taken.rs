//! What a guest asked for, read or not, with the clipboard's thread and its workers.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use clipboard::service::Command;
use clipboard::vdagent::spec::{content, kind};

use crate::ward::{Ward, message, policy, until, words};

#[test]
fn a_guest_that_reads_gets_the_whole_of_it_as_often_as_it_asks() {
    let mut ward = Ward::open();
    for text in ["x", "a patient's name", &"0123456789".repeat(200_000)] {
        ward.asks(text);
        for _ in 0..3 {
            let body = until(&mut ward.clinical, kind::CLIPBOARD);
            assert!(body[8..] == *text.as_bytes(), "{} bytes", body.len());
            ward.clinical
                .write_all(&message(kind::CLIPBOARD_REQUEST, &words(&[0, content::UTF8_TEXT])))
                .unwrap();
        }
        until(&mut ward.clinical, kind::CLIPBOARD);
    }
}

// Shows: C-9.
#[test]
fn what_a_guest_asked_for_and_did_not_read_is_not_in_its_socket_after_the_lock() {
    for text in ["a patient's name", &"a patient's name ".repeat(200_000)] {
        for lock in [true, false] {
            let mut ward = Ward::open();
            ward.asks(text);
            // All that the thread can write to somebody who does not read is written by then.
            std::thread::sleep(Duration::from_millis(100));
            ward.clipboard.send(if lock { Command::Locked } else { Command::Policy(policy("")) });
            let mut rest = Vec::new();
            ward.clinical.read_to_end(&mut rest).unwrap();
            assert!(!rest.windows(7).any(|bytes| bytes == b"patient"), "{} bytes", rest.len());
        }
    }
}

#[test]
fn what_a_guest_was_reading_when_the_screen_was_locked_never_becomes_whole() {
    let text = "a patient's name ".repeat(200_000);
    let mut ward = Ward::open();
    ward.asks(&text);
    let mut some = vec![0; 40_000];
    ward.clinical.read_exact(&mut some).unwrap();
    ward.clipboard.send(Command::Locked);
    std::thread::sleep(Duration::from_millis(100));
    let mut rest = Vec::new();
    ward.clinical.read_to_end(&mut rest).unwrap();
    assert!(some.len() + rest.len() < text.len(), "{} bytes more", rest.len());
}
