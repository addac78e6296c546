//! Runs in the simulated ward PC as its last init: does what the harness asks over a virtio-serial port.
//!
//! One JSON object a line: `exec` runs a program to its end, `spawn` starts one, `wait` asks after it,
//! `ask` sends a line to a Unix socket and brings the answer back; `plug`, `press`, `play` and `pull` are for keyboards,
//! pads and touch screens that QEMU does not have; `tap` makes a network interface, `usb-reset` resets a device as the kernel does of its own accord.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test program: serde_json values are indexed by key, and it may end on what it cannot do"
)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evdev::raw_stream::RawDevice;
use evdev::uinput::VirtualDevice;
use evdev::{
    AbsInfo, AbsoluteAxisCode, AttributeSet, BusType, EventType, InputEvent, InputId, KeyCode,
    PropType, UinputAbsSetup,
};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::Pid;
use serde_json::{Value, json};

const PORT: &str = "org.bulkhead.wardpc";
const PAUSE: Duration = Duration::from_millis(10);
/// How long one try of a question that may be repeated takes.
const RETRY: Duration = Duration::from_secs(3);
/// Most output of a program that is sent back, in bytes.
const OUTPUT_MAX: usize = 1 << 20;

#[derive(Default)]
struct Agent {
    children: HashMap<u32, Child>,
    sockets: HashMap<String, BufReader<UnixStream>>,
    inputs: HashMap<String, VirtualDevice>,
}

fn main() {
    let port = open(PORT);
    let mut writer = port.try_clone().expect("the port is cloned");
    let mut agent = Agent::default();
    let mut reader = BufReader::new(port);
    println!("WARDPC-AGENT up");
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Ok(_) => {}
        }
        let request: Value = serde_json::from_str(&line).unwrap_or_default();
        let mut reply = agent.act(&request).unwrap_or_else(|error| json!({"error": error}));
        reply["id"] = request["id"].clone();
        let mut text = reply.to_string();
        text.push('\n');
        writer.write_all(text.as_bytes()).expect("the port takes answers");
    }
}

/// Waits for a port and opens it.
fn open(name: &str) -> File {
    loop {
        let ports = fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        for port in ports {
            let found = fs::read_to_string(port.path().join("name")).unwrap_or_default();
            let path = Path::new("/dev").join(port.file_name());
            if found.trim() == name
                && let Ok(file) = OpenOptions::new().read(true).write(true).open(path)
            {
                return file;
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn argv(request: &Value) -> Result<Command, String> {
    let words: Vec<&str> =
        request["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (program, rest) = words.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null());
    Ok(command)
}

fn deadline(request: &Value) -> Instant {
    Instant::now() + Duration::from_millis(request["timeout_ms"].as_u64().unwrap_or(10_000))
}

impl Agent {
    /// Reaps who was left to it, as the first process of a real PC does: the kernel counts them among their user's processes until then.
    fn reap(&self) {
        let children = fs::read_to_string("/proc/1/task/1/children").unwrap_or_default();
        let left = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        for pid in left.filter(|pid| !self.children.contains_key(pid)) {
            // One that runs stays.
            let _ = waitpid(Pid::from_raw(pid.cast_signed()), Some(WaitPidFlag::WNOHANG));
        }
    }

    fn act(&mut self, request: &Value) -> Result<Value, String> {
        match request["op"].as_str() {
            Some("exec") => {
                self.reap();
                exec(request)
            }
            Some("spawn") => {
                self.reap();
                let log = request["log"].as_str().ok_or("no log")?;
                let out = File::create(log).map_err(|e| e.to_string())?;
                let err = out.try_clone().map_err(|e| e.to_string())?;
                let child = argv(request)?.stdout(out).stderr(err).spawn();
                let child = child.map_err(|e| e.to_string())?;
                let pid = child.id();
                self.children.insert(pid, child);
                Ok(json!({"pid": pid}))
            }
            Some("wait") => {
                let pid =
                    request["pid"].as_u64().and_then(|p| u32::try_from(p).ok()).ok_or("no pid")?;
                let child = self.children.get_mut(&pid).ok_or("no such child")?;
                let until = deadline(request);
                loop {
                    match child.try_wait().map_err(|e| e.to_string())? {
                        Some(status) => return Ok(ended(status)),
                        None if Instant::now() > until => return Ok(json!({"running": true})),
                        None => std::thread::sleep(PAUSE),
                    }
                }
            }
            Some("ask") => self.ask(request),
            Some("plug") => self.plug(request),
            Some("pull") => {
                self.inputs.remove(request["name"].as_str().ok_or("no name")?);
                Ok(json!({}))
            }
            Some("press") => self.press(request),
            Some("play") => self.play(request),
            Some("light-round-trip") => self.light_round_trip(request),
            Some("tap") => {
                tap(request["name"].as_str().ok_or("no name")?).map_err(|e| e.to_string())
            }
            Some("usb-reset") => {
                reset_usb(request["node"].as_str().ok_or("no node")?).map_err(|e| e.to_string())
            }
            _ => Err("no such op".into()),
        }
    }

    /// Makes a keyboard of this vendor and product, as QEMU's all have the same; or, with a `surface`, a pad or touch screen.
    fn plug(&mut self, request: &Value) -> Result<Value, String> {
        let id = |key: &str| request[key].as_u64().and_then(|id| u16::try_from(id).ok());
        let (vendor, product) = id("vendor").zip(id("product")).ok_or("no vendor and product")?;
        let name = request["name"].as_str().ok_or("no name")?.to_owned();
        let surface = &request["surface"];
        let keys: AttributeSet<KeyCode> = match surface {
            Value::Null => (1..=248).map(KeyCode).collect(),
            _ => numbers(&surface["keys"])?.into_iter().map(KeyCode).collect(),
        };
        let properties: AttributeSet<PropType> =
            numbers(&surface["properties"])?.into_iter().map(PropType).collect();
        let axes = surface["axes"].as_array().into_iter().flatten().map(|axis| {
            let [code, most, resolution] = numbers(axis)?[..] else { return Err("no axis") };
            let range = AbsInfo::new(0, 0, most.into(), 0, 0, resolution.into());
            Ok(UinputAbsSetup::new(AbsoluteAxisCode(code), range))
        });
        let axes: Vec<UinputAbsSetup> = axes.collect::<Result<_, _>>()?;
        let built = VirtualDevice::builder().and_then(|builder| {
            let builder = builder.name(&name).with_keys(&keys)?.with_properties(&properties)?;
            let builder =
                axes.iter().try_fold(builder, |builder, axis| builder.with_absolute_axis(axis))?;
            builder.input_id(InputId::new(BusType::BUS_USB, vendor, product, 1)).build()
        });
        self.inputs.insert(name, built.map_err(|e| e.to_string())?);
        Ok(json!({}))
    }

    /// Reports of a device one after the other, each so many milliseconds after the last: types, codes and values. The clock of the PC may be set
    /// in between. All of it here, for the way from the test takes longer than a tap may last.
    fn play(&mut self, request: &Value) -> Result<Value, String> {
        let name = request["name"].as_str().ok_or("no name")?;
        let device = self.inputs.get_mut(name).ok_or("no such device")?;
        for report in request["reports"].as_array().into_iter().flatten() {
            std::thread::sleep(Duration::from_millis(report["after_ms"].as_u64().unwrap_or(0)));
            if let Some(seconds) = report["set_clock_by_s"].as_i64() {
                set_clock_by(seconds).map_err(|e| e.to_string())?;
            }
            let event = |event: &Value| {
                let number = |at: usize| event[at].as_i64().ok_or("no event");
                let code = |at: usize| u16::try_from(number(at)?).map_err(|_| "no code");
                let value = i32::try_from(number(2)?).map_err(|_| "no value")?;
                Ok(InputEvent::new(code(0)?, code(1)?, value))
            };
            let events = report["events"].as_array().into_iter().flatten().map(event);
            let events: Vec<InputEvent> = events.collect::<Result<_, &str>>()?;
            device.emit(&events).map_err(|e| e.to_string())?;
        }
        Ok(json!({}))
    }

    fn press(&mut self, request: &Value) -> Result<Value, String> {
        let name = request["name"].as_str().ok_or("no name")?;
        let code = request["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let down = i32::from(request["down"] == true);
        let event = InputEvent::new(EventType::KEY.0, code.ok_or("no code")?, down);
        let keyboard = self.inputs.get_mut(name).ok_or("no such keyboard")?;
        keyboard.emit(&[event]).map_err(|e| e.to_string())?;
        Ok(json!({}))
    }

    /// Presses Caps Lock on one keyboard and waits for the lights of another, the only ones that a guest can switch.
    fn light_round_trip(&mut self, request: &Value) -> Result<Value, String> {
        const CAPS_LOCK: u16 = 58;
        const LOOK: Duration = Duration::from_micros(200);
        let lit = request["lit"].as_str().ok_or("no keyboard with lights")?;
        let nodes = fs::read_dir("/dev/input").map_err(|e| e.to_string())?.flatten();
        let lit = nodes
            .filter_map(|node| RawDevice::open(node.path()).ok())
            .find(|device| device.name() == Some(lit) && device.supported_leds().is_some())
            .ok_or("no such keyboard with lights")?;
        let lights = || -> Result<Vec<u16>, String> {
            let state = lit.get_led_state().map_err(|e| e.to_string())?;
            Ok(state.iter().map(|led| led.0).collect())
        };
        let before = lights()?;
        let name = request["name"].as_str().ok_or("no name")?;
        let keyboard = self.inputs.get_mut(name).ok_or("no such keyboard")?;
        let press = |down| InputEvent::new(EventType::KEY.0, CAPS_LOCK, down);
        let until = deadline(request);
        let began = Instant::now();
        keyboard.emit(&[press(1)]).map_err(|e| e.to_string())?;
        let mut micros = None;
        while micros.is_none() && Instant::now() < until {
            if lights()? != before {
                micros = Some(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            std::thread::sleep(LOOK);
        }
        keyboard.emit(&[press(0)]).map_err(|e| e.to_string())?;
        Ok(json!({"micros": micros.ok_or("the light did not change")?}))
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let socket = request["socket"].as_str().ok_or("no socket")?.to_owned();
        let line = request["line"].as_str().ok_or("no line")?;
        let until = deadline(request);
        // A connection kept from an earlier question may be to a program that is gone.
        let mut stale = self.sockets.contains_key(&socket);
        loop {
            // A question asked before the other side was ready may be lost: ask again soon.
            let patience =
                if request["once"] == true { until } else { until.min(Instant::now() + RETRY) };
            let result = self.try_ask(&socket, line, patience);
            match result {
                Ok(answer) => return Ok(json!({"line": answer})),
                Err(error) => {
                    self.sockets.remove(&socket);
                    let last = request["once"] == true && !std::mem::take(&mut stale);
                    if Instant::now() > until || last {
                        return Err(error);
                    }
                    std::thread::sleep(10 * PAUSE);
                }
            }
        }
    }

    fn try_ask(&mut self, path: &str, line: &str, until: Instant) -> Result<String, String> {
        if !self.sockets.contains_key(path) {
            let stream = UnixStream::connect(path).map_err(|e| format!("connect {path}: {e}"))?;
            self.sockets.insert(path.to_owned(), BufReader::new(stream));
        }
        let stream = self.sockets.get_mut(path).ok_or("gone")?;
        let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
        stream.get_ref().set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        stream.get_mut().write_all(format!("{line}\n").as_bytes()).map_err(|e| e.to_string())?;
        let number = |text: &str| serde_json::from_str::<Value>(text).map(|v| v["id"].clone());
        let wanted = number(line).unwrap_or_default();
        loop {
            let mut answer = String::new();
            match stream.read_line(&mut answer) {
                Ok(0) => return Err(format!("{path} hung up")),
                // The answer to a question that was given up on comes late.
                Ok(_) if wanted.is_number() && number(&answer).ok().as_ref() != Some(&wanted) => {}
                Ok(_) => return Ok(answer),
                Err(e) => return Err(format!("no answer on {path}: {e}")),
            }
        }
    }
}

/// Returns the numbers of a list; none, if there is none.
fn numbers(list: &Value) -> Result<Vec<u16>, &'static str> {
    let number = |n: &Value| n.as_u64().and_then(|n| u16::try_from(n).ok()).ok_or("no number");
    list.as_array().into_iter().flatten().map(number).collect()
}

/// Sets the PC's time of day forward, or back.
fn set_clock_by(seconds: i64) -> nix::Result<()> {
    let step = TimeSpec::seconds(seconds);
    clock_settime(ClockId::CLOCK_REALTIME, clock_gettime(ClockId::CLOCK_REALTIME)? + step)
}

/// Makes a tap that stays (linux/if_tun.h), which busybox cannot.
fn tap(name: &str) -> std::io::Result<Value> {
    use std::os::fd::AsRawFd;
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
    const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a zeroed request is a valid one; the kernel reads and writes only this structure.
    let (set, kept) = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(FLAGS).unwrap_or(0);
        let set = libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request);
        (set, libc::ioctl(file.as_raw_fd(), TUNSETPERSIST, 1))
    };
    if set < 0 || kept < 0 { Err(std::io::Error::last_os_error()) } else { Ok(json!({})) }
}

/// Resets a USB device, whoever has it (linux/usbdevice_fs.h).
fn reset_usb(node: &str) -> std::io::Result<Value> {
    use std::os::fd::AsRawFd;
    const USBDEVFS_RESET: libc::c_ulong = 0x5514;
    let file = OpenOptions::new().read(true).write(true).open(node)?;
    // SAFETY: the request takes no argument.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), USBDEVFS_RESET) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(json!({})) }
}

fn ended(status: std::process::ExitStatus) -> Value {
    use std::os::unix::process::ExitStatusExt;
    json!({"status": status.code(), "signal": status.signal()})
}

fn exec(request: &Value) -> Result<Value, String> {
    let mut child = argv(request)?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            if let Some(pipe) = pipe {
                let _ = pipe.take(OUTPUT_MAX as u64).read_to_end(&mut all);
            }
            String::from_utf8_lossy(&all).into_owned()
        })
    };
    let stdout = collect(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = collect(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let until = deadline(request);
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break ended(status),
            None if Instant::now() > until => {
                let _ = child.kill();
                let _ = child.wait();
                break json!({"timeout": true});
            }
            None => std::thread::sleep(PAUSE),
        }
    };
    let mut reply = status;
    // A grandchild that keeps the pipe open would keep us: what is there by now has to do.
    reply["stdout"] = stdout.join().unwrap_or_default().into();
    reply["stderr"] = stderr.join().unwrap_or_default().into();
    Ok(reply)
}
