//! Two desktops at the seat of the simulated ward PC.

use std::fs;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::{Failure, Outcome, WardPc, ensure};

/// Longest from the agent's start to both desktops.
const READY: Duration = Duration::from_secs(240);
/// The same for the full ones, emulated twice over.
const FULL_READY: Duration = Duration::from_secs(50 * 60);
/// Until the agent has written down what a guest said.
const WRITTEN: Duration = Duration::from_secs(20);

/// Makes a machine file for two small desktops with a NIC each.
pub fn machine_file(clinical_nic: &str, internet_nic: &str) -> String {
    small(Some(clinical_nic), Some(internet_nic))
}

fn small(clinical_nic: Option<&str>, internet_nic: Option<&str>) -> String {
    let domain = |name: &str, label: &str, colour: &str, nic: Option<&str>| {
        let nic = nic.map(|nic| format!("nic = \"{nic}\"\n")).unwrap_or_default();
        format!(
            "[domain.{name}]\nmemory = \"384M\"\ncpus = 1\nkernel = \"/share/vmlinuz\"\n\
             initrd = \"/share/small/desktop.cpio\"\n\
             cmdline = \"console=ttyS0 quiet desktop.label={label} desktop.colour={colour}\"\n\
             {nic}serial = \"file={name}.log\"\n\n"
        )
    };
    format!(
        "format = 1\n\n[seat]\nbackend = \"kms\"\n\n{}{}",
        domain("clinical", "CLINICAL", "#0f4722", clinical_nic),
        domain("internet", "INTERNET", "#611410", internet_nic)
    )
}

/// Makes the policy for them: labels a ward would have.
pub fn policy() -> String {
    crate::agent::POLICY
        .replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
        .replace("\"INTERNET\"", "\"인터넷 INTERNET\"")
}

/// Where the PC keeps the image of the clinical desktop, and what it is asked for with.
const IMAGES: &str = "/tmp/images";
const OFFICE: &str = "/tmp/office";
/// Seconds in which the clinical desktop has to be drawn.
const HEALTH: u16 = 3600;

/// Shares what `scripts/build-images desktops` put at `target/images/NAME` with the PC; returns the kernel command line.
fn share(name: &str) -> Outcome<String> {
    let from = crate::wardpc::images().join("../images").join(name);
    ensure!(
        from.join("cmdline").exists(),
        "{} is missing; run scripts/build-images desktops first",
        from.display()
    );
    let to = crate::wardpc::images().join("share/full").join(name);
    fs::create_dir_all(&to)?;
    for file in ["vmlinuz", "initrd", "root.img"] {
        let _ = fs::remove_file(to.join(file));
        fs::hard_link(from.join(file), to.join(file))?;
    }
    Ok(fs::read_to_string(from.join("cmdline"))?.trim().to_owned())
}

/// Makes a machine file for the two full desktops, and shares them with the PC. The clinical one is an image that is packed, signed and
/// installed there first; the other starts from its files.
///
/// The clinical one runs without its second disk: what the PC sees of this folder cannot be written.
pub fn full_machine_file(pc: &WardPc, clinical_nic: &str, internet_nic: &str) -> Outcome<String> {
    install(pc, "clinical", &share("clinical")?)?;
    let cmdline = share("internet")?;
    let domain = |name: &str, starts: &str, nic: &str| {
        format!(
            "[domain.{name}]\nmemory = \"2G\"\ncpus = 1\n{starts}nic = \"{nic}\"\nserial = \"file={name}.log\"\n\n"
        )
    };
    let files = format!(
        "kernel = \"/share/full/internet/vmlinuz\"\ninitrd = \"/share/full/internet/initrd\"\n\
         cmdline = \"{cmdline} verity.check=lazy\"\n\
         disks = [ {{ path = \"/share/full/internet/root.img\", readonly = true }} ]\n"
    );
    Ok(format!(
        "format = 1\n\n[seat]\nbackend = \"kms\"\n\n{}{}",
        domain("clinical", "image = \"clinical\"\n", clinical_nic),
        domain("internet", &files, internet_nic)
    ))
}

/// Packs, signs, installs and activates a desktop as the office and IT do.
fn install(pc: &WardPc, name: &str, cmdline: &str) -> Outcome {
    let hash = cmdline.split_whitespace().find_map(|word| word.strip_prefix("verity.hash="));
    let hash = hash.ok_or_else(|| Failure(format!("no verity.hash in `{cmdline}`")))?;
    pc.sh(&format!("rm -rf {OFFICE} {IMAGES}; mkdir -p {OFFICE} {IMAGES}"))?;
    let from = format!("/share/full/{name}");
    let of_pc = format!("--images {IMAGES} --machine {OFFICE}/machine.toml --state {OFFICE}");
    for line in [
        format!("policy keygen {OFFICE}/kim --name kim --no-passphrase"),
        format!("trust add {OFFICE}/trust.toml {OFFICE}/kim.pub --may-sign policy,image"),
        format!(
            "images pack {OFFICE}/bundle --name {name} --serial 1 --kernel {from}/vmlinuz --initrd {from}/initrd --disk {from}/root.img \
             --cmdline '{cmdline} verity.check=lazy' --verity {hash} --health {HEALTH} --key {OFFICE}/kim"
        ),
        format!("images install {OFFICE}/bundle {of_pc}"),
        format!("images activate {name} {of_pc}"),
        format!("images verify {name} {of_pc}"),
    ] {
        let line = format!("/share/bulkhead {line} 2>&1");
        let done = pc.exec(&["/bin/busybox", "sh", "-c", &line], FULL_READY)?;
        ensure!(done.status == Some(0), "{line}: {done:?}");
    }
    pc.sh(&format!("rm {OFFICE}/bundle")).map(drop)
}

/// Waits until the agent has written down that the image's guest came up: that is what ends its trial.
pub fn comes_up(pc: &WardPc) -> Outcome {
    let until = Instant::now() + crate::patience::patience(WRITTEN);
    loop {
        let record = pc.sh(&format!("cat {IMAGES}/clinical/image.json"))?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        if record["current"] == 1 && record["trial"].is_null() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the image is on trial still: {record}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A rule for the clipboard: text from the Internet into the clinical desktop.
pub const RULES: &str = r#"
[[clipboard]]
id = "reference-text-in"
from = "internet"
to = "clinical"
types = ["text/plain"]
max_bytes = 4096
action = "allow"
inspect = ["korean-rrn"]
"#;

/// Starts the agent with these rules besides and waits until both small desktops are up.
pub fn start<'a>(pc: &'a WardPc, machine: &str, rules: &str) -> Outcome<Agent<'a>> {
    start_until(pc, machine, &(policy() + rules), &[], "SMALL-DESKTOP ready", READY)
}

/// Starts the agent with two small desktops without a network, under a policy with these rules besides.
pub fn start_with_rules<'a>(pc: &'a WardPc, rules: &str) -> Outcome<Agent<'a>> {
    let policy = policy().replace("\"passthrough\"", "\"none\"") + rules;
    start_until(pc, &small(None, None), &policy, &[], "SMALL-DESKTOP ready", READY)
}

/// Starts the agent with two small desktops without a network, of which the Internet one begins anew when it stands idle for this long.
pub fn start_with_renewal_when_idle<'a>(pc: &'a WardPc, idle: &str) -> Outcome<Agent<'a>> {
    let (keeps_nothing, idle) =
        ("persistence = \"discard\"", format!("renew_when_idle = \"{idle}\""));
    let policy = policy()
        .replace("\"passthrough\"", "\"none\"")
        .replace(keeps_nothing, &format!("{keeps_nothing}\n{idle}"));
    start_until(pc, &small(None, None), &policy, &[], "SMALL-DESKTOP ready", READY)
}

/// Starts the agent and waits until both full desktops are up.
pub fn start_full<'a>(pc: &'a WardPc, machine: &str) -> Outcome<Agent<'a>> {
    start_until(pc, machine, &policy(), &["--images", IMAGES], "DESKTOP ready", FULL_READY)
}

fn start_until<'a>(
    pc: &'a WardPc,
    machine: &str,
    policy: &str,
    arguments: &[&str],
    word: &str,
    time: Duration,
) -> Outcome<Agent<'a>> {
    let agent = Agent::launch_with(pc, machine, policy, arguments)?;
    let until = Instant::now() + crate::patience::patience(time);
    loop {
        let ready = pc.sh(&format!("grep -l '{word}' /tmp/state/log/*.log | wc -l || true"))?;
        if ready.trim() == "2" {
            return Ok(agent);
        }
        if Instant::now() > until {
            return Err(Failure(format!("the desktops are not up\n{}", agent.logs())));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
