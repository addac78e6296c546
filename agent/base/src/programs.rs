//! Programs of the distribution, as an administrator runs them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Where the distribution's programs for an administrator are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Which variables of the caller's a program gets.
const LANGUAGE: [&str; 2] = ["LANG", "LANGUAGE"];
/// Characters of what a program said that are quoted.
const SAID_MAX: usize = 300;
/// Bytes of each of a program's outputs that are kept: what comes after them is read and dropped.
const OUTPUT_MAX: usize = 1 << 20;
/// Between two looks whether all is read that a program said which has ended: it mostly is.
const READING: Duration = Duration::from_millis(1);
/// How long after its end a program is listened to: one that it started may have its output open.
const SPEAKS_ON: Duration = Duration::from_secs(2);
/// Between two looks whether a program with a deadline has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A program that is to be run.
#[derive(Debug)]
pub struct Program<'a> {
    name: &'a str,
    arguments: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    input: Option<File>,
    deadline: Option<Duration>,
}

/// What came of a program.
#[derive(Debug)]
pub struct ProgramOutcome {
    /// The program's exit status.
    pub status: ExitStatus,
    /// What it wrote to its standard output, from its beginning.
    pub output: Vec<u8>,
    /// What it wrote to its standard error, from its beginning.
    pub error: Vec<u8>,
}

impl ProgramOutcome {
    /// Returns the last line that it wrote to its standard error, fit to be shown.
    #[must_use]
    pub fn last_line(&self) -> String {
        let said = String::from_utf8_lossy(&self.error);
        let last =
            said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        printable::line(last.trim()).up_to(SAID_MAX).to_string()
    }
}

impl<'a> Program<'a> {
    /// Names a program and its arguments. It gets no input, and has all the time that it wants.
    #[must_use]
    pub const fn new(name: &'a str, arguments: &'a [&'a str]) -> Self {
        Self { name, arguments, variables: &[], input: None, deadline: None }
    }

    /// Gives it these variables besides.
    #[must_use]
    pub const fn with(mut self, variables: &'a [(&'a str, &'a str)]) -> Self {
        self.variables = variables;
        self
    }

    /// Sets its standard input.
    #[must_use]
    pub fn reading(mut self, input: File) -> Self {
        self.input = Some(input);
        self
    }

    /// Sets how long it may run. Then it is killed, with all that it started in its process group.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    fn words(&self) -> String {
        format!("`{}`", [&[self.name], self.arguments].concat().join(" "))
    }

    /// Runs it and waits for its end, however that is.
    ///
    /// # Errors
    /// It cannot be started or listened to (the kind says why), or did not end by its deadline (`TimedOut`).
    pub fn run(self) -> io::Result<ProgramOutcome> {
        let words = self.words();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{words}: {error}"));
        // By it update-grub chooses the boot menu's language; messages are in English all the same.
        let language: Vec<(&str, OsString)> =
            LANGUAGE.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        let mut child = Command::new(self.name)
            .args(self.arguments)
            .env_clear()
            .envs(language)
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .envs(self.variables.iter().copied())
            .stdin(self.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl+C is for whoever started it: a boot menu is made to its end.
            .process_group(0)
            .spawn()
            .map_err(named)?;
        let output = child.stdout.take().map(OutputReader::by).transpose();
        let error = child.stderr.take().map(OutputReader::by).transpose();
        let [output, error] = match (output, error) {
            (Ok(output), Ok(error)) => [output, error],
            (Err(no_thread), _) | (_, Err(no_thread)) => {
                kill(&mut child).map_err(named)?;
                let why = format!("what it says cannot be read, and it was killed: {no_thread}");
                return Err(named(io::Error::new(no_thread.kind(), why)));
            }
        };
        let status = wait(&mut child, self.deadline).map_err(named)?;
        let [output, error] =
            [output, error].map(|said| said.map(OutputReader::whole).unwrap_or_default());
        Ok(ProgramOutcome { status, output, error })
    }
}

/// Runs a program of the distribution and waits for its end.
///
/// # Errors
/// It is not there, or says that it failed; the error quotes the last line of what it said.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    output(program, arguments).map(drop)
}

/// Runs a program as [`run`] does, and returns what it wrote to its standard output.
///
/// # Errors
/// As those of [`run`].
pub fn output(program: &str, arguments: &[&str]) -> io::Result<Vec<u8>> {
    let program = Program::new(program, arguments);
    let words = program.words();
    let ended = program.run()?;
    if ended.status.success() {
        return Ok(ended.output);
    }
    Err(io::Error::other(format!("{words} failed ({}): {}", ended.status, ended.last_line())))
}

/// What a program says, read by a thread of its own: to the end, of which the beginning is kept.
struct OutputReader {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl OutputReader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The process has no thread left.
    fn by(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reader = thread::Builder::new().name("program".to_owned()).spawn(move || {
            let mut piece = [0; 4096];
            // What cannot be read is as if it had not been said; and a program that nobody listens to any more would wait, or fail.
            while let Ok(count @ 1..) = from.read(&mut piece) {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_MAX.saturating_sub(kept.len());
                kept.extend(piece.iter().take(count.min(room)));
            }
        })?;
        Ok(Self { kept, reader })
    }

    /// Returns what the program said that has ended. Who was started by it, and speaks on in its name, is not waited for.
    fn whole(self) -> Vec<u8> {
        let mut waited = Duration::ZERO;
        while !self.reader.is_finished() && waited < SPEAKS_ON {
            thread::sleep(READING);
            waited += READING;
        }
        mem::take(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn wait(child: &mut Child, deadline: Option<Duration>) -> io::Result<ExitStatus> {
    let Some(deadline) = deadline else { return child.wait() };
    // Looks are counted, as what keeps the time of deadlines stands on this crate.
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if waited >= deadline {
            kill(child)?;
            let why = format!("it did not end within {} s, and was killed", deadline.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        thread::sleep(LOOK);
        waited += LOOK;
    }
}

/// Ends it with all that it started in its process group.
fn kill(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).map_err(io::Error::other)?;
    // That it has just ended changes nothing.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::resource::{Resource, setrlimit};
    use nix::unistd::{Uid, geteuid, setresuid};

    use super::*;

    fn shell<'a>(arguments: &'a [&'a str; 2]) -> Program<'a> {
        Program::new("sh", arguments)
    }

    #[test]
    fn a_program_gets_a_fixed_path_english_messages_and_what_it_is_given_and_nothing_else() {
        let ended = shell(&["-c", "env; echo said >&2; exit 3"]).with(&[("MORE", "1")]).run();
        let ended = ended.unwrap();
        let text = String::from_utf8(ended.output.clone()).unwrap();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        // The shell's own, and the caller's language where there is one.
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD", "LANG", "LANGUAGE"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "MORE", "PATH"]);
        assert!(text.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"), "{text}");
        assert_eq!((ended.status.code(), ended.last_line().as_str()), (Some(3), "said"));
        let error = run("sh", &["-c", "echo first >&2; echo last >&2; exit 1"]).unwrap_err();
        assert!(error.to_string().ends_with(": last"), "{error}");
        let missing = run("a-program-that-is-not-there", &[]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_does_not_end_by_its_deadline_is_killed_with_what_it_started() {
        // Its child has its output, and would keep it open for ten minutes.
        let late = shell(&["-c", "sleep 600 & sleep 600"]).within(Duration::from_millis(100));
        let error = late.run().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(shell(&["-c", "true"]).within(Duration::from_secs(60)).run().is_ok());
    }

    #[test]
    fn a_program_that_cannot_be_listened_to_is_killed_and_that_is_an_error() {
        const NAME: &str =
            "programs::tests::a_program_that_cannot_be_listened_to_is_killed_and_that_is_an_error";
        const CHILD: &str = "BULKHEAD_TEST_NO_READER";
        // Of another user, who has nothing else, the processes can be counted.
        if !geteuid().is_root() {
            return;
        }
        if std::env::var_os(CHILD).is_none() {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let status = child.args(["--exact", NAME]).env(CHILD, "1").status().unwrap();
            assert!(status.success(), "{status}");
            return;
        }
        let nobody_else = Uid::from_raw(1_000_000_000 + std::process::id());
        setresuid(nobody_else, nobody_else, nobody_else).unwrap();
        // For the program, and not for a thread beside it.
        let tasks = u64::try_from(fs::read_dir("/proc/self/task").unwrap().count()).unwrap();
        setrlimit(Resource::RLIMIT_NPROC, tasks + 1, tasks + 1).unwrap();
        let error = Program::new("sleep", &["600"]).run().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let says = ["`sleep 600`: what it says cannot be read", "and it was killed", "unavailable"];
        assert!(says.iter().all(|text| error.to_string().contains(text)), "{error}");
    }

    #[test]
    fn whoever_speaks_on_after_a_programs_end_is_not_waited_for() {
        let line = "echo said; setsid sleep 600 & echo $! >&2";
        let ended = shell(&["-c", line]).within(Duration::from_secs(60)).run().unwrap();
        assert_eq!(ended.output, b"said\n");
        let speaks_on = ended.last_line().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(speaks_on), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_program_reads_what_it_is_given_and_the_beginning_of_what_it_says_is_kept() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"word").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let ended = shell(&["-c", "cat; head -c 3000000 /dev/zero"]).reading(file).run().unwrap();
        assert!(ended.status.success());
        assert!(ended.output.starts_with(b"word\0"));
        assert_eq!(ended.output.len(), OUTPUT_MAX);
    }
}
