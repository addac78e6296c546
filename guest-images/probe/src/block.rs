//! Disks: what there is, and whether they keep what is written.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kernel::first_line;
use crate::request::{number, text};

const MIB: usize = 1 << 20;
/// The most requests at a time.
const DEPTH_MAX: u64 = 64;

/// Lists every virtio disk.
pub(crate) fn devices() -> Vec<Value> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("vd"));
    names.sort();
    let describe = |name: &String| {
        let base = format!("/sys/block/{name}");
        let sectors: u64 = first_line(&format!("{base}/size")).parse().unwrap_or(0);
        json!({
            "name": name,
            "bytes": sectors * 512,
            "read_only": first_line(&format!("{base}/ro")) == "1",
            "id": first_line(&format!("{base}/serial")),
        })
    };
    names.iter().map(describe).collect()
}

/// Makes a block of bytes nobody would write by accident: a function of seed and place.
fn pattern(seed: u64, block: u64, into: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ block.wrapping_add(1);
    for chunk in into.chunks_mut(8) {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        for (to, from) in chunk.iter_mut().zip(word) {
            *to = from;
        }
    }
}

/// Writes a pattern from the start of a disk and flushes it.
pub(crate) fn write(request: &Value) -> Result<Value, String> {
    let (device, mib, seed) =
        (text(request, "device")?, number(request, "mib")?, number(request, "seed")?);
    let mut disk = File::options().write(true).open(device).map_err(|e| e.to_string())?;
    let mut block = vec![0; MIB];
    for index in 0..mib {
        pattern(seed, index, &mut block);
        disk.write_all(&block).map_err(|e| e.to_string())?;
    }
    disk.sync_all().map_err(|e| e.to_string())?;
    Ok(json!({"mib": mib}))
}

/// Reads the pattern back; `wrong_at` is the first MiB that is not as written.
pub(crate) fn verify(request: &Value) -> Result<Value, String> {
    let (device, mib, seed) =
        (text(request, "device")?, number(request, "mib")?, number(request, "seed")?);
    let mut disk = File::open(device).map_err(|e| e.to_string())?;
    let (mut block, mut wanted) = (vec![0; MIB], vec![0; MIB]);
    let mut wrong_at = Value::Null;
    for index in 0..mib {
        disk.read_exact(&mut block).map_err(|e| e.to_string())?;
        pattern(seed, index, &mut wanted);
        if block != wanted && wrong_at.is_null() {
            wrong_at = index.into();
        }
    }
    Ok(json!({"mib": mib, "wrong_at": wrong_at}))
}

/// Measures how fast a disk is past the guest's page cache: one request of `kib` after another, in
/// order or anywhere, for `ms` milliseconds; `depth` at a time, each by a thread of its own.
pub(crate) fn speed(request: &Value) -> Result<Value, String> {
    let depth = request["depth"].as_u64().unwrap_or(1).clamp(1, DEPTH_MAX);
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let all: Vec<_> = std::thread::scope(|scope| {
        let streams: Vec<_> = (1..=depth)
            .map(|seed| {
                scope.spawn({
                    let next = &next;
                    move || stream(request, next, seed)
                })
            })
            .collect();
        streams
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err("a thread failed".into())))
            .collect()
    });
    let us = start.elapsed().as_micros() as u64;
    let mut times = all.into_iter().collect::<Result<Vec<_>, String>>()?.concat();
    times.sort_unstable();
    let at = |hundredth: usize| times.get(times.len() * hundredth / 100).copied();
    Ok(json!({"requests": times.len(), "us": us, "p50_us": at(50), "p99_us": at(99)}))
}

/// Makes one request after another; returns the microseconds of each.
fn stream(request: &Value, next: &AtomicU64, seed: u64) -> Result<Vec<u64>, String> {
    /// What O_DIRECT asks of a buffer's place.
    const ALIGN: usize = 4096;
    let (device, kib, ms) =
        (text(request, "device")?, number(request, "kib")?, number(request, "ms")?);
    let (write, random) = (request["write"] == true, request["random"] == true);
    let mut options = File::options();
    let disk = options.read(true).write(write).custom_flags(libc::O_DIRECT).open(device);
    let disk = disk.map_err(|e| e.to_string())?;
    let name = device.trim_start_matches("/dev/");
    let sectors: u64 = first_line(&format!("/sys/block/{name}/size")).parse().unwrap_or(0);
    let size = kib * 1024;
    let places = (sectors * 512).checked_div(size).unwrap_or(0).max(1);
    let mut memory = vec![0x5a; size as usize + ALIGN];
    let from = memory.as_ptr().align_offset(ALIGN);
    let buffer = memory.get_mut(from..from + size as usize).ok_or("no buffer")?;
    let (mut state, start) = (0x2545_f491_4f6c_dd1du64.wrapping_mul(2 * seed + 1), Instant::now());
    let mut times = Vec::new();
    while start.elapsed() < Duration::from_millis(ms) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = next.fetch_add(1, Ordering::Relaxed);
        let place = if random { state } else { number } % places;
        let asked = Instant::now();
        let done = if write {
            disk.write_all_at(buffer, place * size)
        } else {
            disk.read_exact_at(buffer, place * size)
        };
        done.map_err(|e| e.to_string())?;
        times.push(asked.elapsed().as_micros() as u64);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_requests_are_made_at_a_time_as_are_asked_for() {
        let place = std::env::current_exe().expect("a file of a real disk");
        let ask = json!({"device": place, "kib": 4, "ms": 50, "depth": 8});
        let answer = speed(&ask).expect("it can be read");
        assert!(answer["requests"].as_u64() >= Some(8), "{answer}");
    }
}
