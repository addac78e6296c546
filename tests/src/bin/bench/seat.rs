//! How long a switch takes, and what else a person at the seat waits for.

use serde_json::json;
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::budgets::Budgets;
use tests::measure::Sample;
use tests::{Guest, Outcome, WardPc, measure_seat};

use crate::Report;

/// How long one scroll is measured, in milliseconds.
const SCROLL_MS: u64 = 4000;
/// Switches, and flips of the floor, in each run.
const SWITCHES: usize = 200;

pub(crate) fn seat(report: &mut Report, pc: &WardPc, runs: usize, budgets: &Budgets) -> Outcome {
    report.line("\n## The seat\n");
    measure_seat::sit_down(pc)?;
    let (mut floor, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trips, mut scrolls) = (Vec::new(), [Vec::new(), Vec::new()]);
    for run in 1..=runs {
        let least = with_guests(pc)?;
        let agent = Agent::launch_with(pc, SEAT_MACHINE, &seat_policy(), &[])?;
        let clinical = agent.probe("clinical");
        clinical.wait_ready()?;
        agent.probe("internet").wait_ready()?;
        let painted = clinical.ask(json!({"op": "paint", "colour": 0x20_40_60}))?;
        let side =
            |index: usize| painted["size"][index].as_u64().and_then(|s| u32::try_from(s).ok());
        let size = side(0).zip(side(1)).ok_or("the probe painted nothing")?;
        let switched = measure_seat::switch(pc, &agent, SWITCHES)?;
        trips.extend(measure_seat::round_trips(pc, 20)?);
        let qemu = measure_seat::qemu_guest(pc, size)?;
        qemu.probe.ask(json!({"op": "paint", "colour": 0x20_40_60}))?;
        for (speeds, probe) in scrolls.iter_mut().zip([&clinical, &qemu.probe]) {
            speeds.push(measure_seat::scroll(probe, SCROLL_MS)?);
        }
        drop(qemu);
        agent.stop()?;
        let after = with_guests(pc)?;
        let both = [least, after].concat();
        let micros = |key: &str| switched[key].as_f64().ok_or("the agent measured nothing");
        let (p50, p99) = (micros("switch_p50_us")?, micros("switch_p99_us")?);
        let (least50, least99) = (percentile(&both, 50), percentile(&both, 99));
        pc.progress(&format!(
            "run {run}: switch p50 {p50:.0} us, p99 {p99:.0}; floor p50 {least50:.0}, p99 {least99:.0}"
        ));
        ours.push((p50, p99));
        floor.push((least50, least99));
        ratios.push(p99 / least99);
    }
    report.line("| microseconds from key to flip | p50: lowest | median | highest | p99: lowest | median | highest |");
    report.line("|---|---|---|---|---|---|---|");
    for (name, times) in [("switch", &ours), ("floor: read a key, flip a page", &floor)] {
        let half = Sample::of(times.iter().map(|(p50, _)| *p50).collect())?;
        let most = Sample::of(times.iter().map(|(_, p99)| *p99).collect())?;
        report.line(&format!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            half.low, half.median, half.high, most.low, most.median, most.high
        ));
    }
    let round = Sample::of(trips)?;
    report.line(&format!(
        "\nCaps Lock to the guest's light and back: {:.1} ms median, {:.1} lowest, {:.1} highest.",
        round.median / 1e3,
        round.low / 1e3,
        round.high / 1e3
    ));
    let [bulkhead, qemu] = scrolls;
    let (bulkhead, qemu) = (Sample::of(bulkhead)?, Sample::of(qemu)?);
    report.line(&format!(
        "Full-screen scrolling, frames a second: {:.0} with bulkhead-vmm and the agent's screen, {:.0} with QEMU's virtio-gpu and none ({:.2} x).",
        bulkhead.median,
        qemu.median,
        bulkhead.median / qemu.median
    ));
    let most = budgets.ratio("seat", "switch_p99_to_floor")?;
    let ratio = Sample::of(ratios)?.median;
    report.held(ratio <= most, format!("switch p99 {ratio:.2} x the floor's; budget {most}"));
    Ok(())
}

/// Measures the floor, with two guests beside it as the switch has them.
fn with_guests(pc: &WardPc) -> Outcome<Vec<f64>> {
    let _guests = [
        Guest::start(pc, "first", &["--memory", "256M"])?,
        Guest::start(pc, "second", &["--memory", "256M"])?,
    ];
    measure_seat::floor(pc, SWITCHES)
}

#[allow(clippy::indexing_slicing, reason = "the rank is within the list, which is not empty")]
fn percentile(values: &[f64], hundredth: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() * hundredth).div_ceil(100).saturating_sub(1);
    sorted[rank.min(sorted.len() - 1)]
}
