//! What a test can ask.
//!
//! | `op` | fields | answer |
//! | --- | --- | --- |
//! | `timing` | | `uptime` (s), `clocksource` |
//! | `cpus` | | `online` |
//! | `memory` | | `total_kib` |
//! | `touch-memory` | `mib` | `mib` written and read back |
//! | `interfaces` | | `interfaces`: name, mac, driver, pci, ipv6, `msi_vectors` |
//! | `configure` | `interface`, `address` (CIDR) | |
//! | `reach` | `address`, `interface`? | `reached` |
//! | `http` | `address` | `body` |
//! | `arp` | `interface`, `address` | `answered` |
//! | `send-frame` | `interface`, `source`, `destination`, `payload`, `count` | |
//! | `block-devices` | | `devices`: name, bytes, `read_only`, `id` |
//! | `blk-write`, `blk-verify` | `device`, `mib`, `seed` | `mib`; verify: `wrong_at` |
//! | `blk-speed` | `device`, `kib`, `ms`, `write`?, `random`?, `depth`? | `requests`, `us`, `p50_us`, `p99_us` |
//! | `blk-discard` | `device` | |
//! | `flood-port` | `port`, `bytes` | starts writing to another port, in the background |
//! | `input` | | `events` since the last time: type, code, value, microseconds |
//! | `modes` | | `modes`: sizes, the preferred one first |
//! | `paint` | `colour`, `width`?, `height`? | `size` |
//! | `flood-screen` | `millis`, `background`? | `updates` |
//! | `hostile-gpu` | `count`, `seed` | `answered`, `resets` |
//! | `run` | `argv` | `status`, `output` |
//! | `copy` | `text` | it is in the guest's clipboard |
//! | `paste` | | `text` that the other side offers, or null |
//! | `power-off`, `reboot` | | |

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::{first_line, run, uptime};
use crate::request::{number, text};
use crate::{block, clipboard, find_port, hostile, network, scsi, seat, sys};

/// Most output of a program that is sent back, in bytes.
const OUTPUT_MAX: usize = 64 << 10;
/// Most memory one question may take, in MiB.
const TOUCH_MAX: u64 = 16 << 10;

/// Carries out the request in one line and returns the answer.
pub(crate) fn answer(line: &[u8]) -> Value {
    let request: Value = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return json!({"ok": false, "error": format!("not JSON: {error}")}),
    };
    let mut answer = match act(&request) {
        Ok(mut fields) => {
            fields["ok"] = true.into();
            fields
        }
        Err(error) => json!({"ok": false, "error": error}),
    };
    answer["id"] = request["id"].clone();
    answer
}

fn act(request: &Value) -> Result<Value, String> {
    match text(request, "op")? {
        "timing" => Ok(json!({"uptime": uptime(), "clocksource": first_line(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource")})),
        "cpus" => Ok(json!({"online": first_line("/sys/devices/system/cpu/online")})),
        "memory" => Ok(json!({"total_kib": memory_total()})),
        "touch-memory" => touch_memory(number(request, "mib")?),
        "interfaces" => Ok(json!({"interfaces": network::interfaces()})),
        "configure" => {
            network::configure(text(request, "interface")?, text(request, "address")?)?;
            Ok(json!({}))
        }
        "reach" => {
            let interface = request["interface"].as_str();
            Ok(json!({"reached": network::reach(text(request, "address")?, interface)?}))
        }
        "http" => Ok(json!({"body": network::http(text(request, "address")?)?})),
        "arp" => Ok(json!({"answered":
            network::arp(text(request, "interface")?, text(request, "address")?)?})),
        "send-frame" => {
            network::send(request)?;
            Ok(json!({}))
        }
        "block-devices" => Ok(json!({"devices": block::devices()})),
        "blk-write" => block::write(request),
        "blk-verify" => block::verify(request),
        "blk-speed" => block::speed(request),
        "blk-discard" => {
            run(&["/bin/busybox", "blkdiscard", text(request, "device")?]).map(|_| json!({}))
        }
        "scsi" => scsi::command(request),
        "input" => seat::events(),
        "modes" => seat::modes(),
        "paint" => seat::paint(request),
        "flood-screen" => seat::flood(request),
        "hostile-gpu" => hostile::gpu(request),
        "flood-port" => flood(text(request, "port")?, number(request, "bytes")?),
        "run" => {
            let argv: Vec<&str> = request["argv"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let output = Command::new(argv.first().ok_or("`argv` is empty")?)
                .args(argv.iter().skip(1))
                .output()
                .map_err(|e| e.to_string())?;
            let mut all = output.stdout;
            all.extend(output.stderr);
            all.truncate(OUTPUT_MAX);
            Ok(json!({"status": output.status.code(), "output": String::from_utf8_lossy(&all)}))
        }
        "copy" => clipboard::copy(request),
        "paste" => clipboard::paste(),
        "power-off" => {
            later(|| sys::power_off());
            Ok(json!({}))
        }
        "reboot" => {
            later(|| sys::reboot());
            Ok(json!({}))
        }
        other => Err(format!("no such question: {other}")),
    }
}

/// Leaves time for the answer to get out.
fn later(action: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        action();
    });
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Fills memory with its own page numbers, then reads them back.
fn touch_memory(mib: u64) -> Result<Value, String> {
    if mib > TOUCH_MAX {
        return Err(format!("at most {TOUCH_MAX} MiB"));
    }
    // Pages of zeroes that are not there yet.
    let mut memory = vec![0u64; (mib << 20) as usize / 8];
    const STEP: usize = 512;
    for (page, word) in memory.iter_mut().step_by(STEP).enumerate() {
        *word = !(page as u64);
    }
    let wrong =
        memory.iter().step_by(STEP).enumerate().find(|(page, word)| **word != !(*page as u64));
    match wrong {
        None => Ok(json!({"mib": mib})),
        Some((page, _)) => Err(format!("page {page} changed by itself")),
    }
}

fn flood(port: &str, bytes: u64) -> Result<Value, String> {
    let path = find_port(port).ok_or_else(|| format!("no port {port}"))?;
    let mut port = fs::OpenOptions::new().write(true).open(path).map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        let block = [b'x'; 4096];
        let mut left = bytes;
        while left > 0 {
            match port.write(&block) {
                Ok(0) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
                Ok(n) => left = left.saturating_sub(n as u64),
            }
        }
    });
    Ok(json!({}))
}
