//! GPU device, 2D (virtio 1.2 section 5.7): one screen and its cursor.
//!
//! | queue | |
//! |---|---|
//! | 0 | control: resources, scanout, flush |
//! | 1 | cursor |
//!
//! A resource's pixels stay where the driver put them, in guest memory. `RESOURCE_FLUSH` copies the flushed
//! rectangle straight into [`Frame`] memory, where the agent reads it: each damaged pixel is copied once. A
//! `TRANSFER_TO_HOST_2D` therefore moves nothing; it is only checked, and its `offset` has to be where the
//! rectangle's first pixel lies in a picture without gaps between rows, as every known driver has it.
//!
//! Who looks at the screen is a [`Viewer`]; the screen it looks at comes in through a [`Handle`], and may change
//! while the guest runs: the driver is then told by a configuration change to read size and EDID anew.
//!
//! Not offered: 3D, blobs, several screens, formats other than little-endian XRGB and ARGB.
#![forbid(unsafe_code)]

mod command;
mod cursor;
mod edid;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod resource;
mod scanout;
mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events};
use seat_link::{CursorChange, Rect, Size};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::read_bytes;
use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{
    ActivateError, Activation, Backlog, Chain, Device, DeviceConfig, GuestMemory, Interrupt,
    QueueError,
};
use command::{Command, Header};
use resource::{Refusal, Resources};
use scanout::Scanout;
use spec::{HEADER_BYTES, response};

pub use frame::Frame;

/// The most commands served before other devices of the thread have their turn.
const BUDGET: usize = 64;
/// The most bytes of one command's chain: a full list of entries and the response.
const CHAIN_MAX: u32 = command::ENTRIES_MAX * 16 + 4096;
/// The event by which the screen changes.
const SCREEN_TOKEN: u32 = Backlog::TOKEN + 1;

/// Who looks at the screen. Called on the device's thread; must not wait.
pub trait Viewer: Send {
    /// Called when the guest shows a picture of this size, from the top left of frame memory, or none.
    fn picture(&mut self, size: Option<Size>);
    /// Called when this part of frame memory was written.
    fn damage(&mut self, rect: Rect);
    /// Called when the guest's cursor looks or is shown otherwise.
    fn cursor(&mut self, cursor: CursorChange);
}

/// A handle by which any thread gives the device another screen.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inbox>);

#[derive(Debug)]
struct Inbox {
    next: Mutex<Option<Frame>>,
    event: EventFd,
}

impl Handle {
    /// Gives the guest this screen from now on.
    pub fn show_on(&self, frame: Frame) {
        *self.0.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame);
        // Fails only when the counter is full, and then the event is pending anyway.
        let _ = self.0.event.write(1);
    }
}

/// The configuration space (virtio 1.2 section 5.7.4).
#[derive(Debug, Default)]
struct Config {
    /// `events_read`: what happened and was not cleared.
    events: AtomicU32,
}

impl DeviceConfig for Config {
    fn read(&self, offset: usize, data: &mut [u8]) {
        let fields = [self.events.load(Ordering::Acquire), 0, 1, 0];
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        read_bytes(&bytes, offset, data);
    }

    fn write(&self, offset: usize, data: &[u8]) {
        if offset == spec::CONFIG_EVENTS_CLEAR
            && let Ok(clear) = <[u8; 4]>::try_from(data)
        {
            self.events.fetch_and(!u32::from_le_bytes(clear), Ordering::AcqRel);
        }
    }
}

/// A GPU device with one scanout and two-dimensional resources (virtio 1.2 section 5.7).
pub struct Gpu {
    backlog: Backlog,
    inbox: Arc<Inbox>,
    registered: bool,
    viewer: Box<dyn Viewer>,
    /// `None` until the agent gave one: the screen is then not connected.
    frame: Option<Frame>,
    config: Arc<Config>,
    running: Option<Running>,
}

struct Running {
    control: CheckedQueue,
    cursor: CheckedQueue,
    interrupt: Arc<dyn Interrupt>,
    driver: Driver,
}

/// What the driver set up.
struct Driver {
    memory: Arc<GuestMemory>,
    resources: Resources,
    scanout: Scanout,
}

impl Gpu {
    /// Makes a device whose screen `viewer` looks at, and the handle that gives it one.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(viewer: Box<dyn Viewer>) -> io::Result<(Self, Handle)> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let inbox = Arc::new(Inbox { next: Mutex::default(), event });
        let this = Self {
            backlog: Backlog::new()?,
            inbox: Arc::clone(&inbox),
            registered: false,
            viewer,
            frame: None,
            config: Arc::default(),
            running: None,
        };
        Ok((this, Handle(inbox)))
    }

    /// Takes the screen that was given last.
    fn take_screen(&mut self) {
        let _ = self.inbox.event.read();
        let next = self.inbox.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(frame) = next else { return };
        let resized = self.frame.as_ref().map(Frame::size) != Some(frame.size());
        self.frame = Some(frame);
        // The new memory is empty: what is shown now comes in at once, so that a restarted agent sees it.
        if let (Some(running), Some(frame)) = (&self.running, &self.frame) {
            running.driver.scanout.show(&running.driver, frame, &mut *self.viewer);
        }
        if resized {
            self.config.events.fetch_or(spec::EVENT_DISPLAY, Ordering::AcqRel);
            if let Some(running) = &self.running {
                running.interrupt.config_changed();
            }
        }
    }

    fn serve(&mut self) {
        let Self { running, frame, viewer, .. } = self;
        let Some(Running { control, cursor, interrupt, driver }) = running else { return };
        let frame = frame.as_ref();
        let served = control
            .serve(&**interrupt, spec::CONTROL_QUEUE, BUDGET, |chain| {
                driver.control(chain, frame, &mut **viewer)
            })
            .and_then(|first| {
                let second = cursor.serve(&**interrupt, spec::CURSOR_QUEUE, BUDGET, |chain| {
                    driver.cursor(chain, &mut **viewer)
                })?;
                Ok([first, second])
            });
        match served {
            Ok([Progress::Emptied, Progress::Emptied]) => {}
            Ok(_) => self.backlog.again(),
            Err(error) => {
                driver_error!("virtio-gpu", &error);
                interrupt.needs_reset();
                self.stop();
            }
        }
    }

    fn stop(&mut self) {
        if self.running.take().is_some() {
            self.viewer.picture(None);
            self.viewer.cursor(CursorChange::Hidden);
        }
    }
}

impl Driver {
    /// Carries out one command of the control queue; returns the length of its response in bytes.
    fn control(
        &mut self,
        chain: &Chain,
        frame: Option<&Frame>,
        viewer: &mut dyn Viewer,
    ) -> Result<usize, QueueError> {
        let mut reader = chain.reader();
        let (header, command) =
            command::parse(&mut reader).map_err(|_| QueueError::Request("a command cut short"))?;
        let mut body = Vec::new();
        let kind = match command {
            Command::GetDisplayInfo => {
                body = display_info(frame);
                response::OK_DISPLAY_INFO
            }
            Command::GetEdid { scanout: 0 } => match frame {
                Some(frame) => {
                    body = edid_info(frame.size());
                    response::OK_EDID
                }
                None => response::ERR_UNSPEC,
            },
            Command::GetEdid { .. } => response::ERR_INVALID_SCANOUT_ID,
            other => match self.carry_out(other, frame, viewer) {
                Ok(()) => response::OK_NODATA,
                Err(refusal) => refusal.code(),
            },
        };
        answer(chain, &header, kind, &body)
    }

    fn carry_out(
        &mut self,
        command: Command,
        frame: Option<&Frame>,
        viewer: &mut dyn Viewer,
    ) -> Result<(), Refusal> {
        match command {
            Command::Create { resource, format, width, height } => {
                self.resources.create(resource, format, Size { width, height })
            }
            Command::Unref { resource } => {
                self.resources.unref(resource)?;
                if self.scanout.is_of(resource) {
                    self.scanout = Scanout::default();
                    viewer.picture(None);
                }
                Ok(())
            }
            Command::SetScanout { scanout: 0, rect, resource } => {
                self.set_scanout(rect, resource, frame, viewer)
            }
            Command::SetScanout { .. } => Err(Refusal::Scanout),
            Command::Flush { rect, resource } => {
                let found = self.resources.get(resource)?;
                if !found.contains(rect) {
                    return Err(Refusal::Parameter);
                }
                if let (true, Some(frame)) = (self.scanout.is_of(resource), frame) {
                    let written = frame.copy(&self.memory, found, self.scanout.rect(), rect);
                    if !written.is_empty() {
                        viewer.damage(written);
                    }
                }
                Ok(())
            }
            Command::Transfer { rect, offset, resource } => {
                let found = self.resources.get(resource)?;
                if found.contains(rect) && found.offset(rect) == offset {
                    Ok(())
                } else {
                    Err(Refusal::Parameter)
                }
            }
            Command::Attach { resource, entries } => {
                self.resources.attach(&self.memory, resource, &entries)
            }
            Command::Detach { resource } => self.resources.detach(resource),
            Command::TooManyEntries => Err(Refusal::OutOfMemory),
            Command::GetDisplayInfo
            | Command::GetEdid { .. }
            | Command::UpdateCursor { .. }
            | Command::MoveCursor
            | Command::Unknown => Err(Refusal::Parameter),
        }
    }

    fn set_scanout(
        &mut self,
        rect: Rect,
        resource: u32,
        frame: Option<&Frame>,
        viewer: &mut dyn Viewer,
    ) -> Result<(), Refusal> {
        if resource == 0 {
            self.scanout = Scanout::default();
            viewer.picture(None);
            return Ok(());
        }
        if !self.resources.get(resource)?.contains(rect) || rect.is_empty() {
            return Err(Refusal::Parameter);
        }
        let before = std::mem::replace(&mut self.scanout, Scanout::new(resource, rect));
        // A flip between two pictures of one size is followed by a flush of what is different.
        if let Some(frame) = frame
            && (!before.is_on() || before.rect() != rect)
        {
            self.scanout.show(self, frame, viewer);
        }
        Ok(())
    }

    /// Carries out one command of the cursor queue. The picture is copied when it changes; where it is, the agent knows better.
    fn cursor(&mut self, chain: &Chain, viewer: &mut dyn Viewer) -> Result<usize, QueueError> {
        let mut reader = chain.reader();
        let (header, command) =
            command::parse(&mut reader).map_err(|_| QueueError::Request("a command cut short"))?;
        let done = match command {
            Command::UpdateCursor { scanout: 0, resource: 0, .. } => {
                viewer.cursor(CursorChange::Hidden);
                Ok(())
            }
            Command::UpdateCursor { scanout: 0, resource, hot_x, hot_y } => {
                self.resources.get(resource).map(|found| {
                    viewer.cursor(cursor::picture(&self.memory, found, hot_x, hot_y));
                })
            }
            Command::UpdateCursor { .. } => Err(Refusal::Scanout),
            Command::MoveCursor => Ok(()),
            _ => Err(Refusal::Parameter),
        };
        // Linux gives cursor commands no room for a response.
        if chain.writable_len() < HEADER_BYTES {
            return Ok(0);
        }
        answer(chain, &header, done.err().map_or(response::OK_NODATA, Refusal::code), &[])
    }
}

impl Refusal {
    fn code(self) -> u32 {
        match self {
            Self::OutOfMemory => response::ERR_OUT_OF_MEMORY,
            Self::Resource => response::ERR_INVALID_RESOURCE_ID,
            Self::Scanout => response::ERR_INVALID_SCANOUT_ID,
            Self::Parameter => response::ERR_INVALID_PARAMETER,
        }
    }
}

fn answer(chain: &Chain, header: &Header, kind: u32, body: &[u8]) -> Result<usize, QueueError> {
    let mut writer = chain.writer();
    let no_room = |_| QueueError::Request("a command without room for its response");
    writer.write_all(&header.response(kind)).map_err(no_room)?;
    writer.write_all(body).map_err(no_room)?;
    Ok(HEADER_BYTES + body.len())
}

/// Returns the body of `VIRTIO_GPU_RESP_OK_DISPLAY_INFO`: sixteen scanouts, of which the first may be connected.
fn display_info(frame: Option<&Frame>) -> Vec<u8> {
    let size = frame.map(Frame::size).unwrap_or_default();
    let enabled = u32::from(frame.is_some());
    let first = [0, 0, size.width, size.height, enabled, 0];
    let mut body: Vec<u8> = first.iter().flat_map(|field: &u32| field.to_le_bytes()).collect();
    body.resize(spec::SCANOUTS_MAX * 24, 0);
    body
}

/// Returns the body of `VIRTIO_GPU_RESP_OK_EDID`.
fn edid_info(size: Size) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + spec::EDID_BYTES);
    let edid = edid::of(size);
    body.extend_from_slice(&(edid.len() as u64).to_le_bytes()); // size and padding
    body.extend_from_slice(&edid);
    body.resize(8 + spec::EDID_BYTES, 0);
    body
}

impl Device for Gpu {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        RING_FEATURES | spec::F_EDID
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        Arc::clone(&self.config) as Arc<dyn DeviceConfig>
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let memory = Arc::new(memory);
        let mut queues = queues.into_iter();
        let mut take = |index| {
            let queue = queues.next().flatten().ok_or(ActivateError::QueueMissing(index))?;
            Ok(CheckedQueue::new(queue, &memory, features, CHAIN_MAX))
        };
        let control = take(spec::CONTROL_QUEUE)?;
        let cursor = take(spec::CURSOR_QUEUE)?;
        let driver = Driver {
            memory: Arc::clone(&memory),
            resources: Resources::default(),
            scanout: Scanout::default(),
        };
        self.running = Some(Running { control, cursor, interrupt, driver });
        Ok(())
    }

    fn reset(&mut self) {
        self.stop();
    }

    fn queue_notified(&mut self, _index: usize) {
        self.serve();
    }

    fn register(&mut self, ops: &mut EventOps) {
        self.backlog.register(ops);
        if !self.registered {
            let event = Events::with_data(&self.inbox.event, SCREEN_TOKEN, EventSet::IN);
            match ops.add(event) {
                Ok(()) => self.registered = true,
                Err(error) => tracing::error!(%error, "the guest's screen cannot change"),
            }
        }
    }

    fn host_event(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            SCREEN_TOKEN => self.take_screen(),
            Backlog::TOKEN => {
                self.backlog.take();
                self.serve();
            }
            _ => {}
        }
    }
}
