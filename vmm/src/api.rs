//! The control socket: one JSON object a line each way
//! ([`vmm_control::command`]). Who may connect is decided by the socket's file mode: its owner alone.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use printable::explain;
use vmm_control::command::{Answer, Command, REQUEST_MAX, Request, Status};

/// Clients at once; one more is turned away.
const CLIENTS_MAX: usize = 4;

/// What the socket controls.
pub trait Control: Send + Sync {
    /// Carries out `command`; answers with the status for [`Command::Status`].
    fn command(&self, command: Command) -> Result<Option<Status>, String>;
}

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

/// The server, in the main event loop.
pub struct Server {
    listener: UnixListener,
    clients: BTreeMap<RawFd, Client>,
    control: Arc<dyn Control>,
}

impl Server {
    /// Serves `control` on `listener`.
    pub fn new(listener: UnixListener, control: Arc<dyn Control>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: BTreeMap::new(), control })
    }

    fn accept(&mut self, ops: &mut EventOps) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
            return; // dropped, which the client sees as an end of file
        }
        if ops.add(Events::new(&stream, EventSet::IN)).is_ok() {
            self.clients.insert(stream.as_raw_fd(), Client { stream, line: Vec::new() });
        }
    }

    /// Serves a client; returns `false` when the client is done.
    fn serve(&mut self, fd: RawFd) -> bool {
        let Some(client) = self.clients.get_mut(&fd) else { return false };
        let mut chunk = [0; REQUEST_MAX];
        let read = match client.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(n) => chunk.get(..n).unwrap_or_default(),
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        };
        client.line.extend_from_slice(read);
        while let Some(end) = client.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = client.line.drain(..=end).collect();
            let answer = answer(&*self.control, &line);
            // A client that does not read its short answers is not worth waiting for.
            if client.stream.write_all(&answer).is_err() {
                return false;
            }
        }
        client.line.len() <= REQUEST_MAX
    }
}

fn answer(control: &dyn Control, line: &[u8]) -> Vec<u8> {
    let result = Request::read(line)
        .map_err(|error| explain(&error))
        .and_then(|Request { command }| control.command(command));
    match result {
        Ok(status) => Answer::done(status),
        Err(error) => Answer::refused(error),
    }
    .line()
}

impl MutEventSubscriber for Server {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            tracing::error!(%error, "the control socket does not work");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let fd = events.fd();
        if fd == self.listener.as_raw_fd() {
            self.accept(ops);
        } else if !self.serve(fd)
            && let Some(client) = self.clients.remove(&fd)
        {
            let _ = ops.remove(Events::empty(&client.stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_manager::{EventManager, SubscriberOps};
    use std::io::BufRead;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Command>>);

    impl Control for Recorder {
        fn command(&self, command: Command) -> Result<Option<Status>, String> {
            self.0.lock().unwrap().push(command);
            match command {
                Command::Resume => Err("it is not paused".into()),
                _ => Ok(None),
            }
        }
    }

    fn exchange(requests: &[u8], answers: usize) -> (Vec<String>, Vec<Command>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let control = Arc::new(Recorder::default());
        let server = Server::new(UnixListener::bind(&path).unwrap(), control.clone()).unwrap();
        let mut manager = EventManager::<Server>::new().unwrap();
        manager.add_subscriber(server);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(requests).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..200 {
            manager.run_with_timeout(1).unwrap();
        }
        let lines = io::BufReader::new(client).lines().take(answers).map(|l| l.unwrap_or_default());
        let lines = lines.collect();
        (lines, Arc::into_inner(control).map_or_else(Vec::new, |c| c.0.into_inner().unwrap()))
    }

    #[test]
    fn requests_are_answered_in_order() {
        let (lines, _) = exchange(
            b"{\"command\":\"power-button\"}\n{\"command\":\"resume\"}\n{\"command\":\"fly\"}\nx\n",
            4,
        );
        assert_eq!(lines[0], r#"{"ok":true}"#);
        assert_eq!(lines[1], r#"{"ok":false,"error":"it is not paused"}"#);
        assert!(lines[2].contains("unknown variant"), "{}", lines[2]);
        assert!(lines[3].contains("not a request"), "{}", lines[3]);
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (lines, _) = exchange(&[b'{'; 3 * REQUEST_MAX], 1);
        assert!(lines.first().is_none_or(String::is_empty));
    }
}
