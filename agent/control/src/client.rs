//! The command line's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::commands::Request;
use super::protocol::{ANSWER_MAX, Answer};
use base::layout::control_socket;

/// How long whoever waits for something waits before they ask again how far it is: each time is a connection, of which a user has so many
/// ([`budget`](crate::budget)).
pub const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long the agent may take to answer; it never waits for a guest.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long if it is to read a policy first: the largest one, on a PC that is busy.
const POLICY_DEADLINE: Duration = Duration::from_secs(60);

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens at the socket.
    #[error("no agent is running here (no answer on {}): start it with `systemctl start bulkhead-agent` (on a ward PC: bulkhead-tools alone has none), or name its directory with --runtime or BULKHEAD_RUNTIME", path.display())]
    NoAgent {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It listens and does not answer.
    #[error("the agent does not answer: see its log (`journalctl -u bulkhead-agent`)")]
    NoAnswer(#[source] io::Error),
    /// It closed the connection.
    #[error(
        "the agent closed the connection: too many others ask it at once, or it is stopping; try again"
    )]
    Closed,
    /// What it answered cannot be read.
    #[error(
        "the agent's answer cannot be read: `bulkhead` and `bulkhead-agent` are of different versions"
    )]
    Nonsense(#[source] serde_json::Error),
}

/// Sends the agent of a runtime directory one request, and waits for its answer.
///
/// # Errors
/// No agent listens there, or it gives no answer that can be read.
pub fn ask(runtime: &Path, request: &Request) -> Result<Answer, ClientError> {
    let path = control_socket(runtime);
    let mut stream = UnixStream::connect(&path)
        .map_err(|source| ClientError::NoAgent { path: path.clone(), source })?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Nonsense)?;
    line.push(b'\n');
    let mut answer = Vec::new();
    let deadline = match request {
        Request::ApplyPolicy { .. } => POLICY_DEADLINE,
        _ => ANSWER_DEADLINE,
    };
    let mut exchange = || -> io::Result<()> {
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        let sent = stream.write_all(&line);
        if sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            return sent;
        }
        // Who was turned away was told why before the connection was closed.
        let most = u64::try_from(ANSWER_MAX).unwrap_or(u64::MAX);
        BufReader::new((&stream).take(most)).read_until(b'\n', &mut answer)?;
        Ok(())
    };
    match exchange() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClientError::Closed),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Closed),
        Err(error) => Err(ClientError::NoAnswer(error)),
        Ok(()) if answer.is_empty() => Err(ClientError::Closed),
        Ok(()) => serde_json::from_slice(&answer).map_err(ClientError::Nonsense),
    }
}
