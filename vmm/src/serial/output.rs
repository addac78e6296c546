//! Where a serial port prints. The vCPU that prints waits for nobody: not for long for a reader, and
//! never for one that reads nothing.

use std::io::{self, PipeWriter, Write};
use std::time::{Duration, Instant};

use logging::Outlet;

use sandboxing::{Call, Only, call};

/// How long a reader that has fallen behind is waited for, until it has caught
/// up: as a slow serial line holds its sender up. After that the guest prints to nobody.
const PATIENCE: Duration = Duration::from_millis(50);

/// System calls behind [`Output::write`], for the filters of the threads that print.
pub(crate) const SYSTEM_CALLS: &[Call] = &[
    call!(SYS_write, "serial output to a terminal or pipe, and on its way to a log"),
    call!(SYS_sendto, Only::Exactly(4, 0), "serial output to a socket"),
    call!(SYS_poll, "a reader of serial output that has fallen behind"),
];

/// A sink for bytes.
pub enum Output {
    /// Whoever reads the VMM's standard output, or writes a log.
    Stream(Stream),
    /// Bytes are thrown away.
    Null,
}

/// A stream, read by somebody or not.
pub struct Stream {
    outlet: Outlet,
    patience: Duration,
    /// Bytes that nobody read in time, since the last one that somebody did.
    lost: u64,
}

impl Output {
    /// Prints to standard output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::Stream(Stream::new(Outlet::new(io::stdout())?)))
    }

    /// Prints to a pipe.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(super) fn pipe(writer: PipeWriter) -> io::Result<Self> {
        Ok(Self::Stream(Stream::new(Outlet::new(writer)?)))
    }
}

impl Write for Output {
    /// Takes all of `data`; what cannot be written is lost, as on a wire.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.print(data),
            Self::Null => {}
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    fn new(outlet: Outlet) -> Self {
        Self { outlet, patience: PATIENCE, lost: 0 }
    }

    fn print(&mut self, data: &[u8]) {
        if self.lost > 0 {
            let notice = format!("[{} bytes were lost here: nobody read them]\r\n", self.lost);
            // A pipe takes as little as this whole or not at all.
            if self.outlet.write(notice.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        let mut rest = data;
        while !rest.is_empty() {
            let waits = self.patience;
            match self.outlet.write(rest) {
                Ok(count @ 1..) => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.patience = PATIENCE;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waits.is_zero() => {
                    self.wait();
                }
                Ok(0) | Err(_) => {
                    self.lost = self.lost.saturating_add(rest.len() as u64);
                    return;
                }
            }
        }
    }

    /// Waits for the reader, and is so much less patient with it from then on.
    fn wait(&mut self) {
        let started = Instant::now();
        if !self.outlet.wait(self.patience) {
            let waited = started.elapsed().max(Duration::from_millis(1));
            self.patience = self.patience.saturating_sub(waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_guest_that_prints_to_nobody_is_held_up_once_and_not_for_long() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::Stream(Stream::new(Outlet::new(&writer).unwrap()));
        let started = Instant::now();
        for _ in 0..200_000 {
            output.write_all(b"x").unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        let Output::Stream(stream) = &output else { unreachable!() };
        let lost = usize::try_from(stream.lost).unwrap();
        assert!(lost > 100_000, "{lost}");
        reader.read_exact(&mut vec![0; 200_000 - lost]).unwrap();
        output.write_all(b"again").unwrap();
        drop((output, writer));
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, format!("[{lost} bytes were lost here: nobody read them]\r\nagain"));
    }

    #[test]
    fn a_guest_waits_for_a_slow_reader_and_loses_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::Stream(Stream::new(Outlet::new(&writer).unwrap()));
        drop(writer);
        let slow = std::thread::spawn(move || {
            let (mut total, mut chunk) = (0, [0; 8192]);
            loop {
                std::thread::sleep(Duration::from_millis(2));
                match reader.read(&mut chunk).unwrap() {
                    0 => return total,
                    count => total += count,
                }
            }
        });
        for _ in 0..3_000 {
            output.write_all(&[b'x'; 100]).unwrap();
        }
        drop(output);
        assert_eq!(slow.join().unwrap(), 300_000);
    }
}
