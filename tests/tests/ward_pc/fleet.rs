//! The Ansible role, on a PC with a stock Debian, hardware and all: from the first run to two desktops.

use std::time::{Duration, Instant};

use tests::installed::{ANSWERS, Installed, UP, becomes, run, shell};
use tests::patience::patience;
use tests::ward_test;
use tests::{Failure, Outcome, WardPc, ensure};

/// Longest that a run of Ansible takes: dozens of Python programs, in an emulated PC.
const PLAY: Duration = Duration::from_secs(900);

/// What IT has on a stick: the role, and in the place of the example inventory one of this PC, whose model is what QEMU says of itself; its answers
/// go where `@ANSWERS@` stands.
const STICK: &str = r#"mkdir /root/office && cd /root/office && cp -r /share/ansible /root/ansible && rm -r /root/ansible/inventory && mkdir /root/ansible/inventory
bulkhead=/share/bulkhead
$bulkhead policy keygen kim --name "Officer Kim" --no-passphrase
$bulkhead trust add trust.toml kim.pub --may-sign policy,trust,image
$bulkhead policy new policy.toml
sed -i 's/^serial = 1 /serial = 2 /' policy.toml
$bulkhead policy sign policy.toml --key kim
pack() { $bulkhead images pack $1-7.bundle --name $1 --serial 7 --kernel /share/vmlinuz --initrd $2 --cmdline "$3" --key kim; }
pack clinical /share/small/desktop.cpio 'console=ttyS0 quiet desktop.label=CLINICAL desktop.colour=#0f4722'
pack internet /share/probe.cpio 'console=ttyS0 quiet'
cat > /root/ansible/files/answers/q35.toml <<'END'
@ANSWERS@END
cat > /root/ansible/inventory/hosts.yml <<END
ward_pcs:
  hosts:
    this-pc:
      ansible_connection: local
  vars:
    bulkhead_package: $(echo /share/packages/bulkhead_*.deb)
    bulkhead_policy: /root/office/policy.toml
    bulkhead_trust_store: /root/office/trust.toml
    bulkhead_models:
      Standard PC (Q35 + ICH9, 2009): /root/ansible/files/answers/q35.toml
    bulkhead_images:
      - { name: clinical, serial: 7, file: /root/office/clinical-7.bundle }
      - { name: internet, serial: 7, file: /root/office/internet-7.bundle }
    bulkhead_disks:
      - { path: clinical/home.img, label: clinical, size: 64M }
END
"#;

/// Returns the lines that lay out the stick. What is answered once for a model says nothing of when its agents start, which the role does.
fn stick() -> String {
    STICK.replace("@ANSWERS@", &ANSWERS.replace("enable = true\n", ""))
}

/// What a run of Ansible came to.
struct Played {
    status: Option<i64>,
    said: String,
}

impl Played {
    /// Whether it ended well and changed so many things.
    fn changed(&self, things: u32) -> bool {
        self.status == Some(0) && self.said.contains(&format!(" changed={things} "))
    }
}

/// Runs a playbook on the PC itself.
fn play(pc: &WardPc, playbook: &str) -> Outcome<Played> {
    const LOG: &str = "/root/play.log";
    let line = format!(
        "cd /root/ansible && HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin exec ansible-playbook {playbook}"
    );
    let began = Instant::now();
    let pid = pc.spawn(&["/bin/sh", "-c", &line], LOG)?;
    let status = loop {
        if let Some(status) = pc.wait(pid, Duration::from_secs(30))? {
            break Some(status);
        }
        if began.elapsed() > patience(PLAY) {
            break None;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    pc.progress(&format!("{playbook} ended after {:?}", began.elapsed()));
    Ok(Played { status, said: run(pc, &format!("cat {LOG}"))? })
}

#[ward_test(in_full)]
fn a_stock_debian_becomes_a_ward_pc_by_ansible_and_a_second_run_changes_nothing() -> Outcome {
    if !Installed::can_be_made() {
        return Ok(());
    }
    let mut installed = Installed::with_ansible("bookworm")?;
    let pc = installed.start_stock()?;
    run(&pc, &format!("set -e; {}", stick()))?;

    let first = play(&pc, "site.yml")?;
    ensure!(
        first.status == Some(2) && first.said.contains("_iommu=on) only after a"),
        "{:?}: {}",
        first.status,
        first.said
    );
    let enabled = shell(&pc, "systemctl is-enabled bulkhead-agent")?.stdout;
    ensure!(enabled.trim() == "disabled", "before the hand-over the agent is {enabled}");

    let pc = installed.restart(pc)?;
    becomes(&pc, "the PC is up again", "systemctl is-active multi-user.target", UP)?;
    let second = play(&pc, "site.yml")?;
    ensure!(second.changed(0), "{:?}: {}", second.status, second.said);

    let handed_over = play(&pc, "hand-over.yml")?;
    ensure!(handed_over.status == Some(0), "{:?}: {}", handed_over.status, handed_over.said);
    run(&pc, "test -e /run/systemd/shutdown/scheduled && shutdown -c")?;
    let pc = installed.restart(pc)?;
    becomes(&pc, "both desktops run", "bulkhead status", UP).map_err(|Failure(error)| {
        let log = shell(&pc, "journalctl --no-pager -b -u 'bulkhead-*' | tail -n 40");
        Failure(format!("{error}\n{}", log.map_or_else(|Failure(why)| why, |it| it.stdout)))
    })?;
    let check = play(&pc, "check.yml")?;
    ensure!(
        check.changed(0) && check.said.contains("clinical, internet run"),
        "{:?}: {}",
        check.status,
        check.said
    );
    Ok(())
}
