//! The least a switch can cost: reads a key from evdev and flips the page, nothing else. Prints the microseconds from
//! the key's time stamp to the end of each flip, in the simulated PC: `seat-floor CARD KEYBOARD COUNT`.
#![allow(clippy::expect_used, reason = "a measuring program may end on what it cannot do")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::SystemTime;

use drm::buffer::DrmFourcc;
use drm::control::{Device as _, Event, ModeTypeFlags, PageFlipFlags, connector};
use evdev::raw_stream::RawDevice;
use rustix::process::setpriority_process;

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for Card {}
impl drm::control::Device for Card {}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [card, keyboard, count] = words.as_slice() else {
        eprintln!("usage: seat-floor CARD KEYBOARD COUNT");
        std::process::exit(2);
    };
    // As the seat's thread has it.
    setpriority_process(None, -10).expect("priority");
    let count: usize = count.parse().expect("a number");
    let file = OpenOptions::new().read(true).write(true).open(card).expect("the card");
    let card = Card(file);
    let resources = card.resource_handles().expect("resources");
    let connected = resources.connectors().iter().find_map(|handle| {
        let info = card.get_connector(*handle, true).ok()?;
        (info.state() == connector::State::Connected).then_some((*handle, info))
    });
    let (connector, info) = connected.expect("a monitor");
    let preferred = info.modes().iter().find(|m| m.mode_type().contains(ModeTypeFlags::PREFERRED));
    let mode = *preferred.or(info.modes().first()).expect("a mode");
    let crtc = *resources.crtcs().first().expect("a crtc");
    let (width, height) = mode.size();
    let frames = [0x40u8, 0x80].map(|level| {
        let size = (u32::from(width), u32::from(height));
        let mut buffer = card.create_dumb_buffer(size, DrmFourcc::Xrgb8888, 32).expect("memory");
        card.map_dumb_buffer(&mut buffer).expect("a mapping").fill(level);
        card.add_framebuffer(&buffer, 24, 32).expect("a frame buffer")
    });
    let [first, second] = frames;
    card.set_crtc(crtc, Some(first), (0, 0), &[connector], Some(mode)).expect("the mode");

    let nodes = std::fs::read_dir("/dev/input").expect("/dev/input").flatten();
    let mut device = nodes
        .filter_map(|node| RawDevice::open(node.path()).ok())
        .find(|device| device.name() == Some(keyboard))
        .expect("the keyboard");
    device.grab().expect("the keyboard for itself");
    println!("READY");
    let mut next = second;
    let mut done = 0;
    while done < count {
        let presses: Vec<SystemTime> = device
            .fetch_events()
            .expect("events")
            .filter(|event| event.event_type() == evdev::EventType::KEY && event.value() == 1)
            .map(|event| event.timestamp())
            .collect();
        for pressed in presses {
            card.page_flip(crtc, next, PageFlipFlags::EVENT, None).expect("a flip");
            loop {
                let mut events = card.receive_events().expect("the flip's end");
                if events.any(|event| matches!(event, Event::PageFlip(_))) {
                    break;
                }
            }
            let took = SystemTime::now().duration_since(pressed).unwrap_or_default();
            println!("{}", took.as_micros());
            next = if next == first { second } else { first };
            done += 1;
        }
    }
}
