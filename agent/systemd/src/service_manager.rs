//! Notifications to the service manager (sd_notify(3)): that the agent is ready, that it stops, and, as long as it works, that it does.
//!
//! ```text
//!  main loop: probe every thread --> each comes round and answers --> WATCHDOG=1 --> a third of the time later: probe again
//! ```
//! No timer alone sends the watchdog's notification: a main loop that hangs sends nothing, and a thread that hangs does not answer. The
//! service manager then ends the agent and starts it anew. A thread that is no more is another matter: whoever probes it knows, and says so.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use clock::Moment;

/// Longest time a service manager is believed to give: its number comes from the environment.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// How soon a notification is sent again that the service manager did not take.
const RETRY: Duration = Duration::from_millis(200);

/// The service manager, if one started the agent and wants to be notified.
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    /// Notifications that it has not taken yet, in order: its socket was full. Each is there once.
    pending: Vec<String>,
}

/// The service manager's watchdog, which wants a notification at least every `interval`.
struct Watchdog {
    interval: Duration,
    /// When the threads are probed again; `None` while their answers are awaited.
    probe_at: Option<Moment>,
}

/// What the watchdog needs of the main loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchdogAction {
    /// The main loop has nothing to do.
    None,
    /// The main loop is to probe every thread.
    Probe,
}

impl ServiceManager {
    /// Connects to the service manager that the environment names.
    #[must_use]
    pub fn of_environment() -> Self {
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros);
        let named = env::var_os("NOTIFY_SOCKET");
        let connected = named.as_deref().map(connect).transpose();
        let socket = connected.unwrap_or_else(|error| {
            tracing::warn!("the service manager is not notified how the agent does: {error}");
            None
        });
        Self::new(socket, interval)
    }

    fn new(socket: Option<UnixDatagram>, interval: Option<Duration>) -> Self {
        let wanted = interval.filter(|interval| !interval.is_zero() && socket.is_some());
        let watchdog = wanted.map(|interval| Watchdog {
            interval: interval.min(INTERVAL_MAX),
            probe_at: Some(Moment::now()),
        });
        Self { socket, watchdog, pending: Vec::new() }
    }

    /// Extends the time that the service manager waits for what the agent does next.
    pub fn extend_timeout(&mut self, time: Duration) {
        self.enqueue(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// Notifies it that the agent runs its domains.
    pub fn notify_ready(&mut self) {
        self.enqueue("READY=1".to_owned());
    }

    /// Notifies it that the agent stops, which may take so long.
    pub fn notify_stopping(&mut self, time: Duration) {
        self.enqueue(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// Notifies it that the agent works if every thread has answered, and returns when to probe them. Called once in each turn of the main loop.
    pub fn poll(&mut self, have_answered: impl FnOnce() -> bool) -> WatchdogAction {
        self.flush();
        let now = Moment::now();
        let Some(watchdog) = &mut self.watchdog else { return WatchdogAction::None };
        match watchdog.probe_at {
            Some(at) if now >= at => {
                watchdog.probe_at = None;
                return WatchdogAction::Probe;
            }
            None if have_answered() => {
                watchdog.probe_at = Some(now + watchdog.interval / 3);
                // Two more follow in its time.
                self.send("WATCHDOG=1");
            }
            _ => {}
        }
        WatchdogAction::None
    }

    /// Returns in what time [`Self::poll`] has something to do by itself.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let retry = (!self.pending.is_empty()).then_some(RETRY);
        let probe_at = self.watchdog.as_ref().and_then(|watchdog| watchdog.probe_at);
        let probe = probe_at.map(|at| at.saturating_duration_since(Moment::now()));
        [retry, probe].into_iter().flatten().min()
    }

    /// Sends a notification that must not be lost, now or when the socket takes something again.
    fn enqueue(&mut self, what: String) {
        if !self.pending.contains(&what) {
            self.pending.push(what);
        }
        self.flush();
    }

    /// Sends the pending notifications until the socket is full.
    fn flush(&mut self) {
        while let Some(what) = self.pending.first() {
            if !self.send(what) {
                return;
            }
            self.pending.remove(0);
        }
    }

    /// Sends a notification; returns whether that is done with: taken, or in vain.
    fn send(&self, what: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let Err(error) = socket.send(what.as_bytes()) else { return true };
        // A full socket takes it later.
        let is_full = error.kind() == io::ErrorKind::WouldBlock;
        if !is_full {
            tracing::warn!("the service manager takes no message: {error}");
        }
        !is_full
    }
}

/// Connects to a socket; `@name` is an abstract address.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes().split_first() {
        Some((b'@', name)) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(interval: Duration) -> (ServiceManager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ServiceManager::new(Some(ours), Some(interval)), theirs)
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut text = [0; 200];
        let length = socket.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    #[test]
    fn the_watchdog_is_fed_only_after_every_thread_has_answered() {
        let (mut manager, socket) = manager(Duration::from_millis(30));
        assert_eq!(manager.poll(|| panic!("nobody was asked")), WatchdogAction::Probe);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(manager.poll(|| false), WatchdogAction::None, "one hangs");
            assert_eq!(manager.timeout(), None, "its answer wakes the loop, and nothing else does");
        }
        assert_eq!(received(&socket), None);
        assert_eq!(manager.poll(|| true), WatchdogAction::None);
        assert_eq!(received(&socket).as_deref(), Some("WATCHDOG=1"));
        assert!(manager.timeout().is_some_and(|wait| wait <= Duration::from_millis(10)));
        assert_eq!(manager.poll(|| true), WatchdogAction::None, "not before its time");
        assert_eq!(received(&socket), None);
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(manager.poll(|| true), WatchdogAction::Probe);
        assert_eq!(received(&socket), None, "asking is no answer");
    }

    #[test]
    fn without_a_service_manager_nobody_is_asked_and_nothing_is_told() {
        let mut alone = ServiceManager::new(None, Some(Duration::from_millis(1)));
        assert_eq!(alone.poll(|| true), WatchdogAction::None);
        assert_eq!(alone.timeout(), None);
        alone.notify_ready();
    }

    #[test]
    fn the_service_manager_hears_of_ready_and_stopping_and_how_long_it_may_take() {
        let (mut manager, socket) = manager(Duration::from_secs(60));
        manager.extend_timeout(Duration::from_secs(2));
        manager.notify_ready();
        manager.notify_stopping(Duration::from_secs(75));
        assert_eq!(received(&socket).as_deref(), Some("EXTEND_TIMEOUT_USEC=2000000"));
        assert_eq!(received(&socket).as_deref(), Some("READY=1"));
        assert_eq!(received(&socket).as_deref(), Some("STOPPING=1\nEXTEND_TIMEOUT_USEC=75000000"));
    }

    #[test]
    fn a_service_manager_whose_socket_is_full_hears_in_order_what_it_has_to_know_when_it_is_not() {
        let (ours, socket) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut manager = ServiceManager::new(Some(ours), None);
        while manager.send("filling") {}
        manager.notify_ready();
        manager.notify_ready();
        manager.notify_stopping(Duration::from_secs(1));
        assert_eq!(manager.timeout(), Some(RETRY), "it is told again soon");
        while received(&socket).as_deref() == Some("filling") {}
        assert_eq!(received(&socket), None);
        manager.poll(|| false);
        assert_eq!(received(&socket).as_deref(), Some("READY=1"));
        assert_eq!(received(&socket).as_deref(), Some("STOPPING=1\nEXTEND_TIMEOUT_USEC=1000000"));
        assert_eq!(received(&socket), None);
        assert_eq!(manager.timeout(), None);
    }

    #[test]
    fn a_service_manager_that_listens_at_a_path_or_a_name_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        connect(path.as_os_str()).unwrap().send(b"READY=1").unwrap();
        assert_eq!(received(&by_path).as_deref(), Some("READY=1"));
        let name = format!("bulkhead-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        connect(OsStr::new(&format!("@{name}"))).unwrap().send(b"READY=1").unwrap();
        assert_eq!(received(&by_name).as_deref(), Some("READY=1"));
        connect(OsStr::new("")).unwrap_err();
    }
}
