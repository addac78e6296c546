//! Programs in the worker's place that do what a worker does that was taken over, with more rights than it has: they are in no sandbox.

mod ending;
mod hanging;

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::prelude::*;
use usbdescriptors::Share;
use worker_link::usb::{Job, Message, Reason, Speed};
use workers::Program;

use super::*;

/// A program that runs this. Its standard input is the stream to the VMM, its standard output the channel.
fn rogue(dir: &Path, script: &str) -> DomainWorkers {
    DomainWorkers { program: Program::shell(dir, script), user: 63_998 }
}

fn job() -> Job {
    Job {
        read_only: true,
        speed: Speed::High,
        share: Share::Interfaces([1].into()),
        budget: 1 << 20,
        descriptors: vec![18, 1],
        others: Vec::new(),
    }
}

/// What came of a program in the worker's place.
#[derive(Debug)]
struct Came {
    told: Vec<DeviceThreadEvent>,
    outcome: Result<(), NotServed>,
    carried_nothing: bool,
    authorised: usize,
    took: Duration,
    /// What its VMM was sent.
    vmm: Vec<u8>,
}

impl Came {
    fn refusals(&self) -> usize {
        let refused =
            |event: &&DeviceThreadEvent| matches!(event, DeviceThreadEvent::Refused { .. });
        self.told.iter().filter(refused).count()
    }

    /// Returns why it was detached, of one that had begun: once, and last.
    fn detached(&self) -> &DetachReason {
        assert!(self.outcome.is_ok(), "{self:?}");
        assert!(matches!(self.told.first(), Some(DeviceThreadEvent::Begun)), "{self:?}");
        let ends = |event: &&DeviceThreadEvent| matches!(event, DeviceThreadEvent::Detached(..));
        assert_eq!(self.told.iter().filter(ends).count(), 1, "{self:?}");
        match self.told.last() {
            Some(DeviceThreadEvent::Detached(Some(reason), counts)) => {
                let failed = matches!(reason, DetachReason::Stream(why) if why.contains(FAILED));
                assert!(!failed || counts.is_none(), "what it counted is not known: {self:?}");
                reason
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Starts a program that runs this in a worker's place, with the stream of this VMM.
fn started(script: &str) -> (tempfile::TempDir, DeviceWorker, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let (stream, vmm) = UnixStream::pair().unwrap();
    let node = File::open("/dev/null").unwrap().into();
    let worker = DeviceWorker::start(&rogue(dir.path(), script), stream.into(), node, &job());
    (dir, worker.unwrap(), vmm)
}

fn waker() -> ThreadWaker {
    ThreadWaker(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap())
}

/// What the broker does when it is told something, and before.
type During = dyn Fn(&mpsc::Sender<DeviceThreadCommand>, &ThreadWaker, Option<&DeviceThreadEvent>);

/// Attends to what this script is, and has `during` send the broker's commands whenever it is told something, or asked to authorise.
fn attend_with(script: &str, configuration: Option<u8>, during: &During) -> Came {
    attend_before(script, configuration, during, |_| {})
}

/// As above; `with_vmm` is done with the VMM's end of the stream when the worker has been started.
fn attend_before(
    script: &str,
    configuration: Option<u8>,
    during: &During,
    with_vmm: impl FnOnce(&UnixStream),
) -> Came {
    let (_dir, worker, mut vmm) = started(script);
    with_vmm(&vmm);
    let pid = worker.process.id();
    let waker = waker();
    let (sender, commands) = mpsc::channel();
    let (told, authorised) = (RefCell::new(Vec::new()), Cell::new(0));
    let began = Moment::now();
    during(&sender, &waker, None);
    let Served { outcome, carried_nothing } = Attendant {
        worker,
        commands: &commands,
        waker: &waker,
        cut: &Cut::default(),
        authorise: &|| {
            authorised.set(authorised.get() + 1);
            configuration
        },
        tell: &|event| {
            during(&sender, &waker, Some(&event));
            told.borrow_mut().push(event);
        },
        begin_within: Duration::from_secs(4),
        look_every: LOOK_EVERY,
        what: "a device".to_owned(),
    }
    .attend();
    let took = began.elapsed();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is left: {script}");
    let mut sent = Vec::new();
    vmm.set_nonblocking(true).unwrap();
    // Children of a script's own may have the stream still.
    let _ = vmm.read_to_end(&mut sent);
    let (told, authorised) = (told.into_inner(), authorised.get());
    Came { told, outcome, carried_nothing, authorised, took, vmm: sent }
}

fn attend(script: &str) -> Came {
    attend_with(script, Some(1), &|_, _, _| {})
}

/// As [`attend`], of a worker whose VMM goes.
fn attend_gone(script: &str) -> Came {
    attend_before(script, Some(1), &|_, _, _| {}, |vmm| {
        vmm.shutdown(std::net::Shutdown::Both).unwrap()
    })
}

const FAILED: &str = "what serves it failed";

// Shows: C-8.
#[test]
fn a_worker_that_keeps_silent_when_its_vmm_has_gone_is_ended_and_the_device_is_free() {
    let script = format!("{BEGUN}; exec sleep 1000");
    let gone = |vmm: &UnixStream| vmm.shutdown(std::net::Shutdown::Both).unwrap();
    let came = attend_before(&script, Some(1), &|_, _, _| {}, gone);
    assert!(matches!(came.detached(), DetachReason::NoVmm), "{came:?}");
    assert!(came.took >= GONE_WITHIN && came.took < Duration::from_secs(30), "{came:?}");
    // One that says so itself is believed, and has its time.
    let script = format!("{BEGUN}; sleep 1; {}", detached(1, ""));
    let came = attend_before(&script, Some(1), &|_, _, _| {}, gone);
    assert!(matches!(came.detached(), DetachReason::NoVmm), "{came:?}");
    assert!(came.took < GONE_WITHIN, "{came:?}");
}

/// In octal, as `printf` has it: that it has begun, and that the guest has the device no longer, for the reason of this number.
const BEGUN: &str = r"printf '\002'";

fn detached(reason: u8, words: &str) -> String {
    let zeros = r"\000".repeat(26);
    format!(r"printf '\004\{reason:03o}{zeros}{words}'")
}

fn failed(came: &Came) -> &str {
    assert!(came.told.is_empty(), "{came:?}");
    came.outcome.as_ref().unwrap_err().text()
}

// Shows: C-8.
#[test]
fn whatever_stands_in_the_workers_place_before_it_has_begun_costs_its_device_alone_in_words() {
    for (script, why) in [
        ("exit 0", "it ended with status 0"),
        ("exit 3", "another version"),
        ("kill -9 $$", "signal 9"),
        (r"printf '\377'; exec sleep 1000", "no message"),
        ("head -c 60000 /dev/zero; exec sleep 1000", "no message"),
        (r"printf '\003\001\000\000\000\000\000\000\000x'; exec sleep 1000", "may not"),
        (&*format!("{}; exec sleep 1000", detached(1, "")), "may not"),
        ("exec sleep 1000", "not begun in time"),
        ("while :; do printf '\\001'; done", "that interfaces are new"),
    ] {
        let came = attend(script);
        let said = failed(&came);
        // One that does what no worker does may have done anything.
        let keeps_to_it =
            !["no message", "may not", "interfaces are new"].iter().any(|lie| why.contains(lie));
        assert_eq!(came.carried_nothing, keeps_to_it, "{script}");
        assert!(said.contains(why) && said.contains("plug it in again"), "{script}: {said}");
        assert!(came.took < Duration::from_secs(30), "{script}: {:?}", came.took);
        assert!(came.authorised <= 9, "{script}: {}", came.authorised);
    }
    let came = attend(r"printf '\005its node is gone\033[2J'; exit 0");
    assert_eq!(failed(&came), "what serves it says \"its node is gone\\u{1b}[2J\"");
    assert!(came.carried_nothing);
    assert!(!came.outcome.unwrap_err().seat_text().contains("node"));
}

#[test]
fn a_device_that_is_another_by_now_is_authorised_for_nobody() {
    let came = attend_with(r"printf '\001'; exec sleep 1000", None, &|_, _, _| {});
    assert!(failed(&came).contains("another by now, or gone"), "{came:?}");
    assert_eq!(came.authorised, 1);
}

// Shows: C-8.
#[test]
fn whatever_stands_in_the_workers_place_later_has_its_device_detached_once_in_words() {
    let again = format!("{BEGUN}; {BEGUN}; exec sleep 1000");
    let flood =
        format!(r"{BEGUN}; while :; do printf '\003\377\377\377\377\377\377\377\377flood'; done");
    let asks = format!(r"{BEGUN}; while :; do printf '\001'; done");
    let lies = format!(r"{BEGUN}; printf '\005I never began'; exec sleep 1000");
    let unknown = format!("{BEGUN}; {}; exec sleep 1000", detached(7, "no such reason"));
    for (script, why) in [
        (format!("{BEGUN}; exit 0"), "it ended with status 0"),
        (format!("{BEGUN}; kill -9 $$"), "it was ended by signal 9"),
        (format!("{BEGUN}; kill -31 $$"), "it was ended by signal 31"),
        (format!("{BEGUN}; printf 'noise'; exec sleep 1000"), "no message"),
        (again, "that it has begun"),
        (lies, "that it cannot begin"),
        (unknown, "no message"),
        (flood, "more than there is to say"),
        (asks, "that interfaces are new"),
    ] {
        let came = attend(&script);
        let DetachReason::Stream(said) = came.detached() else { panic!("{came:?}") };
        assert!(said.contains(why) && said.contains("plug it in again"), "{script}: {said}");
        assert!(came.refusals() <= 64, "{script}: {}", came.refusals());
        assert!(came.authorised <= 9, "{script}: {}", came.authorised);
        assert!(came.took < Duration::from_secs(30), "{script}: {:?}", came.took);
        assert!(!came.carried_nothing, "it had begun: {script}");
    }
}

#[test]
fn what_a_worker_says_of_its_end_is_said_once_fit_to_be_shown_and_goes_no_further() {
    let long = "a".repeat(480);
    let words = format!(r"gone\033]0;x\007\342\200\256{long}");
    let after = r"printf '\002'; printf '\001'; exec sleep 1000";
    let came = attend(&format!("{BEGUN}; {}; {after}", detached(2, &words)));
    let DetachReason::NoDevice(said) = came.detached() else { panic!("{came:?}") };
    let begins =
        "it was pulled out, or does not work any more: what serves it says \"gone\\u{1b}]0;x";
    assert!(said.starts_with(begins) && said.contains("\\u{7}\\u{202e}aaa"), "{said}");
    assert!(said.ends_with("\""), "{said}");
    assert!(said.chars().all(printable::is_shown) && said.chars().count() < 300, "{said}");
    assert_eq!(came.authorised, 0, "what it asks for afterwards is for nobody");
    // One that was not told to end has no reason of its own: its VMM has gone, or it failed.
    for reason in [0, 1] {
        let script = format!("{BEGUN}; {}; exit 0", detached(reason, "lies"));
        assert_eq!(*attend_gone(&script).detached(), DetachReason::NoVmm);
        let came = attend(&script);
        let DetachReason::Stream(said) = came.detached() else { panic!("{came:?}") };
        assert!(said.contains("its VMM has gone, which has not"), "{said}");
        assert!(said.contains("plug it in again"), "{said}");
    }
}

#[test]
fn a_worker_that_is_to_close_closes_and_one_that_does_not_is_cut() {
    // It reads the start, and then waits for its command.
    let honest = format!(
        "dd bs=64 count=1 <&1 >/dev/null 2>&1; {BEGUN}; dd bs=64 count=1 <&1 >/dev/null 2>&1; {}; exit 0",
        detached(0, "")
    );
    let close = |sender: &mpsc::Sender<DeviceThreadCommand>,
                 waker: &ThreadWaker,
                 event: Option<&DeviceThreadEvent>| {
        if matches!(event, Some(DeviceThreadEvent::Begun)) {
            sender.send(DeviceThreadCommand::Close).unwrap();
            waker.notify();
        }
    };
    let came = attend_with(&honest, Some(1), &close);
    assert!(came.outcome.is_ok());
    assert!(
        matches!(&came.told[..], [DeviceThreadEvent::Begun, DeviceThreadEvent::Detached(None, _)]),
        "{came:?}"
    );
    // One that says nothing at all, until the broker lets it go.
    let deaf = format!("{BEGUN}; exec sleep 1000");
    let cut = |sender: &mpsc::Sender<DeviceThreadCommand>,
               waker: &ThreadWaker,
               event: Option<&DeviceThreadEvent>| {
        if matches!(event, Some(DeviceThreadEvent::Begun)) {
            sender.send(DeviceThreadCommand::Close).unwrap();
            sender.send(DeviceThreadCommand::Cut).unwrap();
            waker.notify();
        }
    };
    let came = attend_with(&deaf, Some(1), &cut);
    assert!(came.outcome.is_ok() && came.told.len() == 1, "{came:?}");
    assert!(came.took < Duration::from_secs(10), "{:?}", came.took);
    // Before it has begun, too.
    let at_once = |sender: &mpsc::Sender<DeviceThreadCommand>,
                   _: &ThreadWaker,
                   event: Option<&DeviceThreadEvent>| {
        if event.is_none() {
            sender.send(DeviceThreadCommand::Cut).unwrap();
        }
    };
    let came = attend_with("exec sleep 1000", Some(1), &at_once);
    assert!(came.outcome.is_ok() && came.told.is_empty() && came.carried_nothing, "{came:?}");
}

#[test]
fn a_worker_that_reads_its_answers_has_its_interfaces_authorised_as_often_as_a_guest_resets_and_then_slowly()
 {
    let read = "dd bs=64 count=1 <&1 >/dev/null 2>&1";
    let ask = format!("printf '\\001'; {read}");
    let script = format!("{read}; {BEGUN}; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {ask}; done");
    let came = attend(&script);
    assert_eq!(came.authorised, 12, "it is not lost");
    // Eight at once, and one for each second.
    assert!(came.took >= Duration::from_secs(3), "{came:?}");
}

#[test]
fn a_worker_that_is_cut_is_killed_at_once_though_its_thread_waits_for_the_device() {
    let (_dir, worker, _vmm) = started(&format!(r"{BEGUN}; printf '\001'; exec sleep 1000"));
    let cut = Cut::default();
    cut.take(worker.killed_by().unwrap());
    let stat = format!("/proc/{}/stat", worker.process.id());
    let is_dead = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
    let died = Cell::new(false);
    let (waker, (sender, commands)) = (waker(), mpsc::channel());
    let told = RefCell::new(Vec::new());
    let attendant = Attendant {
        worker,
        commands: &commands,
        waker: &waker,
        cut: &cut,
        // The device is held up, and the broker lets it go meanwhile.
        authorise: &|| {
            cut.cut();
            sender.send(DeviceThreadCommand::Cut).unwrap();
            let until = Moment::now() + Duration::from_secs(10);
            while !died.get() && Moment::now() < until {
                died.set(is_dead());
            }
            Some(1)
        },
        tell: &|event| told.borrow_mut().push(event),
        begin_within: Duration::from_secs(4),
        look_every: LOOK_EVERY,
        what: "a device".to_owned(),
    };
    attendant.attend().outcome.unwrap();
    assert!(died.get(), "it had the device for as long as its thread waited");
    assert!(matches!(told.into_inner()[..], [DeviceThreadEvent::Begun]), "it did not fail");
    // One that is started afterwards does not live on.
    let (_dir, mut worker, _vmm) = started("exec sleep 1000");
    cut.take(worker.killed_by().unwrap());
    let ended = PollFd::new(worker.process.fd(), PollFlags::POLLIN);
    assert_eq!(poll(&mut [ended], PollTimeout::from(10_000_u16)), Ok(1));
    worker.end();
}

#[test]
fn nothing_is_left_of_a_worker_whose_thread_fails_when_what_it_has_of_the_device_is_let_go() {
    let (_dir, worker, _vmm) = started(&format!("{BEGUN}; exec sleep 1000"));
    let proc = format!("/proc/{}", worker.process.id());
    let (waker, (_sender, commands)) = (waker(), mpsc::channel());
    let attendant = Attendant {
        worker,
        commands: &commands,
        waker: &waker,
        cut: &Cut::default(),
        authorise: &|| None,
        tell: &|_| panic!("a fault"),
        begin_within: Duration::from_secs(4),
        look_every: LOOK_EVERY,
        what: "a device".to_owned(),
    };
    let attending = std::panic::AssertUnwindSafe(|| attendant.attend());
    assert!(std::panic::catch_unwind(attending).is_err());
    // What comes next on its thread is its node and its port.
    assert!(!Path::new(&proc).exists());
}

#[test]
fn a_worker_that_takes_no_message_is_ended() {
    let many = |sender: &mpsc::Sender<DeviceThreadCommand>,
                waker: &ThreadWaker,
                event: Option<&DeviceThreadEvent>| {
        if matches!(event, Some(DeviceThreadEvent::Begun)) {
            for _ in 0..100_000 {
                sender.send(DeviceThreadCommand::Flush).unwrap();
            }
            waker.notify();
        }
    };
    let came = attend_with(&format!("{BEGUN}; exec sleep 1000"), Some(1), &many);
    let DetachReason::Stream(said) = came.detached() else { panic!("{came:?}") };
    assert!(said.contains("it takes no message"), "{said}");
}

#[test]
fn a_rogue_worker_has_the_stream_of_its_own_vmm_and_no_other_and_the_next_device_is_served() {
    let came = attend(&format!("{BEGUN}; printf 'to my own VMM' >&0; exit 0"));
    assert_eq!(came.vmm, b"to my own VMM");
    // No descriptor of the agent's but standard error, whatever else that has open.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done >&0; exit 0";
    let came = attend(&format!("{BEGUN}; {list}"));
    theirs.set_nonblocking(true).unwrap();
    ours.write_all(b"other").unwrap();
    let sockets = String::from_utf8_lossy(&came.vmm);
    let sockets = sockets.lines().filter(|line| line.starts_with("socket:")).count();
    assert!(sockets <= 2, "{}", String::from_utf8_lossy(&came.vmm));
    let honest = attend_gone(&format!("{BEGUN}; {}; exit 0", detached(1, "")));
    assert_eq!(*honest.detached(), DetachReason::NoVmm);
}

#[test]
fn a_program_that_does_not_start_is_an_error() {
    let (stream, _vmm) = UnixStream::pair().unwrap();
    let node = File::open("/dev/null").unwrap().into();
    let started = DeviceWorker::start(&DomainWorkers::none(), stream.into(), node, &job());
    assert_eq!(started.unwrap_err().kind(), io::ErrorKind::NotFound);
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let counts = worker_link::usb::Counts { to_device: u64::MAX, ..Default::default() };
    let reasons = prop::sample::select(Reason::ALL.to_vec());
    prop_oneof![
        4 => Just(Message::Authorise.write()),
        2 => Just(Message::Begun.write()),
        1 => Just(Message::Serving.write()),
        6 => (any::<u64>(), ".{0,40}").prop_map(|(times, what)| Message::Refused { times, what }.write()),
        1 => (reasons, ".{0,600}").prop_map(move |(reason, why)| {
            Message::Detached { reason, counts: counts.clone(), why }.write()
        }),
        1 => ".{0,40}".prop_map(|why| Message::Failed(why).write()),
        1 => prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn whatever_a_worker_says_its_device_begins_once_ends_once_and_is_rated(
        messages in prop::collection::vec(any_message(), 0..700),
        closing in any::<bool>(),
    ) {
        let now = Moment::now();
        let mut turn = Turn::new(now, LOOK_EVERY);
        turn.closing = closing;
        let (mut begun, mut ended, mut refused, mut authorised) = (false, false, 0, 0);
        for bytes in &messages {
            match turn.hear(now, bytes) {
                // It is killed, and nothing of it is heard any more.
                Err(_) => break,
                Ok(Heard::Nothing) => prop_assert!(!ended),
                Ok(Heard::Failed(why)) => {
                    prop_assert!(!begun && why.chars().all(printable::is_shown));
                    break;
                }
                Ok(Heard::Tell(DeviceThreadEvent::Begun)) => {
                    prop_assert!(!begun && !ended);
                    begun = true;
                }
                Ok(Heard::Tell(DeviceThreadEvent::Refused { what, .. })) => {
                    prop_assert!(begun && !ended && what.chars().all(printable::is_shown));
                    refused += 1;
                }
                Ok(Heard::Tell(DeviceThreadEvent::Detached(reason, _))) => {
                    prop_assert!(begun && !ended);
                    prop_assert!(closing || reason.is_some());
                    let text = reason.as_ref().map_or("", |reason| reason.text()).to_owned();
                    prop_assert!(text.chars().all(printable::is_shown));
                    ended = true;
                }
            }
            if turn.owed(now).is_some_and(|wait| wait.is_zero()) {
                prop_assert!(!ended);
                turn.authorised(now);
                authorised += 1;
            }
        }
        prop_assert!(refused <= 64 && authorised <= 8);
    }
}
