//! The listening end of the control socket, on the event loop's thread. Nothing waits: lines and
//! clients are capped, and a client that does not read its answer loses its connection.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::Moment;

use super::commands::Request;
use super::protocol::{Answer, REQUEST_MAX};
use super::roles::Caller;

/// Clients at once.
const CLIENTS_MAX: usize = 32;
/// Clients of one user, root excepted, so that none can keep the others out.
const CLIENTS_OF_ONE_MAX: usize = 8;
/// Pieces of a request taken at a time, each of [`REQUEST_MAX`] bytes.
const READS_MAX: usize = 64;
/// How long a client may say nothing, or not read.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A request that its caller may not make.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// What was asked.
    pub request: &'a Request,
    /// What the caller lacks, in words.
    pub why: &'a str,
}

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: check the rights of its directory, or give another with --runtime", path.display())]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The server.
pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
    path: PathBuf,
}

struct Client {
    stream: UnixStream,
    caller: Caller,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    last_word: Moment,
}

impl Server {
    /// Listens at `path`. The caller holds the agent's lock, so a socket that is there is dead.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let listen = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            // Everybody may knock; who they are decides.
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|source| ListenError { path: path.to_owned(), source })?;
        Ok(Self { listener, clients: Vec::new(), path: path.to_owned() })
    }

    /// What to wait on: each with whether it waits to be written.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let clients = self.clients.iter().map(|c| (c.stream.as_fd(), !c.outbox.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// Takes what came; `answer` is asked for each request that its caller may make, and told of each that it may not.
    pub fn turn(
        &mut self,
        mut answer: impl FnMut(&Caller, Result<Request, Refused<'_>>) -> Answer,
    ) {
        self.accept();
        self.clients.retain_mut(|client| client.turn(&mut answer));
    }

    fn accept(&mut self) {
        for _ in 0..CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let caller = match Caller::identify(&stream) {
                Ok(caller) => caller,
                Err(error) => {
                    tracing::warn!("{error}");
                    continue;
                }
            };
            let his = self.clients.iter().filter(|c| c.caller.uid == caller.uid).count();
            let too_many = caller.uid != 0
                && (his >= CLIENTS_OF_ONE_MAX
                    || self.clients.len() >= CLIENTS_MAX - CLIENTS_OF_ONE_MAX);
            if too_many
                || self.clients.len() >= CLIENTS_MAX
                || stream.set_nonblocking(true).is_err()
            {
                continue; // the client sees the end of the stream
            }
            self.clients.push(Client {
                stream,
                caller,
                inbox: Vec::new(),
                outbox: Vec::new(),
                last_word: Moment::now(),
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("control socket not removed: {error}");
        }
    }
}

impl Client {
    /// `false` when it is done with.
    fn turn(
        &mut self,
        answer: &mut impl FnMut(&Caller, Result<Request, Refused<'_>>) -> Answer,
    ) -> bool {
        let open = self.read();
        // One answer at a time: a client that asks faster than it reads waits.
        while self.outbox.is_empty()
            && let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            let reply = self.reply(&line, answer);
            self.outbox = serde_json::to_vec(&reply).unwrap_or_else(|_| b"{\"ok\":false}".to_vec());
            self.outbox.push(b'\n');
            self.last_word = Moment::now();
            if !self.write() {
                return false;
            }
        }
        self.write()
            && open
            && self.inbox.len() <= self.caller.request_max()
            && self.last_word.elapsed() < IDLE_MAX
    }

    fn reply(
        &self,
        line: &[u8],
        answer: &mut impl FnMut(&Caller, Result<Request, Refused<'_>>) -> Answer,
    ) -> Answer {
        let request = match Request::read(line) {
            Ok(request) => request,
            Err(error) => {
                return Answer::of(Err(format!("not a request this agent knows: {error}")));
            }
        };
        match self.caller.may(&request.command().privilege) {
            Ok(()) => answer(&self.caller, Ok(request)),
            Err(refusal) => {
                tracing::warn!("refused: {refusal}");
                answer(&self.caller, Err(Refused { request: &request, why: &refusal }))
            }
        }
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; REQUEST_MAX];
        // Bounded, so that a client with much to say does not keep the others waiting.
        for _ in 0..READS_MAX {
            if self.inbox.len() > self.caller.request_max() {
                return true;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => {
                    self.inbox.extend_from_slice(chunk.get(..count).unwrap_or_default());
                }
                Err(e) => {
                    return matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    );
                }
            }
        }
        true
    }

    fn write(&mut self) -> bool {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return false,
                Ok(count) => {
                    self.outbox.drain(..count);
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::APPLY_MAX;
    use std::io::{BufRead, BufReader};

    fn server() -> (Server, PathBuf, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        (Server::listen(&path).unwrap(), path, dir)
    }

    fn answer_all(server: &mut Server) {
        for _ in 0..4 {
            server.turn(|_, _| Answer::of(Ok(None)));
        }
    }

    #[test]
    fn each_line_is_answered_and_nonsense_with_a_reason() {
        let (mut server, path, _dir) = server();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"{\"command\":\"status\"}\nnonsense\n").unwrap();
        answer_all(&mut server);
        let lines: Vec<String> =
            BufReader::new(&client).lines().take(2).map(Result::unwrap).collect();
        assert_eq!(lines[0], r#"{"ok":true}"#);
        assert!(lines[1].contains("not a request this agent knows"), "{}", lines[1]);
    }

    #[test]
    fn a_request_without_end_costs_the_client_its_connection() {
        let (mut server, path, _dir) = server();
        let mut client = UnixStream::connect(&path).unwrap();
        // Until the server has had enough of it.
        let talker = std::thread::spawn(move || while client.write_all(&[b'{'; 65536]).is_ok() {});
        while !talker.is_finished() {
            server.turn(|_, _| Answer::of(Ok(None)));
            assert!(server.clients.iter().all(|c| c.inbox.len() <= APPLY_MAX + REQUEST_MAX));
        }
        assert!(server.clients.is_empty());
    }

    #[test]
    fn more_clients_than_the_server_keeps_are_turned_away_and_it_goes_on() {
        let (mut server, path, _dir) = server();
        let mut clients: Vec<UnixStream> =
            (0..CLIENTS_MAX + 8).map(|_| UnixStream::connect(&path).unwrap()).collect();
        answer_all(&mut server);
        assert!(server.clients.len() <= CLIENTS_MAX);
        clients.truncate(1);
        answer_all(&mut server);
        clients[0].write_all(b"{\"command\":\"status\"}\n").unwrap();
        answer_all(&mut server);
        let mut line = String::new();
        BufReader::new(&clients[0]).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), r#"{"ok":true}"#);
    }
}
