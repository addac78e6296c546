//! The clock: what the audit log's times and break-glass's minutes are worth.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Finding, SystemPaths};

/// The hardware clock counts whole seconds, and is read a moment later.
const AGREES: u64 = 3;
/// Time zones differ by multiples of this, in seconds.
const ZONE_STEP: u64 = 15 * 60;
/// The furthest one, in seconds.
const ZONE_MAX: u64 = 14 * 3600;
/// A time before Bulkhead was written (2025-01-01), in seconds: a clock that shows an earlier one has lost its battery.
const EARLIEST: u64 = 1_735_689_600;
/// An entry may be this much ahead of the clock before anybody worries.
const AHEAD: Duration = Duration::from_secs(5);
/// Sources that let guests read the time without leaving the processor.
const FAST_SOURCES: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen"];

/// Examines the PC's clocks, and against them the audit log in `log`.
pub(super) fn examine(system: &SystemPaths, log: &Path, now: SystemTime) -> Vec<Finding> {
    let mut findings = vec![hardware_clock(system, now)];
    findings.extend(goes_back(log, now));
    findings.push(source(system));
    findings
}

fn hardware_clock(system: &SystemPaths, now: SystemTime) -> Finding {
    let check = "clock";
    let set = "set the time (`timedatectl set-time`), then `hwclock --systohc --utc`";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds < EARLIEST {
        return Finding::fail(
            check,
            "it says a time before 2025: the audit log's times would be false",
            format!(
                "{set}; if it is wrong again after the PC was without power, change the board's battery"
            ),
        );
    }
    let Some(hardware) =
        system.sys_text("class/rtc/rtc0/since_epoch").and_then(|text| text.parse::<u64>().ok())
    else {
        return Finding::warn(
            check,
            "not looked at: this PC shows no hardware clock (/sys/class/rtc/rtc0)",
            "load its driver (`modprobe rtc-cmos`): without one the time is wrong after each start, as the host has no network to ask for it",
        );
    };
    let off = hardware.abs_diff(seconds);
    // Nearest multiple of a quarter of an hour.
    let from_zone = (off % ZONE_STEP).min(ZONE_STEP - off % ZONE_STEP);
    match off {
        ..=AGREES => Finding::ok(check, "the hardware clock says the same, in UTC"),
        _ if (ZONE_STEP - AGREES..=ZONE_MAX + AGREES).contains(&off) && from_zone <= AGREES => {
            Finding::warn(
                check,
                format!(
                    "the hardware clock is {} min off: it keeps local time",
                    (off + AGREES) / 60
                ),
                "`timedatectl set-local-rtc 0`, so that no change to or from summer time moves the audit log's times",
            )
        }
        _ => Finding::warn(check, format!("the hardware clock is {off} s off"), set),
    }
}

/// Returns a finding if files of the log were written later than now.
fn goes_back(log: &Path, now: SystemTime) -> Option<Finding> {
    let files = fs::read_dir(log).ok()?.flatten();
    let newest = files.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()?;
    let ahead = newest.duration_since(now).ok().filter(|ahead| *ahead > AHEAD)?;
    Some(Finding::warn(
        "clock",
        format!("the audit log was written {} s from now: the clock was set back", ahead.as_secs()),
        "see that it is right now, and when and why it was not: `bulkhead audit show` has the entries around",
    ))
}

fn source(system: &SystemPaths) -> Finding {
    let check = "clock-source";
    let file = "devices/system/clocksource/clocksource0/current_clocksource";
    match system.sys_text(file) {
        None => Finding::warn(
            check,
            "not looked at: the kernel does not name its clock source",
            format!("see why /sys/{file} cannot be read"),
        ),
        Some(source) if FAST_SOURCES.contains(&source.as_str()) => {
            Finding::ok(check, format!("{source}, which guests read without a detour"))
        }
        Some(source) => Finding::warn(
            check,
            format!(
                "the kernel reads {source} as it does not trust the processor's counter (TSC); each look at the clock costs guests time"
            ),
            "`dmesg | grep -i tsc` says why; a newer BIOS often mends it",
        ),
    }
}
