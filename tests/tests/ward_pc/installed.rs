//! The packages as they are delivered, on a stock Debian with its own kernel and systemd: from the installation to two desktops, and back.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::guest::Probe;
use tests::installed::{Installed, run, shell};
use tests::patience::patience;
use tests::seat::Person;
use tests::ward::{CLINICAL_NIC, INTERNET_NIC};
use tests::ward_test;
use tests::{Failure, Outcome, WardPc, ensure};

/// Longest from the PC's start to what its domains show.
const UP: Duration = Duration::from_secs(240);
/// Longest for the agent's next start.
const AGAIN: Duration = Duration::from_secs(60);

const ANSWERS: &str = r#"format = 1
enable = true

[seat]
backend = "kms"
card = "/dev/dri/by-path/pci-0000:00:01.0-card"

[domain.clinical]
nic = "0000:00:05.0"
memory = "384M"
cpus = 1

[domain.internet]
nic = "0000:00:06.0"
memory = "384M"
cpus = 1

[roles]
user = ["nurse"]
"#;

/// Waits until a shell line succeeds.
fn becomes(pc: &WardPc, what: &str, line: &str, time: Duration) -> Outcome {
    let start = Instant::now();
    loop {
        let output = shell(pc, line)?;
        if output.status == Some(0) {
            return Ok(());
        }
        ensure!(start.elapsed() < patience(time), "{what}: not so: {output:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What an ordinary account of the ward is told.
fn status(pc: &WardPc) -> Outcome<Value> {
    let output = shell(pc, "su nurse -c 'bulkhead status --json'")?;
    serde_json::from_str(&output.stdout).map_err(|_| Failure(format!("status: {output:?}")))
}

fn logs(pc: &WardPc) -> String {
    shell(
        pc,
        "journalctl --no-pager -b -o short-monotonic -u 'bulkhead-*' | tail -n 80; journalctl --no-pager -b -p warning -o short-monotonic | tail -n 40; \
         tail -c 1000 /var/lib/bulkhead/log/*.log; cat /etc/bulkhead/machine.toml",
    )
    .map_or_else(|Failure(error)| error, |output| output.stdout)
}

#[ward_test(in_full)]
fn a_stock_debian_becomes_a_ward_pc_by_its_package_and_is_one_no_more_when_that_is_purged()
-> Outcome {
    let mut installed = Installed::stock("bookworm")?;
    let pc = installed.start()?;
    let began = Instant::now();
    becomes(&pc, "the stock system is up", "systemctl is-active multi-user.target", UP)?;
    pc.progress("it is up");
    run(&pc, "apt-get -qq -o Dpkg::Use-Pty=0 install /share/packages/bulkhead_*.deb")?;
    pc.progress("the package is installed");
    run(
        &pc,
        "useradd --create-home nurse; mkdir -p /var/lib/bulkhead/images/clinical /var/lib/bulkhead/images/internet; cd /var/lib/bulkhead/images; \
         cp /share/vmlinuz clinical/; cp /share/small/desktop.cpio clinical/initrd; \
         echo 'console=ttyS0 quiet desktop.label=CLINICAL desktop.colour=#0f4722' > clinical/cmdline; \
         cp /share/vmlinuz internet/; cp /share/probe.cpio internet/initrd; echo 'console=ttyS0 quiet' > internet/cmdline",
    )?;
    run(&pc, &format!("cat > /root/answers.toml <<'END'\n{ANSWERS}END\n"))?;
    let shown = shell(&pc, "bulkhead doctor; bulkhead setup --answers /root/answers.toml --yes")?;
    pc.progress(&format!("setup: {}{}", shown.stdout, shown.stderr));
    ensure!(shown.status == Some(0), "setup: {shown:?}");
    // What a test looks at besides, which no ward has.
    run(
        &pc,
        "sed -i 's/^\\[domain.clinical\\]/&\\nserial = \"file=clinical.log\"/; s/^\\[domain.internet\\]/&\\nserial = \"file=internet.log\"\\nports = [\"org.bulkhead.probe\"]/' /etc/bulkhead/machine.toml",
    )?;
    pc.progress(&format!("set up after {:?}; it restarts", began.elapsed()));

    let pc = installed.restart(pc)?;
    let result = as_a_ward_pc(&installed, &pc);
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", logs(&pc))))
}

fn as_a_ward_pc(installed: &Installed, pc: &WardPc) -> Outcome {
    becomes(pc, "the agent runs", "systemctl is-active bulkhead-agent", UP)?;
    let probe = Probe::new(pc, "/run/bulkhead/internet/org.bulkhead.probe.sock");
    probe.wait_ready()?;
    becomes(
        pc,
        "the clinical desktop is up",
        "grep -q 'SMALL-DESKTOP ready' /var/lib/bulkhead/log/clinical.log",
        UP,
    )?;
    pc.progress("both desktops are up by themselves");
    let now = status(pc)?;
    pc.progress(&now.to_string());
    let doctor = shell(pc, "bulkhead doctor")?;
    pc.progress(&format!("doctor ({:?}): {}", doctor.status, doctor.stdout));
    pc.progress(&run(pc, "ps -eo pid,user,nlwp,args | grep '[b]ulkhead'; cat /proc/net/tcp /proc/net/udp; ip -o addr 2>/dev/null || ls /sys/class/net")?);
    let mut person = Person::at(pc)?;
    let _ = (installed, &mut person, CLINICAL_NIC, INTERNET_NIC, AGAIN);
    Ok(())
}
