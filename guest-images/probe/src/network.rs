//! What the guest's network interfaces are and reach.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::{first_line, run};
use crate::request::{number, text};
use crate::sys;

const BUSYBOX: &str = "/bin/busybox";
/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest page taken, in bytes.
const PAGE_MAX: u64 = 64 << 10;
/// Most frames one question may send.
const FRAMES_MAX: u64 = 1000;

fn link_name(path: &str) -> String {
    let target = fs::read_link(path).unwrap_or_default();
    target.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Lists every interface but loopback.
pub(crate) fn interfaces() -> Vec<Value> {
    let mut found = Vec::new();
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let base = format!("/sys/class/net/{name}");
        if name == "lo" || !Path::new(&format!("{base}/device")).exists() {
            continue;
        }
        let vectors = fs::read_dir(format!("{base}/device/msi_irqs")).into_iter().flatten().count();
        found.push(json!({
            "name": name,
            "mac": first_line(&format!("{base}/address")),
            "driver": link_name(&format!("{base}/device/driver")),
            "pci": link_name(&format!("{base}/device")),
            "msi_vectors": vectors,
            "msi_kind": msi_kind(&base),
            "ipv6": ipv6(&name),
        }));
    }
    found
}

/// Returns `msi` or `msix`, as the kernel says of the first vector.
fn msi_kind(base: &str) -> String {
    let mut vectors =
        fs::read_dir(format!("{base}/device/msi_irqs")).into_iter().flatten().flatten();
    vectors.next().map_or_else(String::new, |v| first_line(&v.path().to_string_lossy()))
}

fn ipv6(name: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mine = table.lines().filter(|line| line.split_whitespace().last() == Some(name));
    mine.filter_map(|line| line.get(..32))
        .map(|hex| {
            let groups: Vec<_> = (0..8).filter_map(|i| hex.get(4 * i..4 * i + 4)).collect();
            groups.join(":")
        })
        .collect()
}

/// Gives an interface an IPv4 address and brings it up.
pub(crate) fn configure(interface: &str, address: &str) -> Result<(), String> {
    run(&[BUSYBOX, "ip", "link", "set", "lo", "up"])?;
    run(&[BUSYBOX, "ip", "link", "set", interface, "up"])?;
    run(&[BUSYBOX, "ip", "addr", "add", address, "dev", interface])?;
    run(&[BUSYBOX, "ip", "route", "replace", "default", "dev", interface])?;
    Ok(())
}

/// Returns whether an address answers pings; a route out of `interface` for IPv6 link-local ones.
pub(crate) fn reach(address: &str, interface: Option<&str>) -> Result<bool, String> {
    let program = if address.contains(':') { "ping6" } else { "ping" };
    let mut command = Command::new(BUSYBOX);
    command.args([program, "-c", "2", "-W", "2"]);
    if let Some(interface) = interface {
        command.args(["-I", interface]);
    }
    let output = command.arg(address).output().map_err(|e| e.to_string())?;
    Ok(output.status.success())
}

/// Fetches a page over plain HTTP; header and body as they come.
pub(crate) fn http(address: &str) -> Result<String, String> {
    let address: IpAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let fetch = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = Vec::new();
        stream.take(PAGE_MAX).read_to_end(&mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    };
    fetch().map_err(|e| format!("http to {address}: {e}"))
}

/// Returns whether anyone says to have an IPv4 address.
pub(crate) fn arp(interface: &str, address: &str) -> Result<bool, String> {
    let output = Command::new(BUSYBOX)
        .args(["arping", "-c", "2", "-w", "3", "-f", "-I", interface, address])
        .output()
        .map_err(|e| e.to_string())?;
    Ok(output.status.success())
}

fn mac(text: &str) -> Result<Vec<u8>, String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|p| u8::from_str_radix(p, 16)).collect();
    bytes.ok().filter(|b| b.len() == 6).ok_or_else(|| format!("`{text}` is not a MAC address"))
}

/// Sends raw frames of an experimental type (IEEE 802 local, 0x88b5) with any source address.
pub(crate) fn send(request: &Value) -> Result<(), String> {
    let mut frame = mac(text(request, "destination")?)?;
    frame.extend(mac(text(request, "source")?)?);
    frame.extend([0x88, 0xb5]);
    frame.extend(text(request, "payload")?.bytes());
    frame.resize(frame.len().max(60), 0);
    for _ in 0..number(request, "count")?.min(FRAMES_MAX) {
        sys::send_frame(text(request, "interface")?, &frame).map_err(|e| e.to_string())?;
    }
    Ok(())
}
