//! What each program in a reader's place does, over the channel to the agent and with the guest's stream.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use clipboard::vdagent::spec::{capability, content};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};
use worker_link::clipboard::{COMMAND_MAX, Command as Told, Event, Nonsense, START};
use worker_link::{CONTENT_MAX, MESSAGE_MAX};

const ABLE: Event = Event::Announce {
    request: false,
    capabilities: 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION,
};

/// The channel to the agent, and the guest's stream: the script gives the child these two in these places.
fn channel() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

fn stream() -> BorrowedFd<'static> {
    rustix::stdio::stderr()
}

fn says(event: &Event) {
    send(channel(), &event.message(), SendFlags::NOSIGNAL).unwrap();
}

/// The file for content.
pub(super) fn start() -> OwnedFd {
    let mut bytes = [0; START.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    recvmsg(channel(), &mut buffer, &mut ancillary, RecvFlags::empty()).unwrap();
    let mut messages = ancillary.drain();
    let Some(RecvAncillaryMessage::ScmRights(mut files)) = messages.next() else {
        panic!("no file comes")
    };
    files.next().unwrap()
}

fn told() -> Told {
    let mut bytes = [0; COMMAND_MAX];
    let (_, count) = recv(channel(), &mut bytes, RecvFlags::empty()).unwrap();
    Told::read(&bytes[..count]).unwrap()
}

/// Announces an agent that has text, and waits for the copy hotkey; the request's number.
fn is_asked() -> u32 {
    says(&ABLE);
    says(&Event::Grab(vec![content::UTF8_TEXT]));
    let Told::Expect { number, .. } = told() else { panic!("it is told something else") };
    says(&Event::Ready { number });
    number
}

fn writes(file: &OwnedFd, bytes: &[u8]) {
    rustix::io::pwrite(file, bytes, 0).unwrap();
}

fn text(number: u32, length: usize) -> Event {
    let length = u32::try_from(length).unwrap();
    Event::Content { number, kind: content::UTF8_TEXT, length }
}

fn sleeps() -> ! {
    std::thread::sleep(Duration::from_secs(600));
    std::process::exit(0);
}

/// What each does, with the file for content.
pub(super) type Behaviour = (&'static str, fn(OwnedFd));

/// What the agent finds out by itself.
pub(super) const FOUND: &[Behaviour] = &[
    ("says what is no message", |_| {
        send(channel(), b"noise", SendFlags::NOSIGNAL).unwrap();
        sleeps();
    }),
    ("says more than a message is", |_| {
        let long = vec![0; MESSAGE_MAX + 1];
        send(channel(), &long, SendFlags::NOSIGNAL).unwrap();
        sleeps();
    }),
    ("ends", |_| {}),
    ("dies", |_| std::process::abort()),
    ("says that its guest makes no sense", |_| {
        says(&Event::Nonsense(Nonsense::Port(7)));
        sleeps();
    }),
    ("says that its guest is gone", |_| {
        says(&Event::Ended);
        sleeps();
    }),
    (SAYS_NOTHING, |_| sleeps()),
    ("has content before anybody asked", |file| {
        writes(&file, b"unasked");
        says(&ABLE);
        says(&text(1, 7));
        sleeps();
    }),
    ("may be asked before anybody asks", |_| {
        says(&ABLE);
        says(&Event::Ready { number: 1 });
        sleeps();
    }),
];

/// What the agent finds out when something is copied.
pub(super) const ASKED: &[Behaviour] = &[
    ("has other content than was asked for", |file| {
        let number = is_asked();
        writes(&file, b"other");
        says(&text(number + 1, 5));
        sleeps();
    }),
    ("has content twice", |file| {
        let number = is_asked();
        writes(&file, b"once");
        says(&Event::Content { number, kind: content::NONE, length: 4 });
        says(&text(number, 4));
        sleeps();
    }),
    ("has more than there may be", |_| {
        let number = is_asked();
        let message = text(number, 4).message();
        let (start, _) = message.split_at(12);
        let more = [start, &(CONTENT_MAX + 1).to_le_bytes()].concat();
        send(channel(), &more, SendFlags::NOSIGNAL).unwrap();
        sleeps();
    }),
    ("dies in the middle of its content", |file| {
        let number = is_asked();
        writes(&file, b"half of i");
        says(&Event::Progress { number });
        std::process::abort();
    }),
    ("may be asked again and again", |_| {
        let number = is_asked();
        says(&Event::Ready { number });
        sleeps();
    }),
    (KEEPS_QUIET, |_| {
        says(&ABLE);
        says(&Event::Grab(vec![content::UTF8_TEXT]));
        sleeps();
    }),
    ("never has content", |_| {
        is_asked();
        sleeps();
    }),
];

/// When its guest has been heard.
pub(super) const KEEPS_QUIET: &str = "never answers";
pub(super) const SAYS_NOTHING: &str = "says nothing of what its guest says";
pub(super) const WAVERS: &str = "has a clipboard and has none";

/// What is no fault, as a guest may do it as well.
pub(super) const LOUD: &[Behaviour] = &[
    ("floods", |_| {
        says(&ABLE);
        loop {
            says(&Event::Grab((0..16).collect()));
            says(&Event::Request(content::UTF8_TEXT));
        }
    }),
    ("floods with beginnings", |_| {
        loop {
            says(&Event::Announce { request: true, capabilities: u32::MAX });
        }
    }),
    (WAVERS, |_| {
        let Event::Announce { request, .. } = ABLE else { unreachable!() };
        loop {
            says(&ABLE);
            says(&Event::Announce { request, capabilities: 0 });
        }
    }),
    ("passes descriptors on", |file| {
        says(&ABLE);
        let files = [stream(), file.as_fd()];
        for _ in 0..2000 {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
            let message = Event::Release.message();
            let flags = SendFlags::NOSIGNAL;
            sendmsg(channel(), &[IoSlice::new(&message)], &mut ancillary, flags).unwrap();
        }
        sleeps();
    }),
    ("takes nothing, and asks for what is offered", |_| {
        says(&ABLE);
        for _ in 0..500 {
            says(&Event::Request(content::UTF8_TEXT));
        }
        sleeps();
    }),
];

/// Another text than the guest has.
pub(super) const OTHER: &[Behaviour] = &[("makes a text up", |file| {
    let number = is_asked();
    writes(&file, b"made up");
    says(&text(number, 7));
    // What it writes later is nobody's, and holds up nobody.
    let another = vec![b'x'; CONTENT_MAX as usize];
    loop {
        writes(&file, &another);
    }
})];
