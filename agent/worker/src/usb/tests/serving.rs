use usbexport::Authority as _;
use usbfilter::stick::INPUT;
use usbredir::Status;
use usbredir::packet::{Bulk, Control, Interrupt};
use worker_link::usb::{Counts, Reason};

use super::*;

fn request(request_type: u8, request: u8, length: u16) -> Body {
    let (value, index) = (0x0100, 0);
    let (endpoint, status) = (request_type & 0x80, Status::Success);
    let data = Vec::new();
    Body::Control(Control { endpoint, request, request_type, status, value, index, length, data })
}

/// Waits for what the agent is told at the end, and returns what it was told before.
fn until_detached(agent: &Agent) -> (Vec<Message>, Reason, Counts) {
    let mut before = Vec::new();
    loop {
        match agent.hears().expect("it says why it ends") {
            Message::Detached { reason, counts, .. } => return (before, reason, counts),
            other => before.push(other),
        }
    }
}

#[test]
fn a_guest_has_its_device_is_held_to_what_is_permitted_and_the_agent_is_told() {
    let (mut guest, agent, thread) = served();
    guest.hears_of(|body| matches!(body, Body::DeviceConnect(_)));
    // The device descriptor, and then a request of its maker's, which nobody admitted.
    guest.says(1, request(0x80, 6, 18));
    guest.hears_of(
        |body| matches!(body, Body::Control(control) if control.data.first() == Some(&18)),
    );
    guest.says(2, request(0x40, 0xee, 0));
    guest
        .hears_of(|body| matches!(body, Body::Control(control) if control.status == Status::Stall));
    let Some(Message::Refused { times: 1, what }) = agent.hears() else { panic!("nothing said") };
    assert!(what.contains("control request 0xee"), "{what}");
    // Again, and it is told when the agent asks.
    guest.says(3, request(0x40, 0xee, 0));
    guest
        .hears_of(|body| matches!(body, Body::Control(control) if control.status == Status::Stall));
    agent.tell(Command::Flush);
    assert_eq!(agent.hears(), Some(Message::Refused { times: 1, what }));
    agent.tell(Command::Close);
    guest.hears_of(|body| matches!(body, Body::DeviceDisconnect));
    assert!(guest.hears().is_none(), "and the stream ends");
    let (before, reason, counts) = until_detached(&agent);
    assert_eq!((before, reason, counts.refused), (Vec::new(), Reason::Told, 2));
    thread.join().unwrap().unwrap();
    assert_eq!(agent.hears(), None);
}

#[test]
fn what_a_guest_does_again_and_again_floods_nobody() {
    let (mut guest, agent, thread) = served();
    guest.hears_of(|body| matches!(body, Body::DeviceConnect(_)));
    for kind in 0..200u8 {
        // Each of another kind, and told anew after each look.
        guest.says(u64::from(kind), request(0x40, kind, 0));
        guest.hears_of(|body| matches!(body, Body::Control(_)));
        agent.tell(Command::Flush);
    }
    agent.tell(Command::Close);
    let (before, _, counts) = until_detached(&agent);
    assert_eq!(counts.refused, 200);
    assert!((32..80).contains(&before.len()), "{}", before.len());
    thread.join().unwrap().unwrap();
}

/// Asks the worker whether it serves its device, and waits for the answer; passes over refusals.
fn is_served(agent: &Agent) {
    agent.tell(Command::Ask);
    loop {
        match agent.hears().expect("it answers") {
            Message::Serving => return,
            Message::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_worker_answers_that_it_serves_whatever_its_guest_takes_and_its_device_says() {
    // Nothing happens.
    let (mut guest, agent, thread) = served();
    guest.hears_of(|body| matches!(body, Body::DeviceConnect(_)));
    (0..3).for_each(|_| is_served(&agent));
    // The device does not answer, and the guest has asked for as much as it may.
    let ask =
        |length| Bulk { endpoint: INPUT, status: Status::Success, length, stream: 0, data: vec![] };
    for id in 100..200 {
        guest.says(id, Body::Bulk(ask(128 * 1024)));
    }
    is_served(&agent);
    // The guest takes nothing, and what it asked for lies unread.
    guest.stream.set_nonblocking(true).unwrap();
    let mut unsent = 0;
    for id in 1000..1_000_000 {
        let packet = Packet { id, body: request(0x80, 6, 18) };
        guest.session.send(&packet).unwrap();
        while let Ok(count @ 1..) = guest.stream.write(guest.session.output()) {
            guest.session.sent(count);
            unsent = 0;
        }
        // It is full, and stays so.
        if guest.session.output().len() > 64 * 1024 {
            unsent += 1;
            std::thread::sleep(Duration::from_millis(10));
            if unsent > 50 {
                break;
            }
        }
    }
    assert!(unsent > 50, "its worker reads on and on");
    (0..3).for_each(|_| is_served(&agent));
    drop(guest);
    assert_eq!(until_detached(&agent).1, Reason::NoVmm);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_guest_that_goes_or_says_nothing_known_is_told_to_the_agent() {
    let (mut guest, agent, thread) = served();
    guest.hears_of(|body| matches!(body, Body::DeviceConnect(_)));
    drop(guest);
    assert_eq!(until_detached(&agent).1, Reason::NoVmm);
    thread.join().unwrap().unwrap();

    let (mut guest, agent, thread) = served();
    guest.stream.write_all(&[0xff; 200]).unwrap();
    assert_eq!(until_detached(&agent).1, Reason::Stream);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_worker_without_an_agent_ends_and_its_guest_has_nothing_more() {
    let (mut guest, agent, thread) = served();
    guest.hears_of(|body| matches!(body, Body::DeviceConnect(_)));
    drop(agent);
    assert!(matches!(thread.join().unwrap(), Err(WorkerError::Orphan)));
    let read =
        Bulk { endpoint: INPUT, status: Status::Success, length: 512, stream: 0, data: vec![] };
    let _ = guest.session.send(&Packet { id: 9, body: Body::Bulk(read) });
    let _ = guest.stream.write_all(guest.session.output());
    assert_eq!(guest.stream.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn what_the_agent_says_while_it_is_asked_for_something_else_is_not_lost() {
    let (agent, workers) = Agent::pair();
    let channel = Rc::new(Channel::new(workers));
    agent.tell(Command::Flush);
    agent.tell(Command::Close);
    agent.tell(Command::Done(3));
    assert_eq!(AgentsAuthority(Rc::clone(&channel)).authorise(), Some(3));
    assert!(channel.is_waiting());
    assert_eq!(channel.heard().unwrap(), Some(Command::Flush));
    assert_eq!(channel.heard().unwrap(), Some(Command::Close));
    assert_eq!(channel.heard().unwrap(), None);
    assert_eq!(agent.hears(), Some(Message::Authorise));
    drop(agent);
    assert_eq!(AgentsAuthority(channel).authorise(), None);
}

#[test]
fn a_start_without_what_it_is_about_starts_nothing() {
    let (agent, workers) = Agent::pair();
    send(&agent.0, &worker_link::usb::Start { whole: true }.write(), SendFlags::empty()).unwrap();
    assert!(matches!(channel::receive_start(&workers), Err(WorkerError::NoFiles)));
    agent.tell(Command::Flush);
    assert!(matches!(channel::receive_start(&workers), Err(WorkerError::NoJob(_))));
    drop(agent);
    assert!(channel::receive_start(&workers).is_err());
}

#[test]
fn of_interrupt_endpoints_only_what_nobody_asked_for_may_be_lost_when_a_vmm_does_not_read() {
    let interrupt = |endpoint| {
        Body::Interrupt(Interrupt {
            endpoint,
            status: Status::Success,
            length: 0,
            data: Vec::new(),
        })
    };
    assert!(pump::is_unasked(&interrupt(0x81)), "a report");
    assert!(!pump::is_unasked(&interrupt(0x02)), "the answer that a guest waits for");
    let bulk =
        Bulk { endpoint: 0x81, status: Status::Success, length: 0, stream: 0, data: Vec::new() };
    assert!(!pump::is_unasked(&Body::Bulk(bulk)));
}
