//! Devices that do not exist, at the simulated PC's own USB ports: QEMU's `usb-redir` has them from a stream of ours.

mod card_keyboard;
mod hid;
mod security_key;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use usbfilter::stick::Stick;
use usbredir::{Body, Packet, Role, Session};

pub use card_keyboard::CardKeyboard;
pub use security_key::SecurityKey;

use crate::qmp::Qmp;
use crate::{Failure, Outcome, WardPc, ensure};

const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Plugs a stick of QEMU's own with this medium and serial number into a port of the PC's.
pub fn plug_stick(qmp: &mut Qmp, name: &str, medium: &Path, serial: &str) -> Outcome {
    let node = format!("{name}-medium");
    let blockdev = json!({"driver": "raw", "node-name": node,
        "file": {"driver": "file", "filename": medium}});
    if qmp.execute("blockdev-add", blockdev.clone()).is_err() {
        // A test that failed left it plugged in.
        pull_stick(qmp, name)?;
        qmp.execute("blockdev-add", blockdev)?;
    }
    let device = json!({"driver": "usb-storage", "id": name, "bus": "xhci.0", "port": "3",
        "drive": node, "serial": serial});
    qmp.execute("device_add", device).map(drop)
}

/// Pulls it out, and waits until nobody uses its medium.
pub fn pull_stick(qmp: &mut Qmp, name: &str) -> Outcome {
    qmp.unplug(name)?;
    let until = Instant::now() + SOON;
    while let Err(error) =
        qmp.execute("blockdev-del", json!({"node-name": format!("{name}-medium")}))
    {
        ensure!(Instant::now() < until, "{error:?}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What a device does.
pub trait Model: Send + 'static {
    /// Returns what it says of itself when it is plugged in.
    fn hello(&self) -> Vec<Packet>;
    /// Takes a packet; what it answers is added to `answers`.
    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>);
}

impl Model for Stick {
    fn hello(&self) -> Vec<Packet> {
        Self::hello()
    }

    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        match packet.body {
            Body::Bulk(_)
            | Body::Control(_)
            | Body::SetConfiguration(_)
            | Body::GetConfiguration
            | Body::CancelDataPacket
            | Body::Reset => Self::take(self, packet, answers),
            _ => {}
        }
    }
}

/// A device in one of the PC's ports.
pub struct Plugged {
    name: String,
    ours: UnixStream,
    server: Option<JoinHandle<()>>,
}

impl Drop for Plugged {
    fn drop(&mut self) {
        // A device whose stream ends is unplugged: a test that failed leaves none behind.
        let _ = self.ours.shutdown(Shutdown::Both);
    }
}

impl Plugged {
    /// Plugs it into this port of the PC's controller.
    pub fn plug(
        pc: &WardPc,
        qmp: &mut Qmp,
        name: &str,
        port: &str,
        model: impl Model,
    ) -> Outcome<Self> {
        let socket = pc.dir().join(name);
        let _ = std::fs::remove_file(&socket); // of one that was plugged in before
        let listener = UnixListener::bind(&socket)?;
        let addr = json!({"type": "unix", "data": {"path": socket}});
        let backend = json!({"type": "socket", "data": {"addr": addr, "server": false}});
        qmp.execute("chardev-add", json!({"id": name, "backend": backend}))?;
        let (stream, _) = listener.accept()?;
        let ours = stream.try_clone()?;
        let server = std::thread::spawn(move || serve(stream, model));
        let device = json!({"driver": "usb-redir", "id": name, "bus": "xhci.0", "port": port, "chardev": name});
        qmp.execute("device_add", device)?;
        Ok(Self { name: name.to_owned(), ours, server: Some(server) })
    }

    /// Pulls the device out of its socket.
    pub fn pull(mut self, qmp: &mut Qmp) -> Outcome {
        qmp.unplug(&self.name)?;
        self.ours.shutdown(Shutdown::Both)?;
        if let Some(server) = self.server.take() {
            server.join().map_err(|_| Failure("the device's end failed".into()))?;
        }
        // The stream goes with the device; its name is free then.
        let until = Instant::now() + SOON;
        loop {
            let streams = qmp.execute("query-chardev", json!({}))?;
            if streams.as_array().into_iter().flatten().all(|stream| stream["label"] != *self.name)
            {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{} is not pulled out: {streams}", self.name);
            std::thread::sleep(PAUSE);
        }
    }
}

/// Serves a device until the stream ends.
fn serve(mut stream: UnixStream, mut model: impl Model) {
    let mut session = Session::new(Role::Host, "tests");
    let mut buffer = vec![0; 65536];
    let mut answers = Vec::new();
    loop {
        while !session.output().is_empty() {
            let Ok(count) = stream.write(session.output()) else { return };
            session.sent(count);
        }
        let room = session.room().min(buffer.len());
        let Some(space) = buffer.get_mut(..room) else { return };
        let Ok(count @ 1..) = stream.read(space) else { return };
        session.feed(space.get(..count).unwrap_or_default());
        while let Ok(Some(packet)) = session.next() {
            match packet.body {
                Body::Hello { .. } => answers.extend(model.hello()),
                _ => model.take(packet, &mut answers),
            }
        }
        for answer in answers.drain(..) {
            if session.send(&answer).is_err() {
                return;
            }
        }
    }
}
