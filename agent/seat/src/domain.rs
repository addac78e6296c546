//! What the seat has of one domain: its seat link, its frame memory, what it shows.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use seat_link::{
    Channel, Cursor, CursorChange, Event, PACKET_MAX, Packet, Rect, Size, Target, ToAgent, ToVmm,
    Update,
};

use super::frame::Frame;

/// What a domain's update changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainUpdate {
    /// The rectangle of frame memory that is new.
    pub damage: Rect,
    /// Whether its picture has another size, has appeared or is gone.
    pub picture: bool,
    /// Whether its cursor has another picture.
    pub cursor: bool,
    /// Whether it wants other keyboard lights.
    pub lights: bool,
    /// Whether it began or ceased to react to input.
    pub stalled: bool,
}

/// Why a link was given up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The VMM closed the link.
    #[error("the VMM closed its link")]
    Closed,
    /// The VMM sent a message that the protocol does not have.
    #[error("the VMM broke the link's rules")]
    Malformed(#[from] seat_link::Malformed),
    /// The VMM sent an update before the last one was acknowledged.
    #[error("the VMM sent an update before the last one was taken")]
    UnsolicitedUpdate,
    /// What the VMM wrote cannot be had.
    #[error("its frame memory cannot be read")]
    Frame(#[source] io::Error),
    /// The link's socket failed.
    #[error("the link failed")]
    Io(#[from] io::Error),
}

/// What a VMM loses that does not read, and how that is made good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    /// Whether input could not be sent, so that what is down in the guest is not certain any more.
    input_lost: bool,
}

impl Delivery {
    /// Returns whether the VMM has still to release every key.
    pub(crate) fn has_lost_input(self) -> bool {
        self.input_lost
    }

    /// Passes input on; `send` says whether the VMM took a message. What it does not take is lost.
    pub(crate) fn pass(&mut self, input: &ToVmm, send: &mut dyn FnMut(&ToVmm) -> bool) {
        self.catch_up(send);
        self.input_lost = self.input_lost || !send(input);
    }

    /// Tells a VMM that lost input to release every key, before it is sent anything else.
    pub(crate) fn catch_up(&mut self, send: &mut dyn FnMut(&ToVmm) -> bool) {
        self.input_lost = self.input_lost && !send(&ToVmm::ReleaseAll);
    }
}

/// What the seat has of one domain: the seat link, the frame memory and the picture in it.
#[derive(Default)]
pub struct SeatDomain {
    channel: Option<Channel>,
    frame: Option<Frame>,
    picture: Option<Size>,
    cursor: Option<Cursor>,
    /// A number that changes with the cursor's picture.
    shape: u64,
    lights: u8,
    stalled: bool,
    /// The update whose pixels are being read: nothing of it counts before they are there.
    fetching: Option<Update>,
    /// Whether an update was not acknowledged yet.
    ack_pending: bool,
    delivery: Delivery,
    /// Whether the VMM was not sent its frame memory yet.
    untold: bool,
}

impl SeatDomain {
    /// Takes the agent's end of a new VMM's link, and gives the VMM a screen of `size`.
    ///
    /// # Errors
    /// There is no memory for the screen, or the VMM is gone already.
    pub fn attach(&mut self, socket: OwnedFd, size: Size) -> Result<(), LinkError> {
        *self = Self { shape: self.shape + 1, ..Self::default() };
        self.channel = Some(Channel::new(socket)?);
        self.resize(size)
    }

    /// Forgets the link; what it last showed goes with it.
    pub fn detach(&mut self) {
        *self = Self { shape: self.shape + 1, ..Self::default() };
    }

    /// Gives the VMM a screen of another size.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn resize(&mut self, size: Size) -> Result<(), LinkError> {
        if self.channel.is_none() || self.frame.as_ref().is_some_and(|frame| frame.size() == size) {
            return Ok(());
        }
        let frame = Frame::new(size)?;
        if self.fetching.is_some() {
            // The memory in which it was read is no more.
            frame.fetch(Rect::all(size));
        }
        self.frame = Some(frame);
        self.untold = true;
        self.send_display()?;
        Ok(())
    }

    fn send_display(&mut self) -> io::Result<()> {
        if let (true, Some(channel), Some(frame)) = (self.untold, &self.channel, &self.frame) {
            let display = ToVmm::Display(frame.size()).encode();
            self.untold = !channel.send_file(&display, frame.fd())?;
        }
        Ok(())
    }

    /// Returns what to wait for before [`Self::take`] is called: an update, or what is read of one; nothing while the VMM is owed
    /// an answer, as it says nothing before that anyway.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.frame, &self.fetching) {
            (Some(frame), Some(_)) => Some(frame.fetched_fd()),
            _ if self.ack_pending => None,
            _ => self.channel.as_ref().map(AsFd::as_fd),
        }
    }

    /// Returns its frame memory and the size of its picture, while it shows one.
    #[must_use]
    pub fn picture(&self) -> Option<(&Frame, Size)> {
        self.frame.as_ref().zip(self.picture)
    }

    /// Returns its cursor, and a number that changes with it.
    #[must_use]
    pub fn cursor(&self) -> (Option<&Cursor>, u64) {
        (self.cursor.as_ref(), self.shape)
    }

    /// Returns the lights that the guest wants.
    #[must_use]
    pub fn lights(&self) -> u8 {
        self.lights
    }

    /// Returns whether it does not take what is typed.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Reads what the VMM sent, one update at most, and returns what it changes. What changes pixels is returned by the call
    /// after they were read, which takes as long as the VMM likes and keeps nobody else waiting.
    ///
    /// # Errors
    /// The link is of no use any more; the caller detaches.
    pub fn take(&mut self, buffer: &mut [u8; PACKET_MAX]) -> Result<DomainUpdate, LinkError> {
        if let (Some(frame), true) = (&self.frame, self.fetching.is_some()) {
            let update = match frame.fetched() {
                Some(Ok(())) => self.fetching.take(),
                Some(Err(error)) => return Err(LinkError::Frame(error)),
                None => None,
            };
            return Ok(update.map(|update| self.apply(update)).unwrap_or_default());
        }
        let Some(channel) = &self.channel else { return Ok(DomainUpdate::default()) };
        let update = match channel.receive(buffer)? {
            Packet::Nothing => return Ok(DomainUpdate::default()),
            Packet::Closed => return Err(LinkError::Closed),
            Packet::Message(packet, _) => {
                let ToAgent::Update(update) = ToAgent::decode(packet)?;
                update
            }
        };
        if std::mem::replace(&mut self.ack_pending, true) {
            return Err(LinkError::UnsolicitedUpdate);
        }
        if let (Some(frame), Some(picture)) = (&self.frame, update.picture) {
            // Of a picture of another size the VMM may have written more than it says.
            let whole = self.picture != update.picture;
            let written = if whole { Rect::all(frame.size()) } else { update.damage };
            let seen = written.within(frame.size()).within(picture);
            if !seen.is_empty() {
                frame.fetch(seen);
                self.fetching = Some(update);
                return Ok(DomainUpdate::default());
            }
        }
        Ok(self.apply(update))
    }

    /// Takes an update whose pixels are there.
    fn apply(&mut self, update: Update) -> DomainUpdate {
        let mut change = DomainUpdate {
            damage: update.damage,
            picture: self.picture != update.picture,
            lights: self.lights != update.leds,
            stalled: self.stalled != update.stalled,
            cursor: false,
        };
        (self.picture, self.lights) = (update.picture, update.leds);
        self.stalled = update.stalled;
        match update.cursor {
            CursorChange::Same => {}
            CursorChange::Hidden => {
                change.cursor = self.cursor.take().is_some();
            }
            CursorChange::Shown(cursor) => {
                self.cursor = Some(*cursor);
                change.cursor = true;
            }
        }
        self.shape += u64::from(change.cursor);
        change
    }

    /// Returns whether an update waits to be acknowledged, and can be.
    #[must_use]
    pub fn is_ack_pending(&self) -> bool {
        self.ack_pending && self.fetching.is_none()
    }

    /// Acknowledges the last update, as it is on the screen: the next may come.
    pub fn acknowledge(&mut self) {
        if self.is_ack_pending() && self.send(&ToVmm::UpdateAck) {
            self.ack_pending = false;
        }
    }

    /// Passes input on. What a VMM does not take is lost, and every key is released as soon as it takes
    /// something again, before anything else is passed on ([`Self::catch_up`]).
    pub fn input(&mut self, target: Target, events: Vec<Event>) {
        self.catch_up();
        let mut delivery = self.delivery;
        delivery.pass(&ToVmm::Input(target, events), &mut |message| self.send(message));
        self.delivery = delivery;
    }

    /// Returns whether the VMM has not taken something that it must have, so that [`Self::catch_up`] has to be called again.
    #[must_use]
    pub fn must_catch_up(&self) -> bool {
        self.delivery.has_lost_input() || self.untold
    }

    /// Sends what the VMM must have and did not take before, though nobody types into it any more: that
    /// every key is released, and its frame memory.
    pub fn catch_up(&mut self) {
        let mut delivery = self.delivery;
        delivery.catch_up(&mut |message| self.send(message));
        self.delivery = delivery;
        // A link whose other end is gone is noticed where it is read.
        let _ = self.send_display();
    }

    fn send(&self, message: &ToVmm) -> bool {
        match &self.channel {
            // A link whose other end is gone is noticed where it is read.
            Some(channel) => channel.send(&message.encode()).unwrap_or(true),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
