//! The package as it is delivered, on a stock Debian with its own kernel, initramfs, boot loader's configuration and systemd: from the installation to two
//! desktops, and back.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::confinement::CONFINED;
use tests::guest::Probe;
use tests::installed::{ANSWERS, IMAGES, Installed, UP, becomes, run, shell};
use tests::patience::patience;
use tests::seat::{Colour, Person};
use tests::usb_device::{plug_stick, pull_stick};
use tests::ward_test;
use tests::{Failure, Outcome, WardPc, ensure};

use super::seat::{SOON, in_front};
use super::{hardening, seat_gap, updates};

/// Longest until systemd has started the agent once more, and the agent has taken up its guests.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest that the doctor takes: three seconds on a ward PC. This one is emulated, and many times slower.
const EXAMINED: Duration = Duration::from_secs(10);
/// The colours of the policy that the package brings.
const CLINICAL: Colour = 0x1f_4e_9c;
const INTERNET: Colour = 0xb3_26_1e;
/// The Internet guest's address, and the servers of both networks.
const ADDRESS: &str = "10.2.0.2/24";
const INTERNET_SERVER: &str = "10.2.0.1";
const CLINICAL_SERVER: &str = "10.1.0.1";

/// What the security office adds to the policy that the package brings.
const RULES: &str = r#"
[[usb]]
id = "sticks-of-the-ward"
match = { class = "mass-storage", serial = "WARD1" }
to = "internet"
action = "read-only"
"#;

/// What IT writes into the machine file itself: a core for the clinical domain; and what a test looks at, which no ward has.
const BY_HAND: &str = r#"sed -i 's/^\[domain.clinical\]/&\ncores = 1\nserial = "file=clinical.log"/; s/^\[domain.internet\]/&\nserial = "file=internet.log"\nports = ["org.bulkhead.probe"]/' /etc/bulkhead/machine.toml"#;

/// Every file of the system with its kind, mode, owner, size and target, but what changes by itself and what records that there was a package.
const PICTURE: &str = r#"find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /share -o -path /root -o -path /home \
    -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log -o -path /var/tmp -o -path /var/lib/systemd -o -path /var/mail \
    -o -name '*passwd*' -o -name '*shadow*' -o -name 'group-' -o -name 'subuid*' -o -name 'subgid*' -o -path /etc/ld.so.cache -o -path /etc/.pwd.lock -o -path /boot/grub/grubenv \) -prune \
    -o -type d -printf '%p %M %U:%G\n' -o -printf '%p %M %U:%G %s %l\n' | sort; cat /etc/group /boot/grub/grub.cfg"#;

/// What an ordinary account of the ward is told.
fn status(pc: &WardPc) -> Outcome<Value> {
    let output = shell(pc, "su nurse -c 'bulkhead status --json'")?;
    serde_json::from_str(&output.stdout).map_err(|_| Failure(format!("status: {output:?}")))
}

/// The VMMs of both domains.
fn vmms(pc: &WardPc) -> Outcome<[u64; 2]> {
    let status = status(pc)?;
    Ok([0, 1].map(|place| status["domains"][place]["pid"].as_u64().unwrap_or(0)))
}

fn probe(pc: &WardPc) -> Probe<'_> {
    Probe::new(pc, "/run/bulkhead/internet/org.bulkhead.probe.sock")
}

pub(super) fn logs(pc: &WardPc) -> String {
    let line = "journalctl --no-pager -b -o short-monotonic -u 'bulkhead-*' | tail -n 80; \
        journalctl --no-pager -b -p warning -o short-monotonic | tail -n 40; tail -c 1000 /var/lib/bulkhead/log/*.log; cat /etc/bulkhead/machine.toml";
    shell(pc, line).map_or_else(|Failure(error)| error, |output| output.stdout)
}

#[ward_test(shows = ["I-1", "I-5", "K-1.3.3", "K-5.1.1", "K-5.1.2", "K-5.2.4"])]
fn a_stock_debian_12_becomes_a_ward_pc_by_its_package_and_is_one_no_more_when_that_is_purged()
-> Outcome {
    becomes_a_ward_pc("bookworm")
}

#[ward_test(shows = ["I-1", "I-5", "K-1.3.3", "K-5.1.1", "K-5.1.2", "K-5.2.4"], in_full)]
fn a_stock_debian_13_becomes_a_ward_pc_by_its_package_and_is_one_no_more_when_that_is_purged()
-> Outcome {
    becomes_a_ward_pc("trixie")
}

fn becomes_a_ward_pc(suite: &str) -> Outcome {
    if !Installed::can_be_made() {
        return Ok(());
    }
    let mut installed = Installed::stock(suite)?;
    let pc = installed.start_stock()?;
    run(&pc, &format!("({PICTURE}) > /home/before"))?;
    let began = Instant::now();
    run(&pc, "apt-get -qq -o Dpkg::Use-Pty=0 install /share/packages/bulkhead_*.deb")?;
    pc.progress(&format!("the package is installed after {:?}", began.elapsed()));
    let doctor = shell(
        &pc,
        "/bin/busybox nc -l -p 2222 >/dev/null 2>&1 & sleep 1; bulkhead doctor; status=$?; kill %1 2>/dev/null || kill $!; exit $status",
    )?;
    ensure!(
        doctor.stdout.contains("TCP port 2222 (busybox)"),
        "doctor sees nobody listen: {doctor:?}"
    );
    let without = doctor.stdout.lines().find(|line| line.starts_with("FAIL  iommu:"));
    ensure!(
        doctor.status == Some(1) && without.is_some(),
        "doctor sees no missing IOMMU: {doctor:?}"
    );
    run(&pc, IMAGES)?;
    run(
        &pc,
        &format!(
            "cat >> /etc/bulkhead/policy.toml <<'END'\n{RULES}END\nbulkhead policy check /etc/bulkhead/policy.toml"
        ),
    )?;
    run(&pc, &format!("cat > /home/answers.toml <<'END'\n{ANSWERS}END\n"))?;
    let said = run(&pc, "bulkhead setup --answers /home/answers.toml --yes 2>&1")?;
    pc.progress(&format!("it is set up after {:?}:\n{said}", began.elapsed()));
    let again = run(&pc, "bulkhead setup --answers /home/answers.toml --yes 2>&1")?;
    ensure!(again.contains("nothing"), "set up again it changes something: {again}");
    run(&pc, BY_HAND)?;
    let pc = installed.restart(pc)?;
    let with_logs = |outcome: Outcome| {
        outcome.map_err(|Failure(error)| Failure(format!("{error}\n{}", logs(&pc))))
    };
    with_logs(both_desktops_come_up(&pc))?;
    with_logs(nobody_gets_in_and_no_vmm_out(&pc))?;
    with_logs(hardening::is_in_force(&pc))?;
    with_logs(each_role_may_what_it_may(&pc))?;
    with_logs(nobody_puts_it_to_sleep(&pc))?;
    with_logs(the_seat_switches(&pc))?;
    with_logs(a_stick_goes_to_its_domain(&pc))?;
    with_logs(guests_run_on(&pc))?;
    with_logs(is_updated(&pc))?;
    with_logs(is_taken_back(&pc))
}

/// By themselves, after the restart; nothing that the package brings complains.
fn both_desktops_come_up(pc: &WardPc) -> Outcome {
    becomes(pc, "the agent runs", "systemctl is-active bulkhead-agent", UP)?;
    probe(pc).wait_ready()?;
    let ready = "grep -q 'SMALL-DESKTOP ready' /var/lib/bulkhead/log/clinical.log";
    becomes(pc, "the clinical desktop is up", ready, UP)?;
    pc.progress("both desktops are up by themselves");
    mends(pc)?;
    let began = Instant::now();
    let doctor = shell(pc, "bulkhead doctor")?;
    let took = began.elapsed();
    ensure!(doctor.status == Some(0), "doctor: {doctor:?}");
    ensure!(took < patience(EXAMINED), "doctor took {took:?}");
    pc.progress(&format!("doctor finds nothing after {took:?}"));
    ensure!(doctor.stdout.contains("ok    listening:"), "somebody listens: {}", doctor.stdout);
    for well in ["ok    disk-health:", "ok    leftovers:"] {
        ensure!(doctor.stdout.contains(well), "not {well} {}", doctor.stdout);
    }
    let errors = run(pc, "journalctl -q --no-pager -b -p err -u 'bulkhead-*'")?;
    ensure!(errors.is_empty(), "the journal has errors: {errors}");
    let whole = run(pc, "journalctl -q --no-pager -b -p err -o cat")?.to_lowercase();
    // What the simulated processor's KVM says of registers that a guest's kernel tries is not the installation's.
    let is_kvms =
        |line: &&str| line.contains("unhandled wrmsr") || line.contains("unhandled rdmsr");
    let others: Vec<&str> = whole.lines().filter(|line| !is_kvms(line)).collect();
    ensure!(others.is_empty(), "the journal of the whole boot has errors: {others:#?}");
    let now = status(pc)?;
    let domains = now["domains"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(domains.len() == 2, "{now}");
    for domain in domains {
        ensure!(domain["restarts"] == 0, "its first start failed: {domain}");
    }
    let failed = run(pc, "systemctl --failed --no-legend --plain")?;
    ensure!(failed.is_empty(), "units failed: {failed}");
    probe(pc).configure(ADDRESS)?;
    ensure!(probe(pc).reaches(INTERNET_SERVER)?, "the Internet guest has no network");
    ensure!(!probe(pc).reaches(CLINICAL_SERVER)?, "the Internet guest reaches the hospital");
    Ok(())
}

/// What somebody removed by mistake the doctor mends, for root alone, and says so.
fn mends(pc: &WardPc) -> Outcome {
    run(pc, "groupdel bulkhead-it")?;
    let asked = shell(pc, "runuser -u nobody -- bulkhead doctor --fix")?;
    ensure!(asked.status == Some(1) && asked.stderr.contains("run it as root"), "{asked:?}");
    let found = shell(pc, "bulkhead doctor")?;
    ensure!(found.stdout.contains("`bulkhead doctor --fix` mends 1 of these"), "{found:?}");
    let mended = shell(pc, "bulkhead doctor --fix")?;
    ensure!(
        mended.status == Some(0)
            && mended.stdout.starts_with("done  make the package's groups and accounts")
            && !mended.stdout.contains("--fix"),
        "{mended:?}"
    );
    run(pc, "getent group bulkhead-it").map(drop)
}

/// The host is in no network and listens nowhere; each VMM is nobody, nowhere, in its domain's cgroup and on its domain's cores.
fn nobody_gets_in_and_no_vmm_out(pc: &WardPc) -> Outcome {
    let interfaces = run(pc, "ls /sys/class/net")?;
    ensure!(interfaces.trim() == "lo", "the host has {interfaces}");
    let open = run(
        pc,
        "tail -q -n +2 /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 /proc/net/raw /proc/net/raw6 /proc/net/packet",
    )?;
    ensure!(open.is_empty(), "the host listens: {open}");
    for ((pid, domain), core) in vmms(pc)?.into_iter().zip(["clinical", "internet"]).zip(["1", "0"])
    {
        for status in
            run(pc, &format!("for t in /proc/{pid}/task/*; do cat $t/status; echo; done"))?
                .split("\n\n")
        {
            let core = format!("Cpus_allowed_list:\t{core}");
            for line in CONFINED.into_iter().chain([core.as_str()]) {
                ensure!(
                    status.trim().is_empty() || status.lines().any(|found| found == line),
                    "{line} is not in:\n{status}"
                );
            }
            ensure!(!status.contains("Uid:\t0"), "{domain}'s VMM is root:\n{status}");
        }
        let numbers = run(pc, &format!("grep NSpid: /proc/{pid}/status"))?;
        ensure!(
            numbers.trim() == format!("NSpid:\t{pid}\t1"),
            "{domain}'s VMM is in the host's PID namespace: {numbers}"
        );
        let group = run(pc, &format!("cat /proc/{pid}/cgroup"))?;
        ensure!(group.contains("bulkhead.slice/bulkhead-run-bulkhead"), "{group}");
        let entered = shell(pc, &format!("nsenter -t {pid} -m /bin/true"))?;
        ensure!(
            entered.status != Some(0),
            "the host's file system is in {domain}'s mount namespace"
        );
    }
    let exposure =
        run(pc, "systemd-analyze security --no-pager bulkhead-agent.service | tail -n 1")?;
    pc.progress(&format!("the host listens nowhere; the VMMs are closed in; {}", exposure.trim()));
    Ok(())
}

/// By accounts of the host in the package's groups: one thing that each may, and one that it may not.
fn each_role_may_what_it_may(pc: &WardPc) -> Outcome {
    run(
        pc,
        "install -m 644 /etc/bulkhead/policy.toml /home/ && useradd -G bulkhead-it tech && useradd -G bulkhead-officer officer && useradd visitor",
    )?;
    for (who, may, may_not) in [
        ("nurse", "lock", "unlock"),
        ("tech", "unlock", "policy apply /home/policy.toml"),
        ("officer", "policy show", "restart internet"),
    ] {
        run(pc, &format!("runuser -u {who} -- bulkhead {may}"))?;
        let refused = shell(pc, &format!("runuser -u {who} -- bulkhead {may_not} 2>&1"))?;
        ensure!(
            refused.status == Some(1) && refused.stdout.contains(" may not "),
            "{who} may `{may_not}`: {refused:?}"
        );
    }
    let stranger = shell(pc, "runuser -u visitor -- bulkhead status 2>&1")?;
    ensure!(stranger.status == Some(1), "who has no role is told: {stranger:?}");
    let refused = run(pc, "bulkhead audit show --kind refused --json")?;
    for who in ["nurse", "tech", "officer", "visitor"] {
        ensure!(refused.contains(who), "{who}'s request is not in the log: {refused}");
    }
    run(pc, "rm /home/policy.toml && userdel tech && userdel officer && userdel visitor")?;
    pc.progress("each role may what it may, and nothing else");
    Ok(())
}

/// A card handed over by VFIO is dead after a sleep: systemd refuses it for as long as the agent runs.
fn nobody_puts_it_to_sleep(pc: &WardPc) -> Outcome {
    let asked = shell(pc, "systemctl suspend --check-inhibitors=yes 2>&1")?;
    ensure!(
        asked.status != Some(0) && asked.stdout.to_lowercase().contains("inhibit"),
        "it may sleep: {asked:?}"
    );
    Ok(())
}

/// What the banner says, by hotkey.
fn the_seat_switches(pc: &WardPc) -> Outcome {
    let mut person = Person::at(pc)?;
    person.see("the clinical banner", SOON, in_front(CLINICAL))?;
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(INTERNET))?;
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner again", SOON, in_front(CLINICAL))?;
    person.photograph(&tests::wardpc::images().join("../install-test/ward-pc.png"))
}

/// And never to the host, which has a driver for it.
fn a_stick_goes_to_its_domain(pc: &WardPc) -> Outcome {
    let medium = pc.dir().join("stick.img");
    std::fs::write(&medium, vec![0x5a; 8 << 20])?;
    let mut qmp = pc.qmp()?;
    plug_stick(&mut qmp, "stick", &medium, "WARD1")?;
    let start = Instant::now();
    let looks = || {
        probe(pc).ask(json!({"op": "run", "argv": ["/bin/busybox", "head", "-c", "4", "/dev/sda"]}))
    };
    while looks()?["output"] != "ZZZZ" {
        ensure!(
            start.elapsed() < patience(AGAIN),
            "the guest does not have the stick: {}",
            run(pc, "bulkhead usb list")?
        );
        thread::sleep(Duration::from_millis(500));
    }
    let disks = run(pc, "ls /sys/block")?;
    ensure!(
        !disks.split_whitespace().any(|disk| disk.starts_with("sd")),
        "the host has it as well: {disks}"
    );
    pull_stick(&mut qmp, "stick")?;
    pc.progress("a stick went to its domain, and to no other");
    Ok(())
}

/// Runs a shell line while the Internet guest is asked for its network again and again; returns how often it answered, which is always.
fn while_it_runs(pc: &WardPc, line: &str) -> Outcome<u32> {
    run(
        pc,
        &format!(
            "rm -f /tmp/line.*; ( ({line}) > /tmp/line.said 2>&1; echo $? > /tmp/line.status) > /dev/null 2>&1 &"
        ),
    )?;
    let (began, mut answers) = (Instant::now(), 0);
    loop {
        ensure!(began.elapsed() < patience(UP), "`{line}` does not end");
        let status = shell(pc, "cat /tmp/line.status")?;
        ensure!(probe(pc).reaches(INTERNET_SERVER)?, "the guest's network is gone during `{line}`");
        answers += 1;
        match status.stdout.trim() {
            "" => {}
            "0" => return Ok(answers),
            _ => return Err(Failure(format!("`{line}`: {}", run(pc, "cat /tmp/line.said")?))),
        }
    }
}

/// While the agent is killed, restarted by systemd, and replaced by a newer package's.
fn guests_run_on(pc: &WardPc) -> Outcome {
    let guests = vmms(pc)?;
    let mut person = Person::at(pc)?;
    person.see("the clinical banner", SOON, in_front(CLINICAL))?;
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(INTERNET))?;
    drop(person); // the PC's hardware has one of them at a time
    let main = |pc: &WardPc| run(pc, "systemctl show -p MainPID --value bulkhead-agent");
    let newer = "rm -rf /tmp/newer && dpkg-deb -R /share/packages/bulkhead_*.deb /tmp/newer && sed -i 's/^Version: .*/&+1/' /tmp/newer/DEBIAN/control && \
        dpkg-deb -Znone --root-owner-group -b /tmp/newer /tmp/newer.deb >/dev/null && apt-get -qq -o Dpkg::Use-Pty=0 install /tmp/newer.deb && \
        systemctl restart bulkhead-agent";
    for (what, line) in [
        ("killed", "kill -9 $(systemctl show -p MainPID --value bulkhead-agent)"),
        ("restarted", "systemctl restart bulkhead-agent"),
        ("upgraded", newer),
    ] {
        let old = main(pc)?;
        let began = Instant::now();
        let guest = probe(pc);
        let (asked, gap) = thread::scope(|scope| {
            let gap = scope.spawn(|| seat_gap::measured(pc, INTERNET, &guest, UP, AGAIN));
            let asked = while_it_runs(pc, line);
            (asked, gap.join())
        });
        let asked = asked?;
        let gap = gap.map_err(|_| "whoever looks at the screen has panicked")??;
        becomes(
            pc,
            "there is another agent",
            &format!(
                "[ $(systemctl show -p MainPID --value bulkhead-agent) -gt 0 ] && [ $(systemctl show -p MainPID --value bulkhead-agent) != {} ] && su nurse -c 'bulkhead status'",
                old.trim()
            ),
            AGAIN,
        )?;
        ensure!(vmms(pc)? == guests, "a guest was restarted when the agent was {what}");
        ensure!(probe(pc).reaches(INTERNET_SERVER)?, "the guest's network is gone");
        pc.progress(&format!(
            "the agent was {what}, the next one answers after {:?}; without a picture for {:?}, without keys for {:?}; the guest's network answered {asked} times",
            began.elapsed(),
            gap.picture,
            gap.keys
        ));
    }
    let mut person = Person::at(pc)?;
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner", SOON, in_front(CLINICAL))?;
    // Each agent keeps the PC awake by a program of systemd's, which ends with it.
    let locks = "cat /proc/[0-9]*/comm | grep -c '^systemd-inhibit'";
    becomes(pc, "one lock keeps the PC awake", &format!("[ \"$({locks})\" = 1 ]"), AGAIN)?;
    let older = shell(pc, "dpkg --install /share/packages/bulkhead_*.deb 2>&1")?;
    ensure!(
        older.status != Some(0) && older.stdout.contains("bulkhead program rollback"),
        "an older package is not refused: {older:?}"
    );
    ensure!(updates::installed(pc)? == "1", "an older package came over a newer one");
    run(pc, "bulkhead audit verify").map(drop)
}

/// By bundles that officers signed; guests and their network are as before after each step.
fn is_updated(pc: &WardPc) -> Outcome {
    let guests = vmms(pc)?;
    updates::come_by_bundle(pc, &|what| {
        ensure!(vmms(pc)? == guests, "a guest was restarted: {what}");
        ensure!(probe(pc).reaches(INTERNET_SERVER)?, "the guest's network is gone: {what}");
        Ok(())
    })?;
    updates::one_that_loses_a_desktop_goes_back(pc)?;
    let [clinical, internet] = vmms(pc)?;
    ensure!(clinical == guests[0], "the desktop that was not lost was restarted");
    ensure!(internet != guests[1] && internet != 0, "the one that was lost is not there again");
    probe(pc).wait_ready()?;
    probe(pc).configure(ADDRESS)?;
    ensure!(probe(pc).reaches(INTERNET_SERVER)?, "the Internet guest has no network again");
    ensure!(!probe(pc).reaches(CLINICAL_SERVER)?, "the Internet guest reaches the hospital");
    Ok(())
}

/// By `setup --undo` and `apt purge`: the guests shut down, and the PC is as it was.
fn is_taken_back(pc: &WardPc) -> Outcome {
    // It does not throw away what IT wrote into the file since, and says what to do.
    let kept = shell(pc, "bulkhead setup --undo --yes 2>&1")?;
    ensure!(
        kept.status == Some(1) && kept.stdout.contains("mv /etc/bulkhead/machine.toml"),
        "{kept:?}"
    );
    run(
        pc,
        "mv /etc/bulkhead/machine.toml /etc/bulkhead/machine.toml.mine && bulkhead setup --undo --yes 2>&1",
    )?;
    run(pc, "apt-get -qq -o Dpkg::Use-Pty=0 purge bulkhead 2>&1")?;
    for nic in ["0000:00:05.0", "0000:00:06.0"] {
        let driver = run(pc, &format!("readlink /sys/bus/pci/devices/{nic}/driver"))?;
        ensure!(driver.trim().ends_with("/e1000e"), "{nic} was not given back: {driver}");
    }
    run(pc, &format!("({PICTURE}) > /home/after"))?;
    let stays = "^> /var/lib/bulkhead \\|^> /var/lib/bulkhead/audit-purged-";
    let differs = run(
        pc,
        &format!(
            "[ -s /home/before ] && [ -s /home/after ] || exit 1; diff /home/before /home/after | grep '^[<>]' | grep -v '{stays}' || true"
        ),
    )?;
    ensure!(differs.is_empty(), "the PC is not as it was:\n{differs}");
    run(pc, "grep -q '^/var/lib/bulkhead/audit-purged-.*jsonl' /home/after").map(drop)
}
