//! Measures bulkhead-vmm and Debian's QEMU in turn, in a simulated ward PC: `scripts/bench`.
#![allow(clippy::indexing_slicing, reason = "serde_json values are indexed by key")]

mod seat;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tests::budgets::Budgets;
use tests::measure::{self, Exits, PATTERNS, Sample};
use tests::measure_builds::{Earlier, EarlierAgent, Row};
use tests::measure_usb::{self, SIZES, Way};
use tests::peers::{BZIMAGE, ELF, Vmm};
use tests::wardpc::{Hardware, images};
use tests::{Failure, Guest, Outcome, WardPc, measure_installed};

/// What is booted, each in each run.
const BOOTS: [(Vmm, &str); 6] = [
    (Vmm::Bulkhead, BZIMAGE),
    (Vmm::Q35, BZIMAGE),
    (Vmm::Microvm, BZIMAGE),
    (Vmm::Bulkhead, ELF),
    (Vmm::Q35, ELF),
    (Vmm::Microvm, ELF),
];
const DISK: &str = "/tmp/measured.img";

fn main() {
    let (mut runs, mut parts, mut before, mut agent) = (5, BTreeSet::new(), None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if let Some(folder) = word.strip_prefix("before=") {
            before = Some(PathBuf::from(folder));
            continue;
        }
        if let Some(folder) = word.strip_prefix("agent=") {
            agent = Some(PathBuf::from(folder));
            continue;
        }
        match word.as_str() {
            "-n" => match words.next().and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => runs = n,
                _ => usage(),
            },
            "exits" | "memory" | "wall" | "instructions" | "disk" | "seat" | "clipboard"
            | "policy" | "usb" | "installed" => {
                let _ = parts.insert(word);
            }
            _ => usage(),
        }
    }
    let mut report = Report { text: String::new(), missed: Vec::new() };
    let all = parts.is_empty() && before.is_none() && agent.is_none();
    let result = run(&mut report, runs, &|part: &str| all || parts.contains(part))
        .and_then(|()| before.map_or(Ok(()), |folder| builds(&mut report, runs, &folder)))
        .and_then(|()| agent.map_or(Ok(()), |folder| agents(&mut report, runs, &folder)));
    if let Err(Failure(error)) = result {
        eprintln!("bench: {error}");
        std::process::exit(1);
    }
    let place = images().join("../bench/report.md");
    match fs::write(&place, &report.text) {
        Ok(()) => println!("\nThe table is in target/bench/report.md."),
        Err(error) => eprintln!("bench: could not write {}: {error}", place.display()),
    }
    for missed in &report.missed {
        println!("MISSED: {missed}");
    }
    std::process::exit(i32::from(!report.missed.is_empty()));
}

fn usage() -> ! {
    eprintln!(
        "usage: scripts/bench [-n RUNS] [exits] [memory] [wall] [instructions] [disk] [seat] [clipboard] [policy] [usb] [installed] [before=FOLDER] [agent=FOLDER]"
    );
    std::process::exit(2);
}

struct Report {
    text: String,
    missed: Vec<String>,
}

impl Report {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn held(&mut self, holds: bool, what: String) {
        self.line(&format!("\n{}: {what}", if holds { "within budget" } else { "MISSED" }));
        if !holds {
            self.missed.push(what);
        }
    }
}

fn power_on(dir: &Path) -> Outcome<WardPc> {
    let hardware = Hardware { memory_mib: 6144, ..Hardware::default() };
    let pc = WardPc::start(dir, &hardware)?;
    measure::prepare(&pc)?;
    measure::prepare_qemu(&pc)?;
    Ok(pc)
}

fn run(report: &mut Report, runs: usize, wanted: &dyn Fn(&str) -> bool) -> Outcome {
    let budgets = Budgets::load()?;
    if ["memory", "wall", "disk"].into_iter().any(wanted) {
        let dir = tempfile::tempdir()?;
        let pc = power_on(dir.path())?;
        if wanted("memory") {
            memory(report, &pc, &budgets)?;
        }
        if wanted("wall") {
            report.line("\n## Time to init, wall clock of the simulated PC, ms\n");
            times(report, &pc, runs)?;
        }
        if wanted("disk") {
            disk(report, &pc, runs, &budgets)?;
            disks(report, &pc, runs, &budgets)?;
        }
    }
    if wanted("usb") {
        let dir = tempfile::tempdir()?;
        let pc = power_on(dir.path())?;
        usb(report, &pc, runs, &budgets)?;
    }
    if wanted("installed") {
        let runs = (0..runs).map(|_| measure_installed::measure()).collect::<Outcome<Vec<_>>>()?;
        report.line("\n## From the package to a desktop\n");
        report.line(&measure_installed::table(&runs));
        let (kib, most) =
            (measure_installed::host_kib(&runs), budgets.count("host", "memory_kib")?);
        report.held(kib <= most, format!("{kib} KiB of the host side; budget {most}"));
    }
    if wanted("seat") {
        let dir = tempfile::tempdir()?;
        let extra = tests::seat::hardware(dir.path());
        let hardware = Hardware { memory_mib: 6144, extra, ..Hardware::default() };
        let pc = WardPc::start(dir.path(), &hardware)?;
        measure::prepare_qemu(&pc)?;
        seat::seat(report, &pc, runs, &budgets)?;
    }
    if ["exits", "instructions"].into_iter().any(wanted) {
        measure::on_an_instruction_counted_pc(|pc| {
            measure::prepare_qemu(pc)?;
            instruction_counted(report, pc, runs, &budgets, wanted)
        })?;
    }
    Ok(())
}

/// How much slower than an earlier build this one may be where time is what instructions make it: figures there repeat within a percent or two.
const SLOWER_MOST: f64 = 1.03;

/// Measures this build beside an earlier one of `folder`: on a PC whose time is what instructions make it, where figures repeat and are judged,
/// and on an ordinary one with two processors, whose figures differ by more from run to run than builds do.
fn builds(report: &mut Report, runs: usize, folder: &Path) -> Outcome {
    let earlier = Earlier::bring(folder)?;
    let fill = format!("dd if=/dev/urandom of={DISK} bs=1M count=256 2>/dev/null");
    let counted = measure::on_an_instruction_counted_pc(|pc| {
        pc.sh(&fill)?;
        earlier.compare(pc, runs.min(COUNTED_RUNS), DISK)
    })?;
    report.line(
        "\n## One build beside another, in turn, instruction-counted (2 ns an instruction)\n",
    );
    let slower = beside(report, counted)?;
    report.held(
        slower.is_empty(),
        format!("slower than the earlier build by more than {SLOWER_MOST}: {slower:?}"),
    );
    let dir = tempfile::tempdir()?;
    let pc = power_on(dir.path())?;
    pc.sh(&fill)?;
    let rows = earlier.compare(&pc, runs, DISK)?;
    report.line("\n## The same by the clock, two processors\n");
    beside(report, rows).map(drop)
}

/// Measures this build's agent beside an earlier one, by the clock.
fn agents(report: &mut Report, runs: usize, folder: &Path) -> Outcome {
    let earlier = EarlierAgent::bring(folder)?;
    let dir = tempfile::tempdir()?;
    let pc = power_on(dir.path())?;
    let rows = earlier.compare(&pc, runs)?;
    report.line("\n## One agent beside another, in turn, by the clock\n");
    let least = Budgets::load()?.ratio("workers", "usb_reads_to_before")?;
    for row in &rows {
        let (before, now) = (Sample::of(row.before.clone())?, Sample::of(row.now.clone())?);
        let ratio = now.median / before.median;
        let what = format!("{}: {ratio:.2} of the earlier agent's; budget {least}", row.name);
        report.held(row.less_is_better || ratio >= least, what);
    }
    beside(report, rows).map(drop)
}

/// Runs where figures repeat.
const COUNTED_RUNS: usize = 3;

/// Makes a table of both builds, and what is slower by more than [`SLOWER_MOST`].
fn beside(report: &mut Report, rows: Vec<Row>) -> Outcome<Vec<String>> {
    report.line("| what | before: lowest | median | highest | now: lowest | median | highest | ratio of the medians |");
    report.line("|---|---|---|---|---|---|---|---|");
    let mut slower = Vec::new();
    for Row { name, less_is_better, before, now } in rows {
        let (before, now) = (Sample::of(before)?, Sample::of(now)?);
        let ratio = now.median / before.median;
        report.line(&format!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio:.3} |",
            before.low, before.median, before.high, now.low, now.median, now.high,
        ));
        if (if less_is_better { ratio } else { 1.0 / ratio }) > SLOWER_MOST {
            slower.push(name);
        }
    }
    Ok(slower)
}

fn instruction_counted(
    report: &mut Report,
    pc: &WardPc,
    runs: usize,
    budgets: &Budgets,
    wanted: &dyn Fn(&str) -> bool,
) -> Outcome {
    if wanted("exits") {
        exits(report, pc, budgets)?;
    }
    if wanted("instructions") {
        report.line("\n## Time to init, instruction-counted (2 ns an instruction), ms\n");
        let medians = times(report, pc, runs)?;
        let of = |vmm| {
            let all = medians.iter().filter(|(which, _)| *which == vmm).map(|(_, ms)| *ms);
            all.fold(f64::INFINITY, f64::min)
        };
        let (ratio, most) =
            (of(Vmm::Bulkhead) / of(Vmm::Q35), budgets.ratio("boot", "time_to_qemu_q35")?);
        report.held(
            ratio <= most,
            format!(
                "time to init {ratio:.2} x QEMU q35's, each with its better kernel; budget {most}"
            ),
        );
    }
    Ok(())
}

fn form(kernel: &str) -> &'static str {
    if kernel == ELF { "PVH ELF" } else { "bzImage" }
}

fn exits(report: &mut Report, pc: &WardPc, budgets: &Budgets) -> Outcome {
    report.line("\n## VM exits until init\n");
    let mut all: Vec<(String, Exits)> = Vec::new();
    let most = budgets.count("boot", "exits_until_init")?;
    let mut worst = 0;
    for (vmm, kernel) in BOOTS {
        let exits = measure::exits_until_init(pc, vmm, kernel)?;
        if vmm == Vmm::Bulkhead {
            worst = worst.max(exits.values().sum());
        }
        pc.progress(&format!("{}: {}", vmm.name(), exits.values().sum::<u64>()));
        all.push((format!("{}, {}", vmm.name(), form(kernel)), exits));
    }
    let reasons: BTreeSet<&String> = all.iter().flat_map(|(_, exits)| exits.keys()).collect();
    let mut head = "| reason |".to_owned();
    let mut total = "| **all** |".to_owned();
    for (name, exits) in &all {
        let _ = write!(head, " {name} |");
        let _ = write!(total, " **{}** |", exits.values().sum::<u64>());
    }
    report.line(&head);
    report.line(&format!("|---|{}", "---|".repeat(all.len())));
    for reason in reasons {
        let mut line = format!("| {reason} |");
        for (_, exits) in &all {
            let _ = write!(line, " {} |", exits.get(reason).copied().unwrap_or(0));
        }
        report.line(&line);
    }
    report.line(&total);
    report.held(worst <= most, format!("{worst} exits until init; budget {most}"));
    Ok(())
}

fn memory(report: &mut Report, pc: &WardPc, budgets: &Budgets) -> Outcome {
    report.line("\n## Memory beyond guest RAM, with disk, console port and entropy device\n");
    report
        .line("| VMM | resident, KiB | of that private, KiB | guest RAM resident, KiB | threads |");
    report.line("|---|---|---|---|---|");
    pc.sh(&format!("truncate -s 64M {DISK}"))?;
    for vmm in [Vmm::Bulkhead, Vmm::Q35] {
        let guest = Guest::start_vmm(pc, "measured", vmm, DISK)?;
        let memory = measure::memory(pc, guest.pid)?;
        guest.power_off()?;
        report.line(&format!(
            "| {} | {} | {} | {} | {} |",
            vmm.name(),
            memory.beyond_guest_kib,
            memory.private_kib,
            memory.guest_kib,
            memory.threads
        ));
        if vmm == Vmm::Bulkhead {
            let most = budgets.count("vmm", "memory_beyond_guest_kib")?;
            let kib = memory.beyond_guest_kib;
            report.held(kib <= most, format!("{kib} KiB beyond guest RAM; budget {most}"));
            let most = budgets.count("vmm", "threads")?;
            report
                .held(memory.threads <= most, format!("{} threads; budget {most}", memory.threads));
        }
    }
    Ok(())
}

/// Measures median time of each of [`BOOTS`], one after the other in each run.
fn times(report: &mut Report, pc: &WardPc, runs: usize) -> Outcome<Vec<(Vmm, f64)>> {
    let mut all = vec![Vec::new(); BOOTS.len()];
    for run in 1..=runs {
        for ((vmm, kernel), times) in BOOTS.into_iter().zip(&mut all) {
            let ms = measure::time_until_init(pc, vmm, kernel)?;
            pc.progress(&format!("run {run}: {}, {}: {ms:.0} ms", vmm.name(), form(kernel)));
            times.push(ms);
        }
    }
    report.line("| VMM | kernel | lowest | median | highest |");
    report.line("|---|---|---|---|---|");
    let mut medians = Vec::new();
    for ((vmm, kernel), times) in BOOTS.into_iter().zip(all) {
        let Sample { low, median, high } = Sample::of(times)?;
        report.line(&format!(
            "| {} | {} | {low:.0} | {median:.0} | {high:.0} |",
            vmm.name(),
            form(kernel)
        ));
        medians.push((vmm, median));
    }
    Ok(medians)
}

fn disk(report: &mut Report, pc: &WardPc, runs: usize, budgets: &Budgets) -> Outcome {
    report.line("\n## Disk throughput, one request at a time, past the guest's page cache\n");
    pc.sh(&format!("dd if=/dev/urandom of={DISK} bs=1M count=256 2>/dev/null"))?;
    let vmms = [Vmm::Bulkhead, Vmm::Q35];
    let mut all = vec![[const { Vec::new() }; PATTERNS.len()]; vmms.len()];
    for run in 1..=runs {
        for (vmm, speeds) in vmms.into_iter().zip(&mut all) {
            let found = measure::disk_speeds(pc, vmm, DISK)?;
            for (((name, ..), speed), speeds) in PATTERNS.into_iter().zip(found).zip(speeds) {
                pc.progress(&format!("run {run}: {}, {name}: {speed:.0}/s", vmm.name()));
                speeds.push(speed);
            }
        }
    }
    report.line("| requests a second | bulkhead-vmm: lowest | median | highest | QEMU q35: lowest | median | highest | ratio of the medians |");
    report.line("|---|---|---|---|---|---|---|---|");
    let least = budgets.ratio("blk", "throughput_to_qemu")?;
    let [ours, theirs] = all.as_slice() else { return Err("two VMMs are compared".into()) };
    let mut worst = f64::INFINITY;
    for (((name, ..), ours), theirs) in PATTERNS.into_iter().zip(ours).zip(theirs) {
        let (ours, theirs) = (Sample::of(ours.clone())?, Sample::of(theirs.clone())?);
        let ratio = ours.median / theirs.median;
        worst = worst.min(ratio);
        report.line(&format!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
            ours.low, ours.median, ours.high, theirs.low, theirs.median, theirs.high
        ));
    }
    report.held(
        worst >= least,
        format!("disk throughput at least {worst:.2} x QEMU's virtio-blk; budget {least}"),
    );
    Ok(())
}

/// Measures a disk in memory, and one that takes a millisecond for each request, beside both ways of QEMU's, one request at a time and 32.
fn disks(report: &mut Report, pc: &WardPc, runs: usize, budgets: &Budgets) -> Outcome {
    let slow =
        "modprobe null_blk nr_devices=1 gb=1 irqmode=2 completion_nsec=1000000 && echo there";
    let mut media = vec![("in memory", DISK)];
    if pc.sh(slow).is_ok_and(|said| said.contains("there")) {
        media.push(("null_blk, 1 ms", "/dev/nullb0"));
    } else {
        report.line("\nNot measured: this kernel has no null_blk.");
    }
    let least = budgets.ratio("blk", "throughput_to_qemu")?;
    let vmms = [Vmm::Bulkhead, Vmm::Q35, Vmm::Q35Uring];
    report.line("\n## Disks, medians of requests a second\n");
    report.line("| disk | at a time | pattern | bulkhead-vmm | QEMU, threads | QEMU, io_uring | ratio to the goal's |");
    report.line("|---|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for ((medium, disk), depth) in media.into_iter().flat_map(|it| [(it, 1), (it, 32)]) {
        let mut all = vec![[const { Vec::new() }; PATTERNS.len()]; vmms.len()];
        for _ in 0..runs {
            for (vmm, kept) in vmms.into_iter().zip(&mut all) {
                let found = measure::disk_speeds_at(pc, vmm, disk, depth)?;
                kept.iter_mut().zip(found).for_each(|(kept, speed)| kept.push(speed));
            }
        }
        let [ours, threads, uring] = all.as_slice() else { return Err("three VMMs".into()) };
        for ((((name, ..), ours), threads), uring) in
            PATTERNS.into_iter().zip(ours).zip(threads).zip(uring)
        {
            let [ours, threads, uring] = [ours, threads, uring].map(|it| Sample::of(it.clone()));
            let (ours, threads, uring) = (ours?.median, threads?.median, uring?.median);
            let ratio = ours / if depth == 1 { threads.max(uring) } else { threads };
            report.line(&format!("| {medium} | {depth} | {name} | {ours:.0} | {threads:.0} | {uring:.0} | {ratio:.2} |"));
            if ratio < least {
                missed.push(format!("{medium}, {depth}, {name}: {ratio:.2}"));
            }
        }
    }
    report.held(missed.is_empty(), format!("disks at least {least} x QEMU's (the better way at depth 1, aio=threads at 32): {missed:?}"));
    Ok(())
}

fn usb(report: &mut Report, pc: &WardPc, runs: usize, budgets: &Budgets) -> Outcome {
    report.line("\n## Reading a USB stick in the guest, one read at a time, past its page cache\n");
    pc.sh(&format!("dd if=/dev/urandom of={DISK} bs=1M count=16 2>/dev/null"))?;
    let ways = Way::ALL;
    let mut all = vec![[const { Vec::new() }; SIZES.len()]; ways.len()];
    for run in 1..=runs {
        for (way, kept) in ways.into_iter().zip(&mut all) {
            for ((kept, speed), kib) in
                kept.iter_mut().zip(measure_usb::reads(pc, way, DISK)?).zip(SIZES)
            {
                pc.progress(&format!("run {run}: {}, {kib} KiB: {speed:.0}/s", way.name()));
                kept.push(speed);
            }
        }
    }
    report.line("| reads a second, and ms for one | 4 KiB: lowest | median | highest | ms | 64 KiB: lowest | median | highest | ms | MiB/s |");
    report.line("|---|---|---|---|---|---|---|---|---|---|");
    let mut medians = Vec::new();
    for (way, [small, large]) in ways.into_iter().zip(all) {
        let (small, large) = (Sample::of(small)?, Sample::of(large)?);
        report.line(&format!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} | {:.1} |",
            way.name(),
            small.low,
            small.median,
            small.high,
            1e3 / small.median,
            large.low,
            large.median,
            large.high,
            1e3 / large.median,
            large.median / 16.0
        ));
        medians.push(large.median);
    }
    let [plain, filtered, _, agent, host, _] = medians.as_slice() else {
        return Err("six ways".into());
    };
    for (key, what, ratio) in [
        ("filtered_to_plain", "through the filter: as a part of those without", filtered / plain),
        ("agent_to_qemu", "through the agent: as a part of QEMU's usb-host", agent / host),
    ] {
        let least = budgets.ratio("usb", key)?;
        let words = format!("reads of 64 KiB {what}, {ratio:.3}; budget {least}");
        report.held(ratio >= least, words);
    }
    let [before, after] = measure_usb::memory_of_device(pc)?;
    for (who, before, after) in [("agent", before[0], after[0]), ("VMM", before[1], after[1])] {
        report.line(&format!(
            "\nMemory of the {who}, without its guest's: {} KiB before a stick was plugged in, {} KiB after it was read; threads {} and {}.",
            before.beyond_guest_kib, after.beyond_guest_kib, before.threads, after.threads
        ));
    }
    Ok(())
}
