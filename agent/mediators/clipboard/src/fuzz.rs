//! What agent/fuzz calls: any bytes and any order of events must be without effect on anybody but their sender.

use std::sync::Arc;

use fuzzinput::FuzzInput;
use monitor::Denial;
use policy::Policy;

use crate::mediator::played::PlayedReader;
use crate::mediator::{ClipboardEvent, ClipboardMediator, Hotkey, Output, Time};
use worker_link::clipboard::Event;

/// Gives a mediator between the starter policy's domains what the input says: bytes from guests, through their readers, what readers make up, hotkeys,
/// time. Panics are what is looked for.
pub fn mediator(input: &[u8]) {
    let Ok(policy) =
        Policy::parse("fuzz", include_str!("../../../../policy/tools/src/starter.toml"))
    else {
        return;
    };
    let names: Vec<String> = policy.domains().iter().map(|d| d.name.to_string()).collect();
    let mut mediator = ClipboardMediator::new(&names, Arc::new(policy));
    let mut now = Time::ZERO;
    let mut readers: Vec<Option<PlayedReader>> = Vec::new();
    for guest in 0..names.len() {
        mediator.connected(guest);
        readers.push(Some(PlayedReader::default()));
    }
    let (mut authorised, mut decodes) = (Vec::new(), 0);
    let mut input = FuzzInput::new(input);
    while let Some(action) = input.byte() {
        let guest = usize::from(action >> 4) % names.len().max(1);
        let number = input.number(1);
        // What this action takes of the input besides.
        let bytes = match action & 0x0f {
            9.. => input.take(usize::try_from(number).unwrap_or_default()),
            _ => &[],
        };
        match action & 0x0f {
            0 => mediator.hotkey(Hotkey::Copy, guest, None, now),
            1 => mediator.hotkey(Hotkey::Paste, guest, Some(7), now),
            2 => mediator.answered(number, true),
            3 => {
                if let Some(paste) = authorised.pop() {
                    mediator.permitted(monitor::testing::permit(paste, 1), now);
                }
                mediator.refused(number, Denial::Unrecorded);
            }
            4 => {
                now += Time::from_millis(number * 100);
                mediator.tick(now);
            }
            5 => mediator.disconnected(guest, now),
            6 => {
                mediator.connected(guest);
                if let Some(reader) = readers.get_mut(guest) {
                    *reader = Some(PlayedReader::default());
                }
            }
            7 => mediator.locked(now),
            8 => mediator.record_lost(now),
            9 => {
                let changes = clipboard_content::Changes::default();
                let outcome = clipboard_content::of_worker(bytes.to_vec().into(), changes);
                mediator.decoded(decodes, outcome, now);
            }
            10 => {
                // What no guest said.
                let mut content = |length: u32| {
                    Ok(vec![b'x'; usize::try_from(length.min(4096)).unwrap_or_default()].into())
                };
                if let Ok(event) = Event::read(bytes)
                    && mediator.heard(guest, event, &mut content, now).is_err()
                {
                    mediator.reader_failed(guest, now);
                }
            }
            _ => {
                if let Some(Some(reader)) = readers.get_mut(guest) {
                    reader.received(bytes, now);
                }
            }
        }
        // Each output is carried out, and what readers say to it, which ends.
        for _ in 0..4 {
            for (guest, reader) in readers.iter_mut().enumerate() {
                if let Some(reader) = reader
                    && reader.tell(&mut mediator, guest, now).is_err()
                {
                    mediator.reader_failed(guest, now);
                }
            }
            for output in mediator.outputs() {
                match output {
                    Output::Report(ClipboardEvent::Authorize(request)) => {
                        authorised.push(request.grant)
                    }
                    Output::Decode(id, ..) => decodes = id,
                    Output::Tell(guest, command) => {
                        if let Some(Some(reader)) = readers.get_mut(guest) {
                            reader.command(command);
                        }
                    }
                    Output::Disconnect(guest, _) => {
                        if let Some(reader) = readers.get_mut(guest) {
                            *reader = None;
                        }
                    }
                    _ => {}
                }
            }
        }
        if let Some(outbox) = mediator.outbox(guest) {
            let count = outbox.bytes(4096).len();
            outbox.took(count);
            outbox.guest_took_all();
        }
    }
}

/// Sanitises and previews bytes as content of the type that the first one chooses, and takes them as a worker's picture. Panics are what is
/// looked for.
pub fn content(input: &[u8]) {
    let mut input = FuzzInput::new(input);
    let types = policy::language::MediaType::WORDS;
    let Some((_, media_type)) = types.get(input.index(types.len())) else { return };
    let bytes = input.rest();
    let _ = clipboard_content::sanitize(*media_type, bytes);
    let _ = clipboard_content::preview(*media_type, bytes);
    let _ =
        clipboard_content::of_worker(bytes.to_vec().into(), clipboard_content::Changes::default());
}
