//! A guest that writes more than its reader takes, before its agent has announced itself.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use clipboard::mediator::Hotkey;
use clipboard::mediator::limits::READER_SILENCE;
use clipboard::service::ClipboardEvent;
use clipboard::vdagent::spec::{capability, content, kind};

use crate::ward::{PATIENCE, Ward, message, words};

#[test]
fn a_guest_that_floods_and_never_announces_itself_keeps_its_reader_and_is_not_said_to_have_lost_it()
{
    let mut ward = Ward::open();
    ward.internet.shutdown(std::net::Shutdown::Both).unwrap();
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
    ward.internet = UnixStream::connect(ward.dir.path().join("internet")).unwrap();
    ward.internet.set_read_timeout(Some(PATIENCE)).unwrap();
    let unasked = [words(&[content::UTF8_TEXT]), vec![b'x'; 1000]].concat();
    let flood = message(kind::CLIPBOARD, &unasked).repeat(16);
    let began = Instant::now();
    while began.elapsed() < READER_SILENCE * 2 {
        ward.internet.write_all(&flood).unwrap();
    }
    ward.hotkey(Hotkey::Copy, 1);
    ward.said("INTERNET cannot copy or paste: no clipboard agent runs there");
    let able = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;
    let announces = message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, able]));
    ward.internet.write_all(&announces).unwrap();
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
    ward.text_crosses("on the stream that was flooded");
}
