//! What a ward PC that was installed from the package costs who works at it: from power-on to the desktop, beside the same desktop started by itself on the same
//! simulated hardware; the host's share of processor and memory while nothing happens; the doctor's time.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::installed::{Installed, UP, becomes, run};
use crate::patience::patience;
use crate::wardpc::images;
use crate::{Outcome, WardPc, ensure};

/// What the small desktop says on its console once it is drawn.
const DRAWN: &str = "SMALL-DESKTOP ready";
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Clock ticks of `/proc/PID/stat` a second (`USER_HZ`, 100 on every Linux for x86).
const TICKS: u64 = 100;

/// No mapping but a guest's memory is as large.
const GUEST_KIB: u64 = 128 << 10;

/// One run.
#[derive(Debug)]
pub struct Measured {
    /// From power-on to the drawn desktop, without anything of Bulkhead's.
    pub bare: Duration,
    /// From power-on of the ward PC to the drawn desktop of the domain in front, a stock Debian starting before.
    pub desktop: Duration,
    /// Of these, until Debian answers.
    pub debian: Duration,
    /// `apt-get install` of the package.
    pub package: Duration,
    /// `bulkhead setup` with an answer file.
    pub setup: Duration,
    /// `bulkhead doctor`.
    pub doctor: Duration,
    /// Processor time of the agent and its helpers in [`IDLE`], in thousandths of a processor.
    pub agent_cpu: u64,
    /// The same of both VMMs, their guests' included.
    pub vmm_cpu: u64,
    /// Proportional set size of the agent, in KiB.
    pub agent_kib: u64,
    /// The same of both VMMs, without their guests' memory.
    pub vmm_kib: u64,
    /// The same of all workers.
    pub worker_kib: u64,
    /// What holds the lock that keeps the PC awake: a program of systemd's and `cat`, for as long as the agent runs.
    pub lock_kib: u64,
}

/// Measures once.
///
/// # Errors
/// Something does not start or answer.
pub fn measure() -> Outcome<Measured> {
    let bare = bare()?;
    let mut installed = Installed::stock("bookworm")?;
    let pc = installed.set_up()?;
    // As the test does, and apart from the clock: what apt and setup take by themselves.
    run(&pc, "bulkhead setup --undo --yes && apt-get -qq -o Dpkg::Use-Pty=0 remove bulkhead")?;
    let began = Instant::now();
    run(&pc, "apt-get -qq -o Dpkg::Use-Pty=0 install /share/packages/bulkhead_*.deb")?;
    let package = began.elapsed();
    let began = Instant::now();
    run(&pc, "bulkhead setup --answers /home/answers.toml --yes")?;
    let setup = began.elapsed();
    run(
        &pc,
        r#"sed -i 's/^\[domain.clinical\]/&\nserial = "file=clinical.log"/' /etc/bulkhead/machine.toml"#,
    )?;
    installed.shut_down(pc)?;
    let began = Instant::now();
    let pc = installed.start()?;
    let debian = began.elapsed();
    becomes(
        &pc,
        "the desktop is drawn",
        &format!("grep -q '{DRAWN}' /var/lib/bulkhead/log/clinical.log"),
        UP,
    )?;
    let desktop = began.elapsed();
    let began = Instant::now();
    run(&pc, "bulkhead doctor")?;
    let doctor = began.elapsed();
    let before = [processor(&pc, "bulkhead-agent")?, processor(&pc, "bulkhead-vmm")?];
    std::thread::sleep(IDLE);
    let after = [processor(&pc, "bulkhead-agent")?, processor(&pc, "bulkhead-vmm")?];
    let share = |place: usize| {
        let ticks = after
            .get(place)
            .zip(before.get(place))
            .map_or(0, |(after, before)| after.saturating_sub(*before));
        ticks * 1000 / (TICKS * IDLE.as_secs())
    };
    Ok(Measured {
        bare,
        desktop,
        debian,
        package,
        setup,
        doctor,
        agent_cpu: share(0),
        vmm_cpu: share(1),
        agent_kib: memory(&pc, "bulkhead-agent")?,
        vmm_kib: memory(&pc, "bulkhead-vmm")?,
        worker_kib: memory(&pc, "bulkhead-worker")?,
        lock_kib: memory(&pc, "systemd-inhibit")? + memory(&pc, "cat")?,
    })
}

/// Measures the clinical domain's image without Bulkhead, until its desktop is drawn: on a PC with the same processors and memory, whose screen and keyboard are virtio's, as the guest's are.
fn bare() -> Outcome<Duration> {
    let dir = tempfile::tempdir()?;
    let console = dir.path().join("console.log");
    let share = images().join("share");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut qemu = crate::qemu::command();
    qemu.args([
        "-M",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "4096",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
    ])
    .args([
        "-device",
        "virtio-gpu-pci,romfile=",
        "-device",
        "virtio-keyboard-pci",
        "-device",
        "virtio-tablet-pci",
    ])
    .args(["-serial", &format!("file:{}", text(&console))])
    .args([
        "-kernel",
        &text(&share.join("vmlinuz")),
        "-initrd",
        &text(&share.join("small/desktop.cpio")),
    ])
    .args([
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check desktop.label=CLINICAL desktop.colour=#0f4722",
    ])
    .stdin(Stdio::null());
    let began = Instant::now();
    let mut child = qemu.spawn()?;
    let drawn = loop {
        if fs::read_to_string(&console).is_ok_and(|said| said.contains(DRAWN)) {
            break Some(began.elapsed());
        }
        if began.elapsed() > patience(UP) {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(&console).unwrap_or_default();
    ensure!(drawn.is_some(), "the desktop by itself is not drawn: {said}");
    Ok(drawn.unwrap_or_default())
}

/// Returns the beginning of a shell loop over the processes that were started by this name: what the kernel calls one is a number where it was started from memory.
fn processes(name: &str) -> String {
    format!(
        "for pid in $(cd /proc; for p in [0-9]*; do tr '\\0' ' ' 2>/dev/null < $p/cmdline | grep -qE '^([^ ]*/)?{name} ' && echo $p; done)"
    )
}

/// Returns the processor time of all processes with this name by now, in ticks.
fn processor(pc: &WardPc, name: &str) -> Outcome<u64> {
    let line =
        format!("{}; do sed 's/.*) //' /proc/$pid/stat | cut -d' ' -f12,13; done", processes(name));
    Ok(run(pc, &line)?.split_whitespace().filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
}

/// Returns the proportional set size of all processes with this name, in KiB, without what is as large as a guest's memory and without guests' pictures.
fn memory(pc: &WardPc, name: &str) -> Outcome<u64> {
    let line = format!(
        "{}; do awk '/^[0-9a-f]+-/ {{ frame = /memfd:bulkhead-frame/ }} /^Size:/ {{ guest = $2 >= {GUEST_KIB} }} /^Pss:/ && !guest && !frame {{ sum += $2 }} END {{ print sum }}' /proc/$pid/smaps; done",
        processes(name)
    );
    let said = run(pc, &line)?;
    let kib: Vec<u64> = said.split_whitespace().filter_map(|kib| kib.parse().ok()).collect();
    ensure!(!kib.is_empty(), "no process is called {name}: {said}");
    Ok(kib.iter().sum())
}

/// Returns a table of several runs, with each figure's median.
#[must_use]
pub fn table(runs: &[Measured]) -> String {
    let median = |value: &dyn Fn(&Measured) -> u64| median(runs, value);
    let seconds = |value: &dyn Fn(&Measured) -> Duration| {
        let millis = median(&|run| u64::try_from(value(run).as_millis()).unwrap_or(u64::MAX));
        format!("{}.{} s", millis / 1000, millis % 1000 / 100)
    };
    let mut text = String::from("| an installed ward PC, stock Debian 12 | median |\n|---|---|\n");
    for (what, value) in [
        ("the clinical image by itself, power-on to its drawn desktop", seconds(&|run| run.bare)),
        ("the ward PC, power-on until Debian answers", seconds(&|run| run.debian)),
        ("the ward PC, power-on to the drawn clinical desktop", seconds(&|run| run.desktop)),
        ("installation of the package", seconds(&|run| run.package)),
        ("`bulkhead setup` with an answer file", seconds(&|run| run.setup)),
        ("`bulkhead doctor`", seconds(&|run| run.doctor)),
        (
            "agent while nothing happens, of a processor",
            format!("{} thousandths", median(&|run| run.agent_cpu)),
        ),
        (
            "both VMMs with their guests, of a processor",
            format!("{} thousandths", median(&|run| run.vmm_cpu)),
        ),
        (
            "agent without guests' pictures, proportional set size",
            format!("{} KiB", median(&|run| run.agent_kib)),
        ),
        (
            "both VMMs without guests' memory and pictures",
            format!("{} KiB", median(&|run| run.vmm_kib)),
        ),
        ("all workers", format!("{} KiB", median(&|run| run.worker_kib))),
        ("what keeps the PC awake", format!("{} KiB", median(&|run| run.lock_kib))),
        (
            "the whole host side, without guests' memory and their pictures",
            format!("{} KiB", host_kib(runs)),
        ),
    ] {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text
}

/// Returns the memory of the whole host side in KiB, without guests' memory and their pictures: proportional set sizes, the median of the runs.
#[must_use]
pub fn host_kib(runs: &[Measured]) -> u64 {
    median(runs, &|run| run.agent_kib + run.vmm_kib + run.worker_kib + run.lock_kib)
}

fn median(runs: &[Measured], value: &dyn Fn(&Measured) -> u64) -> u64 {
    let mut values: Vec<u64> = runs.iter().map(value).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
