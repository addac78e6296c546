//! Programs in the place of the worker that reads a guest's stream, which do what one does that was taken over, with more rights than it has: they are in no
//! sandbox. Each stands before the Internet guest; the clinical guest has the worker that there is.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use clipboard::mediator::Hotkey;
use clipboard::mediator::limits::HANG_UP;
use clipboard::service::{ClipboardEvent, Command, Program, Workers};
use clipboard::vdagent::spec::{capability, content, kind};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};
use sha2::{Digest as _, Sha256};
use worker_link::clipboard::{COMMAND_MAX, Command as Told, Event, Nonsense, START};
use worker_link::{CONTENT_MAX, MESSAGE_MAX, user_of_domain};

use crate::ward::{PATIENCE, TEXT, Ward, until, worker, worker_path};

/// What the child is told to do.
const CHILD: &str = "BULKHEAD_TEST_ROGUE_READER";
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
fn start() -> OwnedFd {
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
type Deed = (&'static str, fn(OwnedFd));

/// What the agent finds out by itself.
const FOUND: &[Deed] = &[
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
const ASKED: &[Deed] = &[
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
const KEEPS_QUIET: &str = "never answers";
const SAYS_NOTHING: &str = "says nothing of what its guest says";
const WAVERS: &str = "has a clipboard and has none";

/// What is no fault, as a guest may do it as well.
const LOUD: &[Deed] = &[
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
const OTHER: &[Deed] = &[("makes a text up", |file| {
    let number = is_asked();
    writes(&file, b"made up");
    says(&text(number, 7));
    // What it writes later is nobody's, and holds up nobody.
    let another = vec![b'x'; CONTENT_MAX as usize];
    loop {
        writes(&file, &another);
    }
})];

/// Runs itself in the worker's place.
#[test]
fn what_stands_in_a_readers_place() {
    if let Ok(name) = std::env::var(CHILD) {
        let mut deeds = [FOUND, ASKED, LOUD, OTHER].into_iter().flatten();
        deeds.find(|(known, _)| *known == name).unwrap().1(start());
        std::process::exit(0);
    }
}

/// Returns whether this process runs the test of this name alone. If not, one is started that does, and has passed.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "BULKHEAD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("rogue_readers::{test}");
    let mut child = Process::new(std::env::current_exe().unwrap());
    let output = child.args([&name, "--exact"]).env(ALONE, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A program that does this the first time that it reads the Internet guest, and what it should every other time.
fn rogue(dir: &Path, name: &str) -> Program {
    let (once, real, test) = (dir.join("once"), worker_path(), std::env::current_exe().unwrap());
    fs::write(&once, name).unwrap();
    let internet = user_of_domain(1).unwrap();
    let (once, real, test) = (once.display(), real.display(), test.display());
    Program::shell(
        dir,
        &format!(
            r#"if [ "$1 $2" = "clipboard {internet}" ] && [ -e {once} ]; then
    {CHILD}="$(cat {once})"; export {CHILD}
    rm {once}
    exec {test} rogue_readers::what_stands_in_a_readers_place --exact --nocapture 3<&0 0<&1 2>&3 1>/dev/null
fi
exec {real} "$@""#
        ),
    )
}

fn ward(dir: &Path, name: &str) -> Ward {
    let workers = Workers { reading: Some(rogue(dir, name)), decoding: Some(worker()) };
    Ward::unannounced(TEXT, workers)
}

/// The clinical guest's agent is heard, and copies; how long that takes.
fn clinical_copies(ward: &mut Ward) -> Duration {
    let began = Instant::now();
    ward.hotkey(Hotkey::Copy, 0);
    ward.said("Nothing is copied in CLINICAL");
    began.elapsed()
}

/// The Internet guest's stream is ended; text crosses on the next.
fn is_cut(mut ward: Ward, name: &str) {
    let mut rest = Vec::new();
    let _ = ward.internet.read_to_end(&mut rest);
    ward.reconnects();
    ward.text_crosses(name);
}

// Shows: C-9.
#[test]
fn a_reader_that_says_what_it_cannot_know_loses_its_guests_stream_and_nothing_else() {
    for (name, _) in FOUND {
        let dir = tempfile::tempdir().unwrap();
        let ward = ward(dir.path(), name);
        is_cut(ward, name);
    }
}

// Shows: C-9.
#[test]
fn a_reader_that_lies_about_what_was_copied_fails_that_copy_in_words_and_nothing_crosses() {
    for (name, _) in ASKED {
        let dir = tempfile::tempdir().unwrap();
        let ward = ward(dir.path(), name);
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
        std::thread::sleep(Duration::from_millis(100));
        ward.hotkey(Hotkey::Copy, 1);
        // What was pressed early is carried out when the copy has failed.
        ward.hotkey(Hotkey::Paste, 0);
        ward.wait(|event| {
            assert!(!matches!(event, ClipboardEvent::Authorize(_)), "{name} reached the monitor");
            matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with("Not copied: INTERNET"))
        });
        if *name == "never has content" {
            // As a guest may do: its stream goes on, and its reader is another after it.
            drop(ward);
            continue;
        }
        is_cut(ward, name);
    }
}

#[test]
fn a_reader_that_hangs_is_named_as_what_it_is_and_not_as_an_agent_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut ward = ward(dir.path(), SAYS_NOTHING);
    ward.internet.read_to_end(&mut Vec::new()).unwrap();
    ward.hotkey(Hotkey::Copy, 1);
    ward.said("INTERNET cannot copy or paste: what reads its clipboard has failed");
}

#[test]
fn a_guest_that_hangs_up_has_no_agent_from_then_on_though_its_reader_keeps_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let mut ward = ward(dir.path(), KEEPS_QUIET);
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
    let began = Instant::now();
    ward.internet.shutdown(std::net::Shutdown::Both).unwrap();
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
    let took = began.elapsed();
    assert!(took < HANG_UP / 2, "{took:?}");
    ward.reconnects();
    ward.text_crosses(KEEPS_QUIET);
}

// Shows: C-9.
#[test]
fn a_reader_that_is_loud_holds_itself_up_and_gives_nothing_to_the_agent() {
    // Its descriptors are no other test's.
    if !is_alone("a_reader_that_is_loud_holds_itself_up_and_gives_nothing_to_the_agent") {
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for (name, _) in LOUD {
        let dir = tempfile::tempdir().unwrap();
        let mut ward = ward(dir.path(), name);
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(0, true)));
        let before = descriptors();
        let (began, mut told) = (Instant::now(), 0);
        for _ in 0..5 {
            let copying = Instant::now();
            ward.hotkey(Hotkey::Copy, 0);
            ward.wait(|event| match event {
                ClipboardEvent::Agent(1, _) => {
                    told += 1;
                    false
                }
                event => matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with("Nothing is copied in CLINICAL")),
            });
            let took = copying.elapsed();
            assert!(took < Duration::from_secs(2), "{name}: {took:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Two more: what was told before this began, and at the same moment as its end.
        assert!(told <= began.elapsed().as_millis() / 100 + 2, "{name}: {told} times");
        let after = descriptors();
        assert!(after <= before, "{name}: {after} descriptors, and before {before}");
        // Its guest hangs up, and comes again.
        ward.internet.shutdown(std::net::Shutdown::Both).unwrap();
        if *name != WAVERS {
            // Of one that wavers it may have been told already.
            ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
        }
        ward.reconnects();
        ward.text_crosses(name);
    }
}

#[test]
fn a_program_in_a_readers_place_can_put_another_text_there_which_is_judged_and_no_more() {
    for (name, _) in OTHER {
        let dir = tempfile::tempdir().unwrap();
        let mut ward = ward(dir.path(), name);
        ward.are_heard();
        std::thread::sleep(Duration::from_millis(100));
        ward.hotkey(Hotkey::Copy, 1);
        let mut sha256 = String::new();
        ward.wait(|event| match event {
            ClipboardEvent::Note(event) if event.kind() == "clipboard-copied" => {
                event.record().detail["sha256"].as_str().unwrap().clone_into(&mut sha256);
                false
            }
            event => matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.done),
        });
        // The rules are those of another domain's content all the same.
        ward.clipboard.send(Command::Policy(crate::ward::policy("")));
        ward.hotkey(Hotkey::Paste, 0);
        ward.said("Not pasted");
        ward.clipboard.send(Command::Policy(crate::ward::policy(TEXT)));
        ward.hotkey(Hotkey::Paste, 0);
        ward.said("Ready");
        until(&mut ward.clinical, kind::CLIPBOARD_GRAB);
        let asks = crate::ward::words(&[0, content::UTF8_TEXT]);
        let asks = crate::ward::message(kind::CLIPBOARD_REQUEST, &asks);
        std::io::Write::write_all(&mut ward.clinical, &asks).unwrap();
        let body = until(&mut ward.clinical, kind::CLIPBOARD);
        let hash: String =
            Sha256::digest(&body[8..]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, sha256, "as it was when it was read, and judged");
        // Its file is written all the time, also when it is told that nobody waits any more.
        for _ in 0..5 {
            ward.hotkey(Hotkey::Copy, 1);
            let took = clinical_copies(&mut ward);
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }
}

#[test]
fn without_the_program_nothing_is_copied_and_it_is_said() {
    for reading in [None, Some(Program::script("/nonexistent/worker".into()))] {
        let workers = Workers { reading, decoding: None };
        let ward = Ward::unannounced(TEXT, workers);
        let deadline = Instant::now() + PATIENCE;
        loop {
            ward.hotkey(Hotkey::Copy, 1);
            let mut words = String::new();
            ward.wait(|event| match event {
                ClipboardEvent::Completed(_, outcome) => {
                    words.clone_from(&outcome.words);
                    true
                }
                _ => false,
            });
            if words.starts_with("INTERNET cannot copy or paste: what reads its clipboard") {
                break;
            }
            assert!(Instant::now() < deadline, "{words}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

#[test]
fn a_reader_that_is_killed_is_started_again_and_holds_up_nobody() {
    // Its readers are no other test's.
    if !is_alone("a_reader_that_is_killed_is_started_again_and_holds_up_nobody") {
        return;
    }
    let mut ward = Ward::open();
    for _ in 0..3 {
        let readers = children("clipboard");
        assert_eq!(readers.len(), 2, "{readers:?}");
        // The later is the Internet guest's: its number says so.
        let internet = user_of_domain(1).unwrap().to_string();
        let (pid, _) = readers.iter().find(|(_, user)| *user == internet).unwrap();
        let killed = Process::new("kill").args(["-9", pid]).status().unwrap();
        assert!(killed.success());
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
        ward.reconnects();
        ward.asks("goes on");
        until(&mut ward.clinical, kind::CLIPBOARD);
    }
}

/// Workers of this process in this role, with the number that they were started with.
fn children(role: &str) -> Vec<(String, String)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into())
            .collect();
        if words.first().is_some_and(|name| name == "bulkhead-worker")
            && words.get(1).is_some_and(|word| word == role)
            && words.get(3) == Some(&own)
        {
            found.push((entry.file_name().to_string_lossy().into(), words[2].clone()));
        }
    }
    found
}
