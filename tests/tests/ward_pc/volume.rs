//! State and images on an encrypted volume, on a stock Debian: opened by the PC's TPM, or by the recovery key that somebody types, or not at all.

use std::time::Duration;

use tests::installed::{Installed, UP, becomes, run, shell};
use tests::ward_test;
use tests::{Failure, Outcome, WardPc, ensure};

/// Longest until systemd has given a TPM that is not there up (30 s), and asks.
const ASKS: Duration = Duration::from_secs(120);
/// Longer than systemd waits for a device of its own accord (`DefaultTimeoutStartSec=`, 90 s).
const TYPED_LATE: Duration = Duration::from_secs(100);
/// Domains that others run: it is the state that this is about.
const ANSWERS: &str = r#"format = 1
enable = true
[seat]
backend = "none"
[domain.clinical]
vmm = "external"
[domain.internet]
vmm = "external"
[roles]
"#;
const VOLUME: &str = r#"
[encrypted_state]
volume = "/dev/disk/by-id/virtio-state"
recovery_key_file = "/root/recovery-key"
"#;
const STATE: &str = "/var/lib/bulkhead";
/// How many entries the audit log has.
const ENTRIES: &str = "cat /var/lib/bulkhead/audit/*.jsonl | wc -l";
/// The agent runs; the state is the volume's.
const UP_LINE: &str = "systemctl is-active bulkhead-agent";
const MOUNTED: &str = "findmnt -no SOURCE /var/lib/bulkhead | grep -x /dev/mapper/bulkhead_state";
/// Types the recovery key where systemd asks for it.
const TYPE: &str = r#"socket=$(sed -n 's/^Socket=//p' /run/systemd/ask-password/ask.* | head -n 1); head -c 71 /root/recovery-key | /usr/lib/systemd/systemd-reply-password 1 "$socket""#;

fn logs(pc: &WardPc) -> String {
    let line = "journalctl --no-pager -b -o short-monotonic -u 'bulkhead-*' -u 'systemd-cryptsetup*' -u 'var-lib*' | tail -n 60; systemctl list-jobs; cat /etc/crypttab; findmnt; lsblk";
    shell(pc, line).map_or_else(|Failure(error)| error, |output| output.stdout)
}

fn entries(pc: &WardPc) -> Outcome<u64> {
    Ok(run(pc, ENTRIES)?.trim().parse().map_err(|e| format!("entries: {e}"))?)
}

/// Has each later start of the PC have another PCR 7 by the time its volume is opened, as if Secure Boot were another: TPM2_PCR_Extend (TPM 2.0 Library, Part 3) with
/// an empty password.
const OTHER_PCR: &str = r#"cat > /usr/local/sbin/other-pcr <<'END'
#!/usr/bin/perl
use strict; use warnings;
my $tpm;
for (1 .. 300) { last if open($tpm, '+<:raw', '/dev/tpmrm0'); select(undef, undef, undef, 0.1); }
die "no TPM
" unless $tpm;
my $command = pack('H*', '80020000004100000182' . '00000007' . '00000009' . '400000090000000000' . '00000001' . '000b' . '5a' x 32);
syswrite($tpm, $command) == length($command) or die "not written: $!
";
sysread($tpm, my $answer, 4096);
die 'TPM: ' . unpack('H*', $answer) . "
" unless unpack('x6 N', $answer) == 0;
END
chmod 755 /usr/local/sbin/other-pcr
cat > /etc/systemd/system/other-pcr.service <<'END'
[Unit]
DefaultDependencies=no
Wants=cryptsetup-pre.target
Before=cryptsetup-pre.target systemd-cryptsetup@bulkhead_state.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/other-pcr
[Install]
WantedBy=sysinit.target
END
systemctl enable other-pcr.service"#;

#[ward_test(shows = ["K-3.3.1"], in_full)]
fn a_stock_debian_keeps_its_state_on_a_volume_that_its_tpm_opens_and_asks_without_it() -> Outcome {
    keeps_its_state_on_a_volume("bookworm")
}

#[ward_test(shows = ["K-3.3.1"], in_full)]
fn a_stock_debian_13_keeps_its_state_on_a_volume_that_its_tpm_opens_and_asks_without_it() -> Outcome
{
    keeps_its_state_on_a_volume("trixie")
}

/// What the doctor says of the disk's encryption.
fn encryption(pc: &WardPc) -> Outcome<String> {
    let doctor = shell(pc, "bulkhead doctor")?.stdout;
    let lines = doctor.lines().skip_while(|line| !line.contains("encryption:"));
    // With what it means and what to do, up to the next finding.
    let said: Vec<&str> = lines.take(3).collect();
    ensure!(!said.is_empty(), "doctor: {doctor}");
    Ok(said.join("\n"))
}

/// Waits until the agent is up, with the state.
fn is_up(pc: &WardPc) -> Outcome {
    becomes(pc, "the agent is up", UP_LINE, UP)
        .map_err(|Failure(e)| Failure(format!("{e}\n{}", logs(pc))))?;
    run(pc, &format!("{MOUNTED} && bulkhead audit verify")).map(drop)
}

/// Waits until systemd asks for the key; there is no agent meanwhile, and no log.
fn asks(pc: &WardPc) -> Outcome {
    becomes(pc, "systemd asks", "ls /run/systemd/ask-password/ask.*", ASKS)
        .map_err(|Failure(e)| Failure(format!("{e}\n{}", logs(pc))))?;
    let agent = shell(pc, UP_LINE)?;
    let log = shell(pc, "ls /var/lib/bulkhead/audit")?;
    ensure!(
        agent.status != Some(0) && log.status != Some(0),
        "an agent without its log: {agent:?} {log:?}"
    );
    Ok(())
}

fn keeps_its_state_on_a_volume(suite: &str) -> Outcome {
    if !Installed::can_be_made() {
        return Ok(());
    }
    let mut installed = Installed::with_second_disk(suite)?;
    let pc = installed.start()?;
    becomes(&pc, "the stock system is up", "systemctl is-active multi-user.target", UP)?;
    run(
        &pc,
        "update-grub 2>/dev/null; apt-get -qq -o Dpkg::Use-Pty=0 install /share/packages/bulkhead_*.deb",
    )?;
    run(&pc, &format!("cat > /root/answers.toml <<'END'\n{ANSWERS}END"))?;
    run(
        &pc,
        "bulkhead setup --answers /root/answers.toml --yes && systemctl start bulkhead-agent",
    )?;
    becomes(&pc, "the log has begun", "ls /var/lib/bulkhead/audit/*.jsonl", UP)?;
    run(&pc, &format!("cat >> /root/answers.toml <<'END'\n{VOLUME}END"))?;
    let early = shell(&pc, "bulkhead setup --answers /root/answers.toml --yes")?;
    ensure!(
        early.status == Some(1) && early.stderr.contains("systemctl stop bulkhead-agent"),
        "a state that an agent writes is moved: {early:?}"
    );
    run(&pc, "systemctl stop bulkhead-agent")?;
    let before = entries(&pc)?;
    let dry = run(&pc, "bulkhead setup --answers /root/answers.toml --dry-run")?;
    ensure!(dry.contains("TPM (PCR 7)"), "{dry}");
    let made = shell(&pc, "bulkhead setup --answers /root/answers.toml --yes")?;
    ensure!(made.status == Some(0), "{made:?}\n{}", logs(&pc));
    pc.progress("the state is on the volume");
    run(&pc, MOUNTED)?;
    let former = run(&pc, "mount --bind /var/lib /mnt && ls -A /mnt/bulkhead; umount /mnt")?;
    ensure!(former.is_empty(), "former copies are left: {former}");
    run(
        &pc,
        "[ $(stat -c %a /root/recovery-key) = 600 ] && ! grep -rqf /root/recovery-key /var/log /var/lib/bulkhead /etc /run/log && ! journalctl | grep -qf /root/recovery-key",
    )?;
    let slots = run(&pc, "systemd-cryptenroll /dev/disk/by-id/virtio-state")?;
    ensure!(
        slots.contains("tpm2") && slots.contains("recovery") && !slots.contains("password"),
        "{slots}"
    );
    let again = run(&pc, "bulkhead setup --answers /root/answers.toml --yes")?;
    ensure!(again.contains("nothing to change"), "{again}");

    let pc = installed.restart(pc)?;
    is_up(&pc)?;
    let with_tpm = entries(&pc)?;
    ensure!(with_tpm > before, "the log began anew: {before} entries, then {with_tpm}");
    let said = encryption(&pc)?;
    ensure!(
        said.starts_with("ok") && said.contains("TPM (PCR 7)") && said.contains("recovery key"),
        "doctor: {said}"
    );
    let said = shell(&pc, "bulkhead doctor")?.stdout;
    ensure!(said.contains("ok    tpm: a TPM 2.0, which answers"), "doctor: {said}");

    pc.progress("PCR 7 is another from the next start on, as if Secure Boot were");
    run(&pc, OTHER_PCR)?;
    let pc = installed.restart(pc)?;
    asks(&pc)?;
    run(&pc, "systemctl is-active other-pcr")?;
    let said = encryption(&pc)?;
    ensure!(
        said.starts_with("FAIL") && said.contains("the TPM keeps its key, as PCR 7 is not what"),
        "doctor does not say why: {said}"
    );
    run(&pc, TYPE)?;
    is_up(&pc)?;
    let said = encryption(&pc)?;
    ensure!(
        said.starts_with("warn") && said.contains("at the next start somebody types a key"),
        "doctor does not say what comes: {said}"
    );
    // What it says is to be done.
    run(
        &pc,
        "PASSWORD=$(head -c 71 /root/recovery-key) systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs=7 /dev/disk/by-id/virtio-state",
    )?;
    let said = encryption(&pc)?;
    ensure!(said.starts_with("ok"), "doctor: {said}");
    let pc = installed.restart(pc)?;
    is_up(&pc)?;
    let with_other = entries(&pc)?;
    ensure!(with_other > with_tpm, "the log began anew: {with_tpm} entries, then {with_other}");

    pc.progress("the TPM is gone");
    installed.has_tpm = false;
    run(&pc, "systemctl disable other-pcr.service")?;
    let pc = installed.restart(pc)?;
    asks(&pc)?;
    let said = encryption(&pc)?;
    ensure!(
        said.starts_with("FAIL") && said.contains("TPM 2.0 that opens it is not seen"),
        "doctor: {said}"
    );
    std::thread::sleep(TYPED_LATE);
    run(&pc, TYPE)?;
    is_up(&pc)?;
    ensure!(entries(&pc)? > with_other, "the log began anew");

    installed.has_tpm = true;
    run(&pc, "systemctl stop bulkhead-agent")?;
    let last = entries(&pc)?;
    let undone = shell(&pc, "bulkhead setup --undo --yes")?;
    ensure!(undone.status == Some(0), "{undone:?}\n{}", logs(&pc));
    let pc = installed.restart(pc)?;
    becomes(&pc, "the PC is up", "systemctl is-active multi-user.target", UP)?;
    run(
        &pc,
        &format!(
            "! findmnt {STATE} && ! grep bulkhead_state /etc/crypttab && bulkhead audit verify"
        ),
    )?;
    ensure!(entries(&pc)? == last, "the log came back as another");
    run(&pc, "cryptsetup isLuks /dev/disk/by-id/virtio-state")?;
    Ok(())
}
