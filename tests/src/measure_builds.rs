//! One build of bulkhead-vmm and of the stick beside an earlier one, in turn in one PC: figures of two PCs, or of two hours, differ by more
//! than two builds do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::measure::{PATTERNS, disk_speeds, time_until_init};
use crate::measure_usb::{SIZES, Way, reads, reads_through_agent};
use crate::peers::{BZIMAGE, ELF, Vmm};
use crate::wardpc::images;
use crate::{Outcome, WardPc, ensure};

/// Where the PC finds the earlier build and this one.
const BEFORE: &str = "/share/before";
const NOW: &str = "/share";
const VMM: &str = "bulkhead-vmm";
const STICK: &str = "usb-stick";
/// What an agent is: it starts the other two from its own folder.
const AGENT: [&str; 3] = ["bulkhead-agent", "bulkhead-worker", VMM];

/// An earlier build, where the PC will find it.
pub struct Earlier {
    /// The stick, with the filter before it, is an earlier one too.
    has_stick: bool,
}

/// Returns the folder in which the host has what the PC finds as [`BEFORE`].
fn place() -> PathBuf {
    images().join("share/before")
}

/// Copies these programs of an earlier build, and nothing else is there.
fn bring(folder: &Path, programs: &[&str]) -> Outcome {
    let place = place();
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    for name in programs {
        ensure!(
            folder.join(name).is_file(),
            "no {name} in {}: give the folder of an earlier build's programs",
            folder.display()
        );
        fs::copy(folder.join(name), place.join(name))?;
    }
    Ok(())
}

/// An earlier agent with its worker and VMM, where the PC will find it.
pub struct EarlierAgent(());

impl EarlierAgent {
    /// Copies an earlier agent from a folder, before the PC is switched on.
    pub fn bring(folder: &Path) -> Outcome<Self> {
        bring(folder, &AGENT)?;
        Ok(Self(()))
    }

    /// Measures reads from a stick in the PC's port through both agents in each run; the one that is first takes turns.
    pub fn compare(&self, pc: &WardPc, runs: usize) -> Outcome<Vec<Row>> {
        let mut rows: Vec<Row> = SIZES
            .map(|kib| Row::rate(format!("USB reads a second of {kib} KiB, through the agent")))
            .into();
        in_turn(pc, runs, &mut rows, |build| {
            reads_through_agent(pc, &format!("{build}/{}", AGENT[0]))
        })?;
        Ok(rows)
    }
}

/// Measures each build in each run.
fn in_turn(
    pc: &WardPc,
    runs: usize,
    rows: &mut [Row],
    mut measure: impl FnMut(&str) -> Outcome<Vec<f64>>,
) -> Outcome {
    for run in 1..=runs {
        let order = if run % 2 == 0 { [NOW, BEFORE] } else { [BEFORE, NOW] };
        for build in order {
            let found = measure(build)?;
            let which = if build == BEFORE { "before" } else { "now" };
            for (row, value) in rows.iter_mut().zip(found) {
                pc.progress(&format!("run {run}, {which}: {}: {value:.0}", row.name));
                if build == BEFORE { row.before.push(value) } else { row.now.push(value) }
            }
        }
    }
    Ok(())
}

/// What was measured of both.
pub struct Row {
    /// What tables call it.
    pub name: String,
    /// It is a time, and not a rate.
    pub less_is_better: bool,
    /// Of the earlier build, one for each run.
    pub before: Vec<f64>,
    /// What the build of now took, run by run.
    pub now: Vec<f64>,
}

impl Row {
    fn of(name: String, less_is_better: bool) -> Self {
        Self { name, less_is_better, before: Vec::new(), now: Vec::new() }
    }

    fn rate(name: String) -> Self {
        Self::of(name, false)
    }
}

impl Earlier {
    /// Copies what there is of an earlier build from a folder, before the PC is switched on.
    pub fn bring(folder: &Path) -> Outcome<Self> {
        bring(folder, &[VMM])?;
        let has_stick = folder.join(STICK).is_file();
        if has_stick {
            fs::copy(folder.join(STICK), place().join(STICK))?;
        }
        Ok(Self { has_stick })
    }

    /// Measures both builds in each run; the one that is first takes turns.
    pub fn compare(&self, pc: &WardPc, runs: usize, disk: &str) -> Outcome<Vec<Row>> {
        let mut rows: Vec<Row> =
            self.names().into_iter().map(|(name, less)| Row::of(name, less)).collect();
        in_turn(pc, runs, &mut rows, |build| self.measure(pc, build, disk))?;
        // A PC that is measured next has this build.
        self.install(pc, NOW)?;
        Ok(rows)
    }

    fn names(&self) -> Vec<(String, bool)> {
        let boots = ["bzImage", "PVH ELF"].map(|form| (format!("ms to init, {form}"), true));
        let disks = PATTERNS.map(|(name, ..)| (format!("disk requests a second, {name}"), false));
        let usb = self.ways().flat_map(|(_, way)| {
            SIZES.map(|kib| (format!("USB reads a second of {kib} KiB, {way}"), false))
        });
        boots.into_iter().chain(disks).chain(usb).collect()
    }

    /// Ways to a stick, and what tables call them.
    fn ways(&self) -> impl Iterator<Item = (Way, &'static str)> {
        let stick = if self.has_stick {
            "stick of the same build"
        } else {
            "stick of this build beside both"
        };
        // With this build's filter before both there would be nothing to compare.
        let filtered = self.has_stick.then_some((Way::Filtered, "filtered, of the same build"));
        [(Way::Plain, stick)].into_iter().chain(filtered)
    }

    fn measure(&self, pc: &WardPc, build: &str, disk: &str) -> Outcome<Vec<f64>> {
        self.install(pc, build)?;
        let mut found = Vec::new();
        for kernel in [BZIMAGE, ELF] {
            found.push(time_until_init(pc, Vmm::Bulkhead, kernel)?);
        }
        found.extend(disk_speeds(pc, Vmm::Bulkhead, disk)?);
        for (way, _) in self.ways() {
            found.extend(reads(pc, way, disk)?);
        }
        Ok(found)
    }

    /// Makes a build the one that is measured. A program that may still run is not written into.
    fn install(&self, pc: &WardPc, build: &str) -> Outcome {
        let programs = if self.has_stick { &[VMM, STICK][..] } else { &[VMM] };
        for program in programs {
            let place = format!("/tmp/measured/{program}");
            pc.sh(&format!("cp {build}/{program} {place}.new && mv -f {place}.new {place}"))?;
        }
        Ok(())
    }
}
