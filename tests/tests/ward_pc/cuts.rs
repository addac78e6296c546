//! Power cuts of an installed ward PC: whatever was under way, the next start finds the old or the new, whole.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::guest::Probe;
use tests::installed::{Installed, UP, becomes, run, shell};
use tests::patience::patience;
use tests::ward_test;
use tests::{Failure, Outcome, WardPc, ensure};

use super::installed::logs;
use super::updates::{self, office};

/// How often the power is cut while something is installed.
const CUTS: usize = 10;
/// And while people work.
const CUTS_AT_WORK: usize = 20;
/// How often each thing is done that a cut must not undo.
const ROUNDS: u64 = 8;
/// Longest that an interrupted update takes at the next start: it waits for the agent, which has to stay up.
const GOES_ON: Duration = Duration::from_secs(300);

/// A guest's image, signed; big enough that its installation takes a while.
const IMAGE: &str = r#"
head -c 40000000 /dev/urandom > /home/office/root.img
cat /share/probe.cpio > initrd
bulkhead images pack probe-7.bundle --name probe --serial 7 --kernel /share/vmlinuz --initrd initrd --cmdline "console=ttyS0 quiet" --disk root.img --key kim
"#;

#[ward_test(shows = ["C-10", "K-5.2.1"], in_full)]
fn an_update_and_an_image_that_a_power_cut_interrupts_are_old_or_new_and_whole() -> Outcome {
    if !Installed::can_be_made() {
        return Ok(());
    }
    let mut installed = Installed::stock("bookworm")?;
    let pc = installed.set_up()?;
    run(&pc, "rm -rf /tmp/newer; dpkg-deb -R /share/packages/bulkhead_*.deb /tmp/newer")?;
    run(&pc, updates::OFFICE)?;
    office(
        &pc,
        "package 1; apt-get -qq -o Dpkg::Use-Pty=0 install ./1.deb; bundle 1 1; package 2; bundle 2 1",
    )?;
    run(&pc, "bulkhead program install /home/office/1.bundle")?;
    office(&pc, IMAGE)?;
    let (pc, recording) = installed.restart_recorded(pc)?;
    both_run(&pc)?;
    let began = recording.count()?;
    let started = Instant::now();
    run(
        &pc,
        "cd /home/office; bulkhead images install probe-7.bundle > /tmp/image.log 2>&1 & image=$!; \
        bulkhead program install /home/office/2.bundle && wait $image && bulkhead images verify probe && sync",
    )?;
    pc.progress(&format!("an update and an image are installed after {:?}", started.elapsed()));
    ensure!(updates::installed(&pc)? == "2", "the update did not come");
    let ended = recording.count()?;
    drop(pc);
    let (mut old, mut with_image) = (0, 0);
    for (count, behind) in recording.moments(began..ended, CUTS)?.into_iter().enumerate() {
        let pc = installed.start_after_cut(&recording, behind)?;
        let found = is_whole(&pc).map_err(|Failure(error)| {
            Failure(format!(
                "cut {count} (request {behind} of {began} to {ended}): {error}\n{}",
                logs(&pc)
            ))
        })?;
        pc.progress(&format!("cut {count} (request {behind} of {began} to {ended}): {found:?}"));
        old += usize::from(found.version == "1");
        with_image += usize::from(found.had_image);
    }
    // Else nothing was interrupted.
    ensure!(old > 0 && old < CUTS, "of {CUTS} starts {old} had the old version");
    ensure!(with_image > 0 && with_image < CUTS, "of {CUTS} starts {with_image} had the image");
    Ok(())
}

/// What a start after a power cut has.
#[derive(Debug)]
struct Found {
    version: String,
    had_image: bool,
}

fn is_whole(pc: &WardPc) -> Outcome<Found> {
    both_run(pc)?;
    let pending = "bulkhead program status --json | grep -q '\"pending\": *null'";
    becomes(pc, "what was interrupted is gone on with", pending, GOES_ON)?;
    let changed = run(pc, "dpkg --audit; dpkg --verify bulkhead")?;
    ensure!(changed.is_empty(), "the package is not whole: {changed}");
    let version = updates::installed(pc)?;
    let status = updates::status(pc)?;
    let in_force = status["in_force"]["version"].as_str().unwrap_or_default().to_owned();
    ensure!(
        in_force.ends_with(&format!("+{version}")),
        "{version} is installed, and the record says: {status}"
    );
    both_run(pc)?;
    run(pc, "bulkhead audit verify")?;
    let listed = run(pc, "bulkhead images list --json")?;
    // It is printed with blanks for people's eyes.
    let had_image = listed.split_whitespace().collect::<String>().contains("\"serial\":7,");
    if had_image {
        run(pc, "bulkhead images verify probe")?;
    } else {
        // It is taken up where it was.
        run(
            pc,
            "bulkhead images install /home/office/probe-7.bundle && bulkhead images verify probe",
        )?;
    }
    let failed = run(pc, "systemctl --failed --no-legend --plain")?;
    ensure!(failed.is_empty(), "units failed: {failed}");
    Ok(Found { version, had_image })
}

/// Waits until the agent answers and both domains run.
fn both_run(pc: &WardPc) -> Outcome {
    becomes(pc, "the agent runs", "systemctl is-active bulkhead-agent", UP)?;
    let started = Instant::now();
    loop {
        let said = shell(pc, "bulkhead status --json")?;
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let domains = status["domains"].as_array().map(Vec::as_slice).unwrap_or_default();
        if domains.len() == 2 && domains.iter().all(|domain| domain["state"] == "running") {
            return Ok(());
        }
        ensure!(started.elapsed() < patience(UP), "not both domains run: {said:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Both guests are probes with a disk; the policy has the clinical one keep what it writes, and the Internet one begin anew.
const WITH_DISKS: &str = r#"cd /var/lib/bulkhead/images
truncate -s 4M clinical/disk.img internet/disk.img
cp internet/initrd internet/cmdline clinical/
for domain in clinical internet; do
    sed -i "s|^\[domain.$domain\]|&\nports = [\"org.bulkhead.probe\"]\nserial = \"file=$domain.log\"\ndisks = [{ path = \"$domain/disk.img\" }]|" /etc/bulkhead/machine.toml
done
sed -i 's|^cmdline = "console=ttyS0 quiet.*|cmdline = "console=ttyS0 quiet"|' /etc/bulkhead/machine.toml"#;

/// What had been answered to whoever asked for it, and so must be there after any later cut.
#[derive(Debug)]
struct Done {
    /// So many requests to the disk there were by then.
    by: usize,
    /// The round whose number the clinical guest stored.
    stored: u64,
    /// The policy that was put in force.
    policy: u64,
    /// The entry of the audit log that says so.
    entry: u64,
}

fn guest<'a>(pc: &'a WardPc, domain: &str) -> Probe<'a> {
    Probe::new(pc, &format!("/run/bulkhead/{domain}/org.bulkhead.probe.sock"))
}

/// Runs a line in a guest's shell; what it wrote.
fn in_guest(pc: &WardPc, domain: &str, line: &str) -> Outcome<String> {
    let answer =
        guest(pc, domain).ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))?;
    Ok(answer["output"].as_str().unwrap_or_default().to_owned())
}

/// The number behind a word at the beginning of a guest's disk; 0 if there is none.
fn number_on_disk(pc: &WardPc, domain: &str) -> Outcome<u64> {
    let first = in_guest(pc, domain, "head -c 16 /dev/vda")?;
    Ok(first.strip_prefix("ROUND-").and_then(|rest| rest.get(..4)?.parse().ok()).unwrap_or(0))
}

/// The newest entry of the audit log, which has to hold.
fn newest_entry(pc: &WardPc) -> Outcome<u64> {
    run(pc, "bulkhead audit verify")?;
    let last = run(pc, "bulkhead audit show --json | tail -n 1")?;
    let entry: Value = serde_json::from_str(&last)?;
    entry["seq"].as_u64().ok_or_else(|| Failure(format!("an entry without a number: {last}")))
}

fn policy_in_force(pc: &WardPc) -> Outcome<u64> {
    let status: Value = serde_json::from_str(&run(pc, "bulkhead status --json")?)?;
    Ok(status["policy"]["serial"].as_u64().unwrap_or(0))
}

#[ward_test(shows = ["C-10", "K-5.2.3", "K-5.4.3"], in_full)]
fn a_power_cut_at_work_loses_nothing_that_was_answered_and_keeps_nothing_that_was_to_be_discarded()
-> Outcome {
    if !Installed::can_be_made() {
        return Ok(());
    }
    let mut installed = Installed::stock("bookworm")?;
    let pc = installed.set_up()?;
    run(&pc, WITH_DISKS)?;
    let (pc, recording) = installed.restart_recorded(pc)?;
    both_are_up(&pc).map_err(|Failure(error)| Failure(format!("{error}\n{}", logs(&pc))))?;
    let mut done = vec![Done {
        by: recording.count()?,
        stored: 0,
        policy: policy_in_force(&pc)?,
        entry: newest_entry(&pc)?,
    }];
    for round in 1..=ROUNDS {
        // `sync` alone asks no disk to keep what it has been told to write: that is done for what is synchronised by itself.
        let write = format!("printf 'ROUND-%04d' {round} | dd of=/dev/vda conv=fsync 2>&1");
        for domain in ["clinical", "internet"] {
            in_guest(&pc, domain, &write)?;
            ensure!(number_on_disk(&pc, domain)? == round, "{domain} does not store round {round}");
        }
        let policy = round + 1;
        run(
            &pc,
            &format!(
                "sed -i 's/^serial = .*/serial = {policy}/' /home/policy.toml 2>/dev/null || sed 's/^serial = .*/serial = {policy}/' /etc/bulkhead/policy.toml > /home/policy.toml; \
                bulkhead policy apply /home/policy.toml && bulkhead switch internet && bulkhead switch clinical"
            ),
        )?;
        let entry = newest_entry(&pc)?;
        done.push(Done { by: recording.count()?, stored: round, policy, entry });
    }
    let (began, ended) =
        (done.first().map_or(0, |done| done.by), done.last().map_or(0, |done| done.by));
    drop(pc);
    let moments = recording.moments(began..ended, CUTS_AT_WORK)?;
    for (count, behind) in moments.into_iter().enumerate() {
        let pc = installed.start_after_cut(&recording, behind)?;
        let before = done.iter().rev().find(|done| done.by <= behind + 1);
        let Some(before) = before else { return Err("a cut before anything".into()) };
        let found = holds(&pc, before).map_err(|Failure(error)| {
            let place = format!("cut {count}, request {behind} of {began} to {ended}");
            Failure(format!("{place}, behind {before:?}: {error}\n{}", logs(&pc)))
        })?;
        pc.progress(&format!("cut {count} of {CUTS_AT_WORK}, behind {before:?}: {found}"));
    }
    Ok(())
}

fn both_are_up(pc: &WardPc) -> Outcome {
    both_run(pc)?;
    guest(pc, "clinical").wait_ready()?;
    guest(pc, "internet").wait_ready()
}

/// Checks a start after a cut against what had been done by then.
fn holds(pc: &WardPc, before: &Done) -> Outcome<String> {
    both_are_up(pc)?;
    let stored = number_on_disk(pc, "clinical")?;
    ensure!(
        stored == before.stored || stored == before.stored + 1,
        "the clinical disk has round {stored}"
    );
    let discarded = number_on_disk(pc, "internet")?;
    ensure!(discarded == 0, "the Internet desktop kept round {discarded}");
    let policy = policy_in_force(pc)?;
    ensure!(policy == before.policy || policy == before.policy + 1, "policy {policy} is in force");
    let entry = newest_entry(pc)?;
    ensure!(entry >= before.entry, "the audit log ends with entry {entry}");
    let failed = run(pc, "systemctl --failed --no-legend --plain")?;
    ensure!(failed.is_empty(), "units failed: {failed}");
    Ok(format!("round {stored}, policy {policy}, {entry} entries"))
}
