//! What a VMM costs, as the kernel under it sees it: tracepoints of KVM and `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::peers::{GUEST_MIB, QEMU_ROOT, Vmm};
use crate::wardpc::Hardware;
use crate::{Failure, Guest, Outcome, WardPc, ensure};

const TRACING: &str = "/sys/kernel/debug/tracing";
/// Longest from a VMM's start to its end when the guest's init ends at once.
const BOOT: Duration = Duration::from_secs(90);
/// Instruction-counted PCs that are started for one measurement, at most.
const INSTRUCTION_COUNTED_PCS: usize = 4;
/// The CPUID leaf that init asks for when it starts: `mark` of the probe.
const MARK: &str = "4000f4f4";
/// A guest that ends as soon as its init runs.
const BOOT_ONLY: &str = "console=ttyS0 quiet panic=-1 probe.boot-only";

/// Patterns of disk access: name, KiB a request, write, random.
pub const PATTERNS: [(&str, u64, bool, bool); 4] = [
    ("sequential read, 1 MiB", 1024, false, false),
    ("sequential write, 1 MiB", 1024, true, false),
    ("random read, 4 KiB", 4, false, true),
    ("random write, 4 KiB", 4, true, true),
];
/// How long one pattern is measured, in milliseconds.
const DISK_MS: u64 = 2000;

/// Lowest, middle and highest of what was measured.
pub struct Sample {
    pub low: f64,
    /// The one in the middle.
    pub median: f64,
    pub high: f64,
}

impl Sample {
    /// Makes the figures of these values, of which there is at least one.
    pub fn of(mut values: Vec<f64>) -> Outcome<Self> {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().ok_or("nothing was measured");
        Ok(Self { low: at(0)?, median: at(values.len() / 2)?, high: at(values.len().max(1) - 1)? })
    }
}

/// Exits by reason, as KVM's tracepoint names them; nested page faults that are accesses to devices
/// apart from those that are of memory.
pub type Exits = BTreeMap<String, u64>;

/// Measures on a PC with one processor, on which time is what instructions make it: a count there does not hang on how busy this machine is.
///
/// Such a processor stands still now and then, at the PC's boot or in a guest, and answers no more
/// (docs/design/decisions/0007-two-simulated-processors.md): then all is measured anew on another. A fault of ours is there again on each.
pub fn on_an_instruction_counted_pc<T>(
    mut measure: impl FnMut(&WardPc) -> Outcome<T>,
) -> Outcome<T> {
    for _ in 1..INSTRUCTION_COUNTED_PCS {
        let error = match instruction_counted_pc() {
            Ok((_dir, pc)) => match measure(&pc) {
                Err(Failure(error)) if !pc.answers() => error,
                done => return done,
            },
            Err(Failure(error)) => error,
        };
        eprintln!("once more, as the instruction-counted PC does not answer: {error}");
    }
    let (_dir, pc) = instruction_counted_pc()?;
    measure(&pc)
}

fn instruction_counted_pc() -> Outcome<(TempDir, WardPc)> {
    let dir = tempfile::tempdir()?;
    let hardware = Hardware { memory_mib: 6144, count_instructions: true, ..Hardware::default() };
    let pc = WardPc::start(dir.path(), &hardware)?;
    prepare(&pc)?;
    Ok((dir, pc))
}

/// Puts what is started into the PC's memory, so that no measurement waits for its shared folder.
pub fn prepare(pc: &WardPc) -> Outcome {
    pc.sh("[ -d /tmp/measured ] || { mkdir /tmp/measured && \
         cp /share/cloud/* /share/boot.cpio /share/bulkhead-vmm /share/usb-stick /tmp/measured; }")
        .map(drop)
}

/// Prepares the same for Debian's QEMU, which gets a root directory of its own.
pub fn prepare_qemu(pc: &WardPc) -> Outcome {
    pc.sh(&format!(
        "cp -r /share/qemu {QEMU_ROOT} && for d in dev proc sys tmp run share; do \
         mount -o bind /$d {QEMU_ROOT}/$d || exit 1; done"
    ))
    .map(drop)
}

/// Counts the exits from a VM's first instruction to the guest's init.
pub fn exits_until_init(pc: &WardPc, vmm: Vmm, kernel: &str) -> Outcome<Exits> {
    pc.sh(&format!(
        "cd {TRACING}; echo 0 > tracing_on; echo 0 > events/enable; echo 32768 > buffer_size_kb; \
         echo > trace; echo 'function == 0x{MARK}' > events/kvm/kvm_cpuid/filter; \
         echo 1 > events/kvm/kvm_cpuid/enable; echo 1 > events/kvm/kvm_exit/enable; echo 1 > tracing_on"
    ))?;
    boot(pc, vmm, kernel)?;
    // One line for each exit becomes one for each kind: how often, reason, page.
    let lines = pc.sh(&format!(
        "cd {TRACING}; echo 0 > tracing_on; echo 0 > events/enable; \
         sed -n -e 's/.*kvm_cpuid: func {MARK} .*/end/p' \
             -e 's/.*kvm_exit:.* reason \\([a-zA-Z_]*\\) rip [0-9a-fx]* info1 0x\\([0-9a-f]*\\) info2 0x\\([0-9a-f]*\\).*/\\1 \\2 \\3/p' trace | \
         awk '{{ if ($1 == \"end\") {{ print; exit }} \
              if ($1 ~ /npf$/) k = $1 \" \" substr($3, 1, 13); else k = $1; n[k]++ }} \
              END {{ for (k in n) print n[k], k }}'; \
         sed -n 's/.*entries-in-buffer.entries-written: \\([0-9]*\\).\\([0-9]*\\).*/buffer \\1 \\2/p' trace; echo > trace"
    ))?;
    let mut exits = Exits::new();
    let mut ended = false;
    for line in lines.lines() {
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["end"] => ended = true,
            ["buffer", kept, written] => {
                ensure!(kept == written, "the trace buffer is too small: {line}");
            }
            [count, reason] => *exits.entry(name(reason, "")).or_default() += number(count)?,
            [count, reason, page] => {
                *exits.entry(name(reason, page)).or_default() += number(count)?;
            }
            _ => return Err(Failure(format!("cannot read {line:?} in the trace"))),
        }
    }
    let log = || pc.tail("/tmp/measured/serial.log");
    ensure!(ended, "{} did not get the guest to its init; its log ends:\n{}", vmm.name(), log());
    Ok(exits)
}

fn number(text: &str) -> Outcome<u64> {
    Ok(text.parse().map_err(|e| format!("{text}: {e}"))?)
}

/// Names a reason, and for a nested page fault whether it was a device's: page numbers as 13
/// hexadecimal digits, devices lie beyond the guest's RAM.
fn name(reason: &str, page: &str) -> String {
    let reason = reason.trim_start_matches("EXIT_").to_lowercase();
    let page = u64::from_str_radix(page, 16).ok();
    match page {
        Some(0xfec00) => format!("{reason}, I/O APIC"),
        Some(page) if page >= (GUEST_MIB << 8) => format!("{reason}, other devices"),
        Some(_) => format!("{reason}, memory"),
        None => reason,
    }
}

/// Returns time from the VMM's start to the guest's init, in milliseconds of the simulated PC.
pub fn time_until_init(pc: &WardPc, vmm: Vmm, kernel: &str) -> Outcome<f64> {
    pc.sh(&format!(
        "cd {TRACING}; echo 0 > tracing_on; echo 0 > events/enable; echo mono > trace_clock; \
         echo 'function == 0x{MARK}' > events/kvm/kvm_cpuid/filter; \
         echo 1 > events/kvm/kvm_cpuid/enable; \
         echo > trace; echo 1 > tracing_on"
    ))?;
    boot(pc, vmm, kernel)?;
    let trace = pc.sh(&format!(
        "cd {TRACING}; echo 0 > tracing_on; echo 0 > events/enable; grep -v '^#' trace; true"
    ))?;
    let at = |what: &str| -> Outcome<f64> {
        let line = trace.lines().find(|line| line.contains(what));
        let stamp = line.and_then(|l| {
            l.split_whitespace().find_map(|word| word.strip_suffix(':')?.parse::<f64>().ok())
        });
        Ok(stamp.ok_or_else(|| format!("no {what:?} in the trace:\n{trace}"))?)
    };
    Ok((at("kvm_cpuid:")? - at("vmm-start")?) * 1000.0)
}

/// Runs a VMM to its end, having marked its start in the trace.
fn boot(pc: &WardPc, vmm: Vmm, kernel: &str) -> Outcome {
    let argv = vmm.command([kernel, "/tmp/measured/boot.cpio", BOOT_ONLY], "/tmp/measured", None);
    let line = format!("echo vmm-start > {TRACING}/trace_marker; exec \"$@\"");
    let mut all = vec!["/bin/busybox", "sh", "-c", &line, "sh"];
    all.extend(argv.iter().map(String::as_str));
    let output = pc.exec(&all, BOOT)?;
    ensure!(output.status == Some(0), "{argv:?} failed: {output:?}");
    Ok(())
}

/// A process' memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, guest RAM apart.
    pub beyond_guest_kib: u64,
    /// Of that, what only this process has.
    pub private_kib: u64,
    /// RAM of the guest that is resident, in KiB.
    pub guest_kib: u64,
    /// How many threads the VMM has.
    pub threads: u64,
}

/// How often a VMM's threads are counted, a second apart.
const LOOKS: u32 = 4;

/// Looks at a running VMM, at rest: a disk's helpers are gone a second after they had something to do, which what a guest writes back may be at any time.
pub fn memory(pc: &WardPc, pid: u64) -> Outcome<Memory> {
    pc.sh("sleep 3")?;
    let mut memory = process_memory(pc, pid)?;
    for _ in 0..LOOKS {
        let again = process_memory(pc, pid)?;
        if again.threads < memory.threads {
            memory = again;
        }
        pc.sh("sleep 1")?;
    }
    ensure!(memory.guest_kib > 0, "the guest's RAM is not among the mappings of process {pid}");
    Ok(memory)
}

/// Measures the same of a process that may have no guest.
pub fn process_memory(pc: &WardPc, pid: u64) -> Outcome<Memory> {
    let smaps = pc.sh(&format!("cat /proc/{pid}/smaps"))?;
    let status = pc.sh(&format!("cat /proc/{pid}/status"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    let mut memory =
        Memory { threads: number(threads.ok_or("no Threads:")?.trim())?, ..Memory::default() };
    let mut guest = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(kib) = value.parse::<u64>() else { continue };
        match key {
            "Size:" => guest = kib >= GUEST_MIB * 1024,
            "Rss:" if guest => memory.guest_kib += kib,
            "Rss:" => memory.beyond_guest_kib += kib,
            "Private_Clean:" | "Private_Dirty:" if !guest => memory.private_kib += kib,
            _ => {}
        }
    }
    Ok(memory)
}

/// Requests a second of each of [`PATTERNS`], one at a time and past the guest's page cache.
pub fn disk_speeds(pc: &WardPc, vmm: Vmm, disk: &str) -> Outcome<Vec<f64>> {
    disk_speeds_at(pc, vmm, disk, 1)
}

/// Requests a second of the same, `depth` at a time.
pub fn disk_speeds_at(pc: &WardPc, vmm: Vmm, disk: &str, depth: u64) -> Outcome<Vec<f64>> {
    let guest = Guest::start_vmm(pc, "measured", vmm, disk)?;
    let mut speeds = Vec::new();
    for (_, kib, write, random) in PATTERNS {
        let question = json!({"op": "blk-speed", "device": "/dev/vda", "kib": kib,
                              "write": write, "random": random, "ms": DISK_MS, "depth": depth});
        let answer = guest.probe.ask(question)?;
        let value = |key: &str| answer.get(key).and_then(serde_json::Value::as_f64);
        let (Some(requests), Some(us)) = (value("requests"), value("us")) else {
            return Err(Failure(format!("the probe answered {answer}")));
        };
        speeds.push(requests * 1e6 / us);
    }
    guest.power_off()?;
    Ok(speeds)
}
