//! The command line of `bulkhead-vmm`.
//!
//! Exit status: 0 the guest powered itself off, or was told to end; 1 the VMM failed, and the message says what to do; 2 bad usage.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vmm_control::limits::{CPUS_MAX, DISK_ID_MAX, PORT_NAME_MAX, is_disk_id, is_port_name};
use vmm_control::spec::check_tap;
use vmm_control::{
    DiskSpec, MemorySize, NetSpec, PortSpec, SandboxSpec, SerialSpec, SpecError, VmSpec,
};

use crate::spec_fd;

/// Run one Linux guest under KVM, with its own disks, ports and passed-through PCI functions.
#[derive(Debug, Parser)]
#[command(name = "bulkhead-vmm", version, about, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Returns the command line's definition, from which its manual page is made.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

const EXIT_STATUS: &str = "Exit status: 0 the guest powered off, or was reset or stopped by request; \
1 the VMM failed, or the guest did not shut down in time after SIGTERM and was switched off (the message says what \
and what to do); 2 bad usage.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a guest and run it until it powers off.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
}

const RUN_HELP: &str = "\
Keys on a terminal serial port: Ctrl-A x ends the VMM, Ctrl-A Ctrl-A sends one Ctrl-A.
Signals: SIGTERM presses the guest's power button; a guest that has not shut down after --stop-timeout is
switched off. A second SIGTERM, or SIGINT, ends the VMM at once.

Example: a kernel with a disk and a passed-through NIC
  bulkhead-vmm run --kernel vmlinuz --initrd initrd.img --cmdline 'root=/dev/vda1 ro console=ttyS0' \\
      --memory 4G --cpus 2 --disk path=debian.img --vfio 0000:00:05.0

Exit status: 0 the guest powered off, or was reset or stopped by request; 1 the VMM failed, or the guest did
not shut down in time after SIGTERM and was switched off (the message says what and what to do); 2 bad usage.";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Linux kernel: a bzImage (vmlinuz) or an uncompressed ELF with a PVH entry (vmlinux)
    #[arg(long, value_name = "FILE", required_unless_present = "spec_fd")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "STRING",
        default_value = "console=ttyS0",
        allow_hyphen_values = true
    )]
    cmdline: String,
    /// Guest RAM, like 512M or 4G (4GB and 4GiB are the same)
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    memory: MemorySize,
    /// Take guest RAM from the host's pool of huge pages
    #[arg(long)]
    hugepages: bool,
    /// vCPUs, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_cpus)]
    cpus: u8,
    /// Raw disk image or block device; repeat for more disks
    #[arg(long = "disk", value_name = "path=FILE[,readonly][,id=NAME]", value_parser = parse_disk)]
    disks: Vec<DiskSpec>,
    /// Network interface on a tap; repeat for more
    #[arg(long = "net", value_name = "tap=NAME[,mac=MAC]", value_parser = parse_net)]
    nets: Vec<NetSpec>,
    /// Hand this PCI function over whole, as 0000:00:05.0 or 00:05.0; repeat for more
    #[arg(long = "vfio", value_name = "ADDRESS")]
    vfio: Vec<vfio::Address>,
    /// Where the first serial port goes
    #[arg(long, value_name = "stdio|null|file=PATH", default_value = "stdio", value_parser = parse_serial)]
    serial: SerialSpec,
    /// Named byte stream into the guest, as a Unix socket this VMM listens on; repeat for more
    #[arg(long = "port", value_name = "name=NAME,socket=PATH", value_parser = parse_port)]
    ports: Vec<PortSpec>,
    /// USB device over usbredir, as a Unix socket this VMM listens on; repeat for more, up to 8
    #[arg(long = "usb", value_name = "socket=PATH", value_parser = parse_socket)]
    usb: Vec<PathBuf>,
    /// Control socket: one JSON object a line (status, power-button, reset, pause, resume, stop)
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Screen, keyboard and pointer, for bulkhead-agent: a Unix socket this VMM listens on
    #[arg(long, value_name = "socket=PATH", value_parser = parse_socket)]
    seat: Option<PathBuf>,
    /// How long the guest has to shut down after SIGTERM, as 30s or 2m; then it is switched off
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = notation::duration::short)]
    stop_timeout: Duration,
    /// End the VMM with status 0 when the guest resets, instead of starting it anew
    #[arg(long)]
    exit_on_reset: bool,
    /// User to become once everything is open (when started as root)
    #[arg(long, value_name = "UID", requires = "sandbox_gid", value_parser = parse_account)]
    sandbox_uid: Option<u32>,
    /// Group to become once everything is open (when started as root)
    #[arg(long, value_name = "GID", requires = "sandbox_uid", value_parser = parse_account)]
    sandbox_gid: Option<u32>,
    /// The whole machine as JSON from this open descriptor, in place of every option but --log-level; bulkhead-agent gives it on 0
    #[arg(long, value_name = "N", value_parser = parse_descriptor, conflicts_with_all = MACHINE)]
    spec_fd: Option<RawFd>,
    /// Leave the sandbox open: for debugging this VMM only
    #[arg(long)]
    no_sandbox: bool,
    /// How much to say on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// Only what ends the VMM.
    Error,
    /// And what a person should look into.
    Warn,
    /// And what happens once.
    Info,
    /// And what a developer wants to know.
    Debug,
    /// And everything else.
    Trace,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The options that describe a machine: a specification in JSON says all of it.
const MACHINE: &[&str] = &[
    "kernel",
    "initrd",
    "cmdline",
    "memory",
    "hugepages",
    "cpus",
    "disks",
    "nets",
    "vfio",
    "serial",
    "ports",
    "usb",
    "api_socket",
    "seat",
    "stop_timeout",
    "exit_on_reset",
    "sandbox_uid",
    "sandbox_gid",
    "no_sandbox",
];

impl RunArgs {
    /// Returns the descriptor that the specification lies in, if it lies in one.
    #[must_use]
    pub fn spec_fd(&self) -> Option<RawFd> {
        self.spec_fd
    }

    /// Returns the machine that the options describe, or that lies in `--spec-fd`; checked, and nothing opened yet.
    ///
    /// # Errors
    /// The specification cannot be read, or asks for what there is not.
    pub fn spec(self) -> Result<VmSpec, SpecError> {
        if let Some(number) = self.spec_fd {
            return spec_fd::read(number);
        }
        let spec = VmSpec {
            // One of the two is there, or the command line was refused.
            kernel: self.kernel.unwrap_or_default(),
            initrd: self.initrd,
            cmdline: self.cmdline,
            memory: self.memory,
            hugepages: self.hugepages,
            cpus: self.cpus,
            disks: self.disks,
            nets: self.nets,
            vfio: self.vfio,
            serial: self.serial,
            ports: self.ports,
            usb: self.usb,
            control_socket: self.api_socket,
            seat_socket: self.seat,
            exit_on_reset: self.exit_on_reset,
            stop_timeout: self.stop_timeout,
            sandbox: SandboxSpec {
                enabled: !self.no_sandbox,
                ids: self.sandbox_uid.zip(self.sandbox_gid),
            },
        };
        spec.check()?;
        Ok(spec)
    }
}

/// Reads the `key=value,flag` pairs of an argument. A key must come from `known`, and at most once.
fn pairs<'a>(text: &'a str, known: &[&str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if !known.contains(&key) {
            return Err(format!("`{key}` is not known here; known: {}", known.join(", ")));
        }
        if seen.iter().any(|(k, _)| *k == key) {
            return Err(format!("`{key}` is given twice"));
        }
        seen.push((key, value));
    }
    Ok(seen)
}

fn value<'a>(pairs: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

fn required<'a>(pairs: &[(&str, &'a str)], key: &str) -> Result<&'a str, String> {
    value(pairs, key).filter(|v| !v.is_empty()).ok_or_else(|| format!("`{key}=` is missing"))
}

fn parse_cpus(text: &str) -> Result<u8, notation::Mistake> {
    notation::whole(text, 1..=CPUS_MAX, 2)
}

/// Reads the number of a user or a group. The largest is none: to the kernel it means "leave it as it is".
fn parse_account(text: &str) -> Result<u32, notation::Mistake> {
    notation::whole(text, 0..=u32::MAX - 1, 64_000)
}

/// Reads the number of an open file descriptor.
fn parse_descriptor(text: &str) -> Result<RawFd, notation::Mistake> {
    notation::whole(text, 0..=RawFd::MAX, 3)
}

fn parse_disk(text: &str) -> Result<DiskSpec, String> {
    let pairs = pairs(text, &["path", "readonly", "id"])?;
    let readonly = match value(&pairs, "readonly") {
        None => false,
        Some("" | "on" | "true") => true,
        Some("off" | "false") => false,
        Some(other) => return Err(format!("`readonly={other}`: write just `readonly`")),
    };
    let id = value(&pairs, "id").map(str::to_owned);
    if id.as_ref().is_some_and(|id| !is_disk_id(id)) {
        return Err(format!("`id=` takes 1 to {DISK_ID_MAX} ASCII characters"));
    }
    Ok(DiskSpec { path: required(&pairs, "path")?.into(), readonly, id })
}

fn parse_net(text: &str) -> Result<NetSpec, String> {
    let pairs = pairs(text, &["tap", "mac"])?;
    let tap = required(&pairs, "tap")?;
    check_tap(tap).map_err(|error| error.to_string())?;
    let mac = value(&pairs, "mac").map(|mac| mac.parse().map_err(|e| format!("`mac={mac}`: {e}")));
    let mac = mac.transpose()?;
    Ok(NetSpec { tap: tap.to_owned(), mac })
}

fn parse_serial(text: &str) -> Result<SerialSpec, String> {
    match text.split_once('=') {
        None if text == "stdio" => Ok(SerialSpec::Stdio),
        None if text == "null" => Ok(SerialSpec::Null),
        Some(("file", path)) if !path.is_empty() => Ok(SerialSpec::File(path.into())),
        _ => Err("takes stdio, null or file=PATH".into()),
    }
}

fn parse_port(text: &str) -> Result<PortSpec, String> {
    let pairs = pairs(text, &["name", "socket"])?;
    let name = required(&pairs, "name")?;
    if !is_port_name(name) {
        return Err(format!(
            "`{name}` is not a port name: letters, digits, dots, dashes and underscores, at most {PORT_NAME_MAX}"
        ));
    }
    Ok(PortSpec { name: name.to_owned(), socket: required(&pairs, "socket")?.into() })
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    let pairs = pairs(text, &["socket"])?;
    Ok(required(&pairs, "socket")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &str) -> Result<VmSpec, String> {
        let words = ["bulkhead-vmm", "run"].into_iter().chain(args.split_whitespace());
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Run(args) => args.spec().map_err(|e| e.to_string()),
        }
    }

    #[test]
    fn the_documented_command_line_is_understood() {
        let spec = run("--kernel k --initrd i --cmdline quiet --memory 4G --cpus 2 \
             --disk path=a,readonly,id=root --disk path=b --net tap=t0,mac=52:54:00:12:34:56 \
             --vfio 0000:00:05.0 --serial file=log --port name=org.x.y,socket=s --api-socket api \
             --log-level debug --stop-timeout 2m")
        .unwrap();
        assert_eq!(spec.stop_timeout, Duration::from_secs(120));
        assert_eq!((spec.memory.bytes(), spec.cpus), (4 << 30, 2));
        assert!(spec.disks[0].readonly && !spec.disks[1].readonly);
        assert_eq!(spec.disks[0].id.as_deref(), Some("root"));
        assert_eq!(spec.nets[0].mac, Some("52:54:00:12:34:56".parse().unwrap()));
        assert_eq!(spec.serial, SerialSpec::File("log".into()));
        assert_eq!(spec.ports[0].name, "org.x.y");
        assert!(spec.sandbox.enabled);
    }

    #[test]
    fn bad_arguments_say_what_is_wrong() {
        for (args, says) in [
            ("--disk readonly", "`path=` is missing"),
            ("--disk path=a,cache=none", "`cache` is not known here"),
            ("--disk path=a,path=b", "given twice"),
            ("--disk path=a,id=aaaaaaaaaaaaaaaaaaaaa", "1 to 20"),
            ("--net tap=averyverylongname", "1 to 15 bytes"),
            ("--net tap=t,mac=01:00:00:00:00:00", "multicast"),
            ("--net tap=t,mac=1:2:3:4:5:6", "as in 52:54:00:12:34:56"),
            ("--serial pty", "stdio, null or file=PATH"),
            ("--port name=a/b,socket=s", "not a port name"),
            ("--cpus 0", "write one from 1 to 16"),
            ("--cpus 17", "write one from 1 to 16"),
            ("--cpus x", "`x` is not a whole number; write one from 1 to 16, such as 2"),
            ("--sandbox-uid 4294967295 --sandbox-gid 1", "from 0 to 4294967294, such as 64000"),
            ("--memory 10M", "at least 64M"),
            ("--vfio 00:05", "00:05"),
            ("--stop-timeout 10", "30s or 2m"),
            ("--memory 4GX", "512M or 4G"),
        ] {
            let error = run(&format!("--kernel k {args}")).unwrap_err();
            assert!(error.contains(says), "{args}: {error}");
        }
    }

    #[test]
    fn a_specification_on_a_descriptor_stands_for_every_option_but_how_much_is_said() {
        use clap::CommandFactory;
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let options = run.get_arguments().map(|argument| argument.get_id().as_str());
        let others = ["spec_fd", "log_level", "help", "version"];
        let options: Vec<&str> = options.filter(|option| !others.contains(option)).collect();
        let described: Vec<&str> =
            options.iter().copied().filter(|option| MACHINE.contains(option)).collect();
        assert_eq!(options, described, "every option of the machine is refused beside --spec-fd");
        assert_eq!(options.len(), MACHINE.len());
        let parsed = |words: &[&str]| {
            Cli::try_parse_from(["bulkhead-vmm", "run"].iter().chain(words)).map(|_| ())
        };
        assert!(parsed(&["--spec-fd", "0", "--log-level", "debug"]).is_ok());
        for words in [["--cpus", "2"], ["--kernel", "k"], ["--seat", "socket=s"]] {
            let words = [&["--spec-fd", "0"], &words[..]].concat();
            let error = parsed(&words).unwrap_err().to_string();
            assert!(error.contains("cannot be used with"), "{error}");
        }
        assert!(parsed(&[]).unwrap_err().to_string().contains("--kernel"));
        assert!(parsed(&["--spec-fd", "-1"]).is_err());
    }

    /// The machine file's test has the same notations.
    #[test]
    fn sizes_and_addresses_are_taken_as_the_machine_file_takes_them() {
        for memory in ["4G", "4GB", "4GiB"] {
            let spec = run(&format!("--kernel k --memory {memory} --vfio 05:00.0")).unwrap();
            assert_eq!(spec.memory.bytes(), 4 << 30);
            assert_eq!(spec.vfio[0].to_string(), "0000:05:00.0");
            assert_eq!(spec.stop_timeout, Duration::from_secs(10));
        }
    }

    #[test]
    fn every_option_that_takes_a_value_says_in_words_what_it_takes() {
        use clap::CommandFactory;
        let run = Cli::command().find_subcommand("run").unwrap().clone();
        for option in run.get_arguments().filter(|option| option.get_action().takes_values()) {
            let option = option.get_long().unwrap();
            for wrong in ["x", "-1", "99999999999999999999", ""] {
                let argv = ["bulkhead-vmm", "run", &format!("--{option}={wrong}")];
                let Err(error) = Cli::try_parse_from(argv) else { continue };
                let error = error.to_string();
                for bare in ["invalid digit", "too large to fit", "from empty string", "is not in"]
                {
                    assert!(!error.contains(bare), "--{option}={wrong}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_command_itself_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
