//! The listening end of the control socket, on the event loop's thread. Nothing waits: lines and
//! clients are capped, and a client that does not read its answer loses its connection.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clock::Moment;

use super::budget::{ConnectionBudget, TOO_MANY_CONNECTIONS};
use super::commands::Request;
use super::protocol::{Answer, REQUEST_MAX};
use super::roles::{Caller, Peer};

/// Clients that may be connected at once; more are turned away.
const CLIENTS_MAX: usize = 32;
/// Clients of one user, root excepted, so that none can keep the others out.
const CLIENTS_OF_ONE_MAX: usize = 8;
/// What is told to whom that turns away.
const TOO_MANY_CLIENTS: &str =
    "too many others ask the agent at once: try again when they have their answers";
/// Pieces of a request taken at a time, each of [`REQUEST_MAX`] bytes.
const READS_MAX: usize = 64;
/// How long a client may say nothing, or not read.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A request that its caller may not make.
#[derive(Debug, Clone, Copy)]
pub struct RefusedRequest<'a> {
    /// The request, as the client sent it.
    pub request: &'a Request,
    /// What the caller lacks, in words.
    pub why: &'a str,
}

/// The address of an answer that is not there yet: whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// Makes a ticket like no other of this process.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// The answer is known, and goes out at once.
    Now(Box<Answer>),
    /// It will be, by [`Server::answer`].
    Later(Ticket),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(Box::new(answer))
    }
}

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: check the rights of its directory, or give another with --runtime", path.display())]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
    connections: ConnectionBudget,
    path: PathBuf,
}

struct Client {
    stream: UnixStream,
    caller: Caller,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    last_word: Moment,
    /// Its request is not answered yet.
    waits_for: Option<Ticket>,
}

impl Server {
    /// Listens at `path`. The caller holds the agent's lock, so a socket that is there is dead.
    ///
    /// # Errors
    /// The socket cannot be made, or not with the rights it has to have.
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
        let connections = ConnectionBudget::default();
        Ok(Self { listener, clients: Vec::new(), connections, path: path.to_owned() })
    }

    /// Returns what to wait on: each with whether it waits to be written.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        // One that waits for its answer says nothing we would listen to, and may have closed its writing half.
        let clients = self.clients.iter().filter(|c| c.waits_for.is_none() || !c.outbox.is_empty());
        let clients = clients.map(|c| (c.stream.as_fd(), !c.outbox.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// Reads the requests that came; `answer` is asked for each request that its caller may make, and told of each that it may not.
    pub fn process_events<R: Into<Reply>>(
        &mut self,
        mut answer: impl FnMut(&Caller, Result<Request, RefusedRequest<'_>>) -> R,
    ) {
        self.accept();
        self.clients.retain_mut(|client| client.process_events(&mut answer));
    }

    /// Answers a request whose answer was to come later. A client that has gone meanwhile gets none.
    pub fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        self.clients.retain_mut(|client| {
            let its = client.waits_for == Some(ticket);
            !its || client.send(answer)
        });
    }

    fn accept(&mut self) {
        for _ in 0..CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            match Peer::of(&stream) {
                Ok(peer) => self.receive(stream, peer, Moment::now(), Caller::of),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Takes a connection, or turns it away. `identify`, which reads the host's accounts, is asked only for those that are taken: nobody has them read by
    /// connecting without end.
    fn receive(
        &mut self,
        stream: UnixStream,
        peer: Peer,
        now: Moment,
        identify: impl FnOnce(Peer) -> Caller,
    ) {
        let Ok(()) = stream.set_nonblocking(true) else { return };
        if !peer.is_trusted() && !self.connections.take(peer.uid, now) {
            tracing::warn!("user {}: {TOO_MANY_CONNECTIONS}", peer.uid);
            return turn_away(stream, TOO_MANY_CONNECTIONS);
        }
        let his = self.clients.iter().filter(|c| c.caller.uid == peer.uid).count();
        let too_many = peer.uid != 0
            && (his >= CLIENTS_OF_ONE_MAX
                || self.clients.len() >= CLIENTS_MAX - CLIENTS_OF_ONE_MAX);
        if too_many || self.clients.len() >= CLIENTS_MAX {
            return turn_away(stream, TOO_MANY_CLIENTS);
        }
        self.clients.push(Client {
            stream,
            caller: identify(peer),
            inbox: Vec::new(),
            outbox: Vec::new(),
            last_word: now,
            waits_for: None,
        });
    }
}

/// Tells somebody who is not let in why, and closes the connection. Who does not read it at once sees its end.
fn turn_away(mut stream: UnixStream, why: &str) {
    let mut line = serde_json::to_vec(&Answer::of(Err(why.to_owned()))).unwrap_or_default();
    line.push(b'\n');
    // A socket that has just been made has room for a line.
    let _ = stream.write(&line);
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("control socket not removed: {error}");
        }
    }
}

impl Client {
    /// Processes what came; returns `false` when the connection is done with.
    fn process_events<R: Into<Reply>>(
        &mut self,
        answer: &mut impl FnMut(&Caller, Result<Request, RefusedRequest<'_>>) -> R,
    ) -> bool {
        let open = self.waits_for.is_some() || self.read();
        // One answer at a time: a client that asks faster than it reads waits.
        while self.waits_for.is_none()
            && self.outbox.is_empty()
            && let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            match self.reply(&line, answer) {
                Reply::Now(answer) if !self.send(&answer) => return false,
                Reply::Now(_) => {}
                Reply::Later(ticket) => self.waits_for = Some(ticket),
            }
        }
        self.write()
            && open
            && self.inbox.len() <= self.caller.request_max()
            && (self.waits_for.is_some() || self.last_word.elapsed() < IDLE_MAX)
    }

    /// Sends an answer; returns `false` when the connection is done with.
    fn send(&mut self, answer: &Answer) -> bool {
        self.outbox = serde_json::to_vec(answer).unwrap_or_else(|_| b"{\"ok\":false}".to_vec());
        self.outbox.push(b'\n');
        self.last_word = Moment::now();
        self.waits_for = None;
        self.write()
    }

    fn reply<R: Into<Reply>>(
        &self,
        line: &[u8],
        answer: &mut impl FnMut(&Caller, Result<Request, RefusedRequest<'_>>) -> R,
    ) -> Reply {
        let request = match Request::read(line) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("not a request this agent knows: {error}");
                return Answer::of(Err(why)).into();
            }
        };
        match self.caller.may(&request.command().privilege) {
            Ok(()) => answer(&self.caller, Ok(request)).into(),
            Err(refusal) => {
                tracing::warn!("refused: {refusal}");
                answer(
                    &self.caller,
                    Err(RefusedRequest { request: &request, why: &refusal.to_string() }),
                )
                .into()
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
    use crate::protocol::APPLY_MAX;
    use std::io::{BufRead, BufReader};

    fn server() -> (Server, PathBuf, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        (Server::listen(&path).unwrap(), path, dir)
    }

    fn answer_all(server: &mut Server) {
        for _ in 0..4 {
            server.process_events(|_, _| Answer::of(Ok(None)));
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
    fn a_client_whose_answer_takes_time_waits_for_it_while_the_others_are_answered() {
        let (mut server, path, _dir) = server();
        let mut patient = UnixStream::connect(&path).unwrap();
        patient.write_all(b"{\"command\":\"lock\"}\n{\"command\":\"status\"}\n").unwrap();
        let mut gone = UnixStream::connect(&path).unwrap();
        gone.write_all(b"{\"command\":\"lock\"}\n").unwrap();
        let mut tickets = Vec::new();
        let mut round = |server: &mut Server| {
            server.process_events(|_, request| match request {
                Ok(Request::Lock {}) => {
                    let ticket = Ticket::new();
                    tickets.push(ticket);
                    Reply::Later(ticket)
                }
                _ => Answer::of(Err("another".to_owned())).into(),
            });
            tickets.clone()
        };
        round(&mut server);
        let tickets = round(&mut server);
        drop(gone);
        let mut other = UnixStream::connect(&path).unwrap();
        other.write_all(b"{\"command\":\"status\"}\n").unwrap();
        (0..4).for_each(|_| server.process_events(|_, _| Answer::of(Ok(None))));
        let mut line = String::new();
        BufReader::new(&other).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), r#"{"ok":true}"#);
        patient.set_nonblocking(true).unwrap();
        assert!(patient.read(&mut [0]).is_err(), "it is answered before its answer is there");
        patient.set_nonblocking(false).unwrap();
        assert_eq!(tickets.len(), 2);
        for (ticket, why) in tickets.into_iter().zip(["first", "second"]) {
            server.answer(ticket, &Answer::of(Err(why.to_owned())));
        }
        answer_all(&mut server);
        // In the order in which it asked.
        let lines: Vec<String> =
            BufReader::new(&patient).lines().take(2).map(Result::unwrap).collect();
        assert_eq!(lines, [r#"{"ok":false,"error":"first"}"#, r#"{"ok":true}"#]);
    }

    #[test]
    fn a_request_without_end_costs_the_client_its_connection() {
        let (mut server, path, _dir) = server();
        let mut client = UnixStream::connect(&path).unwrap();
        // Until the server has had enough of it.
        let talker = std::thread::spawn(move || while client.write_all(&[b'{'; 65536]).is_ok() {});
        while !talker.is_finished() {
            server.process_events(|_, _| Answer::of(Ok(None)));
            assert!(server.clients.iter().all(|c| c.inbox.len() <= APPLY_MAX + REQUEST_MAX));
        }
        assert!(server.clients.is_empty());
    }

    /// Connects as a user without a role, and counts in `identified` for whom the accounts are read; returns what the server told at once.
    fn connects(server: &mut Server, uid: u32, now: Moment, identified: &mut u32) -> String {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        server.receive(theirs, Peer::without_role(uid), now, |peer| {
            *identified += 1;
            Caller::without_role(peer.uid)
        });
        client.set_nonblocking(true).unwrap();
        let mut said = String::new();
        // What was taken says nothing and has no end.
        let _ = client.read_to_string(&mut said);
        said
    }

    #[test]
    fn who_connects_and_goes_without_end_has_no_accounts_read_and_is_told_why() {
        let (mut server, _path, _dir) = server();
        let (now, mut identified, mut told) = (Moment::now(), 0, String::new());
        for _ in 0..1000 {
            told = connects(&mut server, 4711, now, &mut identified);
            answer_all(&mut server);
        }
        assert_eq!(identified, 200, "as many as may come at once");
        assert!(told.contains("too often") && told.ends_with('\n'), "{told}");
        // Another is served, and root is never counted.
        assert_eq!(connects(&mut server, 4712, now, &mut identified), "");
        (0..1000).for_each(|_| {
            let told = connects(&mut server, 0, now, &mut identified);
            assert_eq!(told, "");
            answer_all(&mut server);
        });
        assert_eq!(identified, 1201);
    }

    #[test]
    fn a_client_too_many_is_told_so_before_its_accounts_are_read() {
        let (mut server, _path, _dir) = server();
        let mut identified = 0;
        let mut held = Vec::new();
        for _ in 0..CLIENTS_OF_ONE_MAX {
            let (client, theirs) = UnixStream::pair().unwrap();
            let peer = Peer::without_role(4711);
            server.receive(theirs, peer, Moment::now(), |peer| Caller::without_role(peer.uid));
            held.push(client);
        }
        let told = connects(&mut server, 4711, Moment::now(), &mut identified);
        assert!(told.contains("too many others") && identified == 0, "{told}");
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
