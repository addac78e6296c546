//! The pointer: one for the screen, moved by every mouse, pad and touch screen that is pinned to nobody.

use seat_link::{Event, Rect, Size, Target};

use super::held::Hold;
use super::{Action, Core, DeviceId, DomainIndex, Output, codes};

/// The last position on either axis of a domain's pointer.
const AXIS_MAX: i64 = 32767;
/// The last position on either axis of [`Motion::To`].
pub const POSITION_MAX: u32 = 0xffff;

/// Where a pointer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// This far, in pixels.
    By(i32, i32),
    /// There, from 0 at the top left to [`POSITION_MAX`] at the bottom right of the screen.
    To(u32, u32),
}

/// What a click in the banner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Click {
    /// Brings a domain to the front.
    Switch(DomainIndex),
    /// Locks the screen.
    Lock,
}

/// The places of things on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub screen: Size,
    /// Rows of the banner, from the top.
    pub banner: u32,
    /// Where each domain's picture is on the screen; empty while it shows none.
    pub pictures: Vec<Rect>,
    /// What can be clicked in the banner.
    pub clicks: Vec<(Rect, Click)>,
}

impl Geometry {
    /// Returns the middle of the screen.
    pub(super) fn middle(&self) -> (i32, i32) {
        self.on_screen((signed(self.screen.width / 2), signed(self.screen.height / 2)))
    }

    /// Returns the nearest pixel of the screen.
    pub(super) fn on_screen(&self, (x, y): (i32, i32)) -> (i32, i32) {
        let last = |side: u32| signed(side.saturating_sub(1));
        (x.clamp(0, last(self.screen.width)), y.clamp(0, last(self.screen.height)))
    }

    /// Returns whether a pixel is the banner's.
    pub(super) fn in_banner(&self, (_, y): (i32, i32)) -> bool {
        y < signed(self.banner)
    }

    fn click(&self, (x, y): (i32, i32)) -> Option<Click> {
        let (x, y) = (u32::try_from(x).ok()?, u32::try_from(y).ok()?);
        let pixel = Rect { x, y, width: 1, height: 1 };
        let hit = self.clicks.iter().find(|(place, _)| !place.shared(pixel).is_empty());
        hit.map(|(_, click)| *click)
    }

    /// Returns where in a domain's picture a pixel of the screen is, on the axes of its pointer.
    fn in_picture(&self, domain: DomainIndex, (x, y): (i32, i32)) -> Option<(i32, i32)> {
        let picture = self.pictures.get(domain).filter(|picture| !picture.is_empty())?;
        let axis = |at: i32, start: u32, length: u32| {
            let last = i64::from(length) - 1;
            let at = (i64::from(at) - i64::from(start)).clamp(0, last);
            // The middle of the pixel, so that the guest's own rounding finds the same one.
            let scaled = (2 * at + 1) * (AXIS_MAX + 1) / (2 * (last + 1));
            i32::try_from(scaled.min(AXIS_MAX)).unwrap_or(0)
        };
        Some((axis(x, picture.x, picture.width), axis(y, picture.y, picture.height)))
    }

    fn moved(&self, (x, y): (i32, i32), motion: Motion) -> (i32, i32) {
        self.on_screen(match motion {
            Motion::By(dx, dy) => (x.saturating_add(dx), y.saturating_add(dy)),
            Motion::To(x, y) => {
                let pixel = |at: u32, side: u32| {
                    let last = u64::from(side.saturating_sub(1));
                    let scaled = u64::from(at.min(POSITION_MAX)) * last / u64::from(POSITION_MAX);
                    i32::try_from(scaled).unwrap_or(i32::MAX)
                };
                (pixel(x, self.screen.width), pixel(y, self.screen.height))
            }
        })
    }
}

fn signed(pixels: u32) -> i32 {
    i32::try_from(pixels).unwrap_or(i32::MAX)
}

impl Core {
    pub(super) fn moved(&mut self, id: DeviceId, motion: Motion, out: &mut Vec<Output>) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        match device.pin {
            Some(domain) => {
                device.position = self.geometry.moved(device.position, motion);
                let position = device.position;
                if !self.locked {
                    self.send_position(domain, position, out);
                }
            }
            None => {
                self.pointer = self.geometry.moved(self.pointer, motion);
                out.push(Output::PointerMoved);
                if !self.pointer_is_ours() {
                    self.send_position(self.front, self.pointer, out);
                }
            }
        }
    }

    fn send_position(&self, domain: DomainIndex, at: (i32, i32), out: &mut Vec<Output>) {
        if let Some((x, y)) = self.geometry.in_picture(domain, at) {
            let position = |code, value| Event { kind: codes::EV_ABS, code, value };
            let events = vec![position(0, x), position(1, y), Event::SYN];
            out.push(Output::Send(domain, Target::Pointer, events));
        }
    }

    /// Handles a button of a pointer that is not pinned.
    pub(super) fn button(&mut self, code: u16, out: &mut Vec<Output>) -> Hold {
        if self.locked || self.gesture || self.question.is_some() {
            return Hold::Nobody;
        }
        if self.geometry.in_banner(self.pointer) {
            if code == codes::BTN_LEFT {
                match self.geometry.click(self.pointer) {
                    Some(Click::Switch(to)) => self.act(Action::Switch(to), out),
                    Some(Click::Lock) => self.act(Action::Lock, out),
                    None => {}
                }
            }
            return Hold::Nobody;
        }
        self.send_withheld(out);
        self.send_position(self.front, self.pointer, out);
        self.down(self.front, code, out)
    }

    pub(super) fn turned(&mut self, id: DeviceId, wheel: &[(u16, i32)], out: &mut Vec<Output>) {
        let Some(device) = self.devices.get(&id) else { return };
        let to = match device.pin {
            Some(domain) => Some(domain).filter(|_| !self.locked),
            None if self.pointer_is_ours() || self.gesture => None,
            None => {
                self.send_withheld(out);
                Some(self.front)
            }
        };
        if let Some(domain) = to {
            let turn = |&(code, value): &(u16, i32)| Event { kind: codes::EV_REL, code, value };
            let mut events: Vec<Event> = wheel.iter().map(turn).take(Event::MAX - 1).collect();
            events.push(Event::SYN);
            out.push(Output::Send(domain, Target::Pointer, events));
        }
    }
}
