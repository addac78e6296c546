//! The agent's end of a VMM's control socket: one JSON object a line each way. Everything that
//! comes back is an allegation: lines are capped, answers have a deadline, nothing waits.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmm_control::command::ANSWER_MAX;
use vmm_control::{Answer, Command, Request, Status};

use super::capture::clean;
use super::lifecycle::Time;
use base::sockets::connect;

/// How long the VMM may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How often a socket that is not there yet is tried.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// Requests on their way at once.
const PENDING_MAX: usize = 8;
/// Longest error text repeated to a person, in bytes.
const ERROR_MAX: usize = 300;
/// Longest name of a thread repeated to a person, in bytes: the kernel's own limit.
const THREAD_MAX: usize = 15;

/// What became of a request; the answer to one has a status.
pub type Reply = (Command, Result<Option<Status>, String>);

/// Why a request did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("the VMM does not listen on its control socket")]
    NotListening,
    /// Too many requests are on their way.
    #[error("the VMM does not answer")]
    NotAnswering,
    #[error("the VMM does not read its control socket")]
    NotReading,
}

/// A connection to one VMM, made as soon as its socket is there.
pub struct VmmControlClient {
    path: PathBuf,
    stream: Option<UnixStream>,
    inbox: Vec<u8>,
    pending: VecDeque<(Command, Time)>,
    next_try: Time,
    /// Whether it was said that the VMM says what nobody asked.
    said_unasked: bool,
}

impl VmmControlClient {
    /// Makes a client of the VMM that will listen at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stream: None,
            inbox: Vec::new(),
            pending: VecDeque::new(),
            next_try: Time::ZERO,
            said_unasked: false,
        }
    }

    /// Returns the connection, if there is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether a request is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// It did not even leave.
    pub fn send(&mut self, now: Time, command: Command) -> Result<(), NotSent> {
        if self.stream.is_none() {
            self.connect(now);
        }
        let Some(stream) = &mut self.stream else {
            return Err(NotSent::NotListening);
        };
        if self.pending.len() >= PENDING_MAX {
            return Err(NotSent::NotAnswering);
        }
        let line = Request { command }.line();
        match stream.write(&line) {
            Ok(count) if count == line.len() => {
                self.pending.push_back((command, now + ANSWER_DEADLINE));
                Ok(())
            }
            // A socket too full for one short line belongs to a VMM that reads nothing.
            Ok(_) | Err(_) => {
                self.drop_stream();
                Err(NotSent::NotReading)
            }
        }
    }

    /// Returns when [`Self::poll`] is next needed even though nothing came.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.pending.front().map(|(_, until)| *until)
    }

    /// Takes what came, and gives up on what did not.
    pub fn poll(&mut self, now: Time) -> Vec<Reply> {
        let mut replies = Vec::new();
        match self.read() {
            Ok(()) => self.answers(&mut replies),
            Err(problem) => {
                self.answers(&mut replies);
                self.abandon(&problem, &mut replies);
            }
        }
        if self.pending.front().is_some_and(|(_, until)| now >= *until) {
            self.abandon("the VMM did not answer in time", &mut replies);
        }
        if self.pending.is_empty() && !self.inbox.is_empty() {
            // A VMM could keep the event loop awake by it. The next question has a stream of its own.
            self.drop_stream();
            if !std::mem::replace(&mut self.said_unasked, true) {
                let path = self.path.display();
                tracing::warn!(
                    "a VMM says on its control socket {path} what nobody asked: it is hung up on"
                );
            }
        }
        replies
    }

    fn connect(&mut self, now: Time) {
        if now < self.next_try {
            return;
        }
        self.next_try = now + CONNECT_AGAIN;
        self.stream = connect(&self.path).ok();
    }

    fn read(&mut self) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut chunk = [0; ANSWER_MAX];
        match stream.read(&mut chunk) {
            Ok(0) => Err("the VMM closed its control socket".to_owned()),
            Ok(count) => {
                self.inbox.extend_from_slice(chunk.get(..count).unwrap_or_default());
                let unfinished = self.inbox.iter().rev().take_while(|byte| **byte != b'\n').count();
                if unfinished > ANSWER_MAX {
                    return Err("the VMM's answer has no end".to_owned());
                }
                Ok(())
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(format!("the VMM's control socket failed: {error}")),
        }
    }

    fn answers(&mut self, replies: &mut Vec<Reply>) {
        while !self.pending.is_empty()
            && let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            let asked = self.pending.pop_front();
            replies.extend(asked.map(|(request, _)| (request, outcome(&line))));
        }
    }

    fn abandon(&mut self, problem: &str, replies: &mut Vec<Reply>) {
        let lost = std::mem::take(&mut self.pending);
        replies.extend(lost.into_iter().map(|(request, _)| (request, Err(problem.to_owned()))));
        self.drop_stream();
    }

    fn drop_stream(&mut self) {
        self.stream = None;
        self.inbox.clear();
    }
}

fn outcome(line: &[u8]) -> Result<Option<Status>, String> {
    match Answer::read(line) {
        Ok(Answer { ok: true, mut status, .. }) => {
            if let Some(hung) = status.as_mut().and_then(|status| status.hung.as_mut()) {
                hung.thread = start_of(&hung.thread, THREAD_MAX);
            }
            Ok(status)
        }
        Ok(Answer { error, .. }) => {
            Err(start_of(error.as_deref().unwrap_or("it gave no reason"), ERROR_MAX))
        }
        Err(_) => Err("the VMM's answer makes no sense".to_owned()),
    }
}

/// Returns the first bytes of a text of the VMM's, fit to be shown.
fn start_of(text: &str, most: usize) -> String {
    clean(text.as_bytes().get(..most).unwrap_or(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const LATER: Time = Duration::from_secs(60);

    fn pair() -> (VmmControlClient, UnixListener, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        (VmmControlClient::new(&path), listener, dir)
    }

    #[test]
    fn an_answer_belongs_to_the_request_it_follows() {
        let (mut client, listener, _dir) = pair();
        client.send(Time::ZERO, Command::Status).unwrap();
        client.send(Time::ZERO, Command::Reset).unwrap();
        let mut peer = listener.accept().unwrap().0;
        peer.write_all(
            b"{\"ok\":true,\"state\":\"running\"}\n{\"ok\":false,\"error\":\"paused\"}\n",
        )
        .unwrap();
        let replies = client.poll(Time::ZERO);
        assert_eq!(
            replies,
            [(Command::Status, Ok(None)), (Command::Reset, Err("paused".to_owned()))]
        );
    }

    #[test]
    fn a_vmm_that_does_not_answer_is_given_up_after_the_deadline() {
        let (mut client, listener, _dir) = pair();
        client.send(Time::ZERO, Command::PowerButton).unwrap();
        let _silent = listener.accept().unwrap();
        assert!(client.poll(Time::ZERO).is_empty());
        let replies = client.poll(ANSWER_DEADLINE);
        assert!(matches!(replies.as_slice(), [(Command::PowerButton, Err(_))]), "{replies:?}");
        assert!(client.fd().is_none());
    }

    #[test]
    fn an_answer_without_end_costs_the_vmm_its_link() {
        let (mut client, listener, _dir) = pair();
        client.send(Time::ZERO, Command::Status).unwrap();
        let mut peer = listener.accept().unwrap().0;
        peer.set_nonblocking(true).unwrap();
        let mut replies = Vec::new();
        for _ in 0..4 {
            let _ = peer.write(&[b'{'; ANSWER_MAX]);
            replies.extend(client.poll(Time::ZERO));
        }
        assert!(matches!(replies.as_slice(), [(Command::Status, Err(_))]), "{replies:?}");
        assert!(client.inbox.len() <= 2 * ANSWER_MAX);
    }

    /// Reads until the other side has hung up.
    fn hung_up(mut peer: UnixStream) -> bool {
        peer.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).is_ok()
    }

    #[test]
    fn a_vmm_that_says_what_nobody_asked_is_hung_up_on_and_asked_on_a_stream_of_its_own() {
        let (mut client, listener, _dir) = pair();
        let asked = [(Command::Status, Ok(None))];
        // Behind an answer, and while nothing is asked: a line, and less than one.
        for unasked in ["{\"ok\":true}\nnonsense\n", "x"] {
            client.send(LATER, Command::Status).unwrap();
            let mut peer = listener.accept().unwrap().0;
            peer.write_all(format!("{{\"ok\":true}}\n{unasked}").as_bytes()).unwrap();
            assert_eq!(client.poll(LATER), asked);
            assert!(client.fd().is_none() && client.said_unasked && hung_up(peer));
            client.next_try = Time::ZERO;
            client.send(LATER, Command::Status).unwrap();
            let mut peer = listener.accept().unwrap().0;
            peer.write_all(b"{\"ok\":true}\n").unwrap();
            assert_eq!(client.poll(LATER), asked);
            assert!(client.fd().is_some(), "it said what was asked");
            peer.write_all(unasked.as_bytes()).unwrap();
            assert!(client.poll(LATER).is_empty());
            assert!(client.fd().is_none() && hung_up(peer));
            client.next_try = Time::ZERO;
        }
        // What was said on a stream that is no more answers nothing.
        client.send(LATER, Command::Reset).unwrap();
        let mut peer = listener.accept().unwrap().0;
        peer.write_all(b"nonsense\n").unwrap();
        assert!(matches!(client.poll(LATER).as_slice(), [(Command::Reset, Err(_))]));
    }

    #[test]
    fn a_socket_that_is_not_there_yet_is_tried_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.sock");
        let mut client = VmmControlClient::new(&path);
        client.send(Time::ZERO, Command::Status).unwrap_err();
        let _listener = UnixListener::bind(&path).unwrap();
        client.send(LATER, Command::Status).unwrap();
    }
}
