//! Signed guest images: installed, put into force by a start, and taken back by themselves when their guest does not come up.

use std::time::{Duration, Instant};

use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::patience::patience;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

/// How long the guest of the second image has to say that it is up; it never does.
const HEALTH: u64 = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// The folders that the commands are given: the trust store apart from the agent's machine file, beside which it would ask for a signed policy.
const WHERE: &str = "--images /tmp/images --machine /tmp/office/machine.toml --state /tmp/office";

/// Runs `bulkhead` in a shell of the PC's; returns what it wrote.
fn bulkhead(ward: &Ward, line: &str) -> Outcome<String> {
    let line = format!("/share/bulkhead {line} 2>&1");
    let done = ward.pc.exec(&["/bin/busybox", "sh", "-c", &line], MINUTE)?;
    ensure!(done.status == Some(0), "bulkhead {line}: {done:?}");
    Ok(done.stdout)
}

fn state(ward: &Ward) -> Outcome<String> {
    bulkhead(ward, &format!("images list {WHERE}"))
}

#[ward_test(shows = ["I-5", "K-5.4.2"])]
fn a_signed_image_comes_into_force_by_a_start_and_one_that_does_not_come_up_goes_back(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state /tmp/office /tmp/images; mkdir -p /tmp/office /tmp/images")?;
    bulkhead(ward, "policy keygen /tmp/office/kim --name kim --no-passphrase")?;
    bulkhead(ward, "trust add /tmp/office/trust.toml /tmp/office/kim.pub --may-sign policy,image")?;
    for (serial, more) in [(1, String::new()), (2, format!(" --health {HEALTH}"))] {
        ward.pc.progress(&format!("image {serial} is packed, signed and installed"));
        bulkhead(
            ward,
            &format!(
                "images pack /tmp/office/probe-{serial} --name probe --serial {serial} --kernel /share/vmlinux --initrd /share/probe.cpio \
                 --cmdline 'console=ttyS0 quiet' --key /tmp/office/kim{more}"
            ),
        )?;
    }
    bulkhead(ward, &format!("images install /tmp/office/probe-1 {WHERE}"))?;
    bulkhead(ward, &format!("images activate probe {WHERE}"))?;
    let machine = SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"none\"").replacen(
        "kernel = \"/share/vmlinux\"\ninitrd = \"/share/probe.cpio\"\ncmdline = \"console=ttyS0 quiet\"\n",
        "image = \"probe\"\n",
        1,
    );
    ensure!(machine.contains("image = \"probe\""), "the machine file has no image");
    let agent =
        Agent::launch_with(&ward.pc, &machine, &seat_policy(), &["--images", "/tmp/images"])?;
    let result = (|| {
        for domain in ["clinical", "internet"] {
            agent.probe(domain).wait_ready()?;
        }
        ensure!(state(ward)?.contains("in force"), "{}", state(ward)?);
        let first = agent.status()?["domains"][0]["pid"].clone();
        let other = agent.status()?["domains"][1]["pid"].clone();

        ward.pc
            .progress("the next one is installed: nothing changes; activated: by the next start");
        bulkhead(ward, &format!("images install /tmp/office/probe-2 {WHERE}"))?;
        bulkhead(ward, &format!("images activate probe {WHERE}"))?;
        ensure!(agent.status()?["domains"][0]["pid"] == first, "a guest was restarted");
        let began = Instant::now();
        bulkhead(ward, "restart clinical")?;
        loop {
            let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
            if log.contains("\"kind\":\"image-returned\"") {
                break;
            }
            ensure!(began.elapsed() < patience(MINUTE * 2), "it does not go back: {log}");
            std::thread::sleep(Duration::from_secs(1));
        }
        ward.pc.progress(&format!("its guest says nothing: back after {:?}", began.elapsed()));
        agent.probe("clinical").wait_ready()?;
        let status = agent.status()?;
        ensure!(status["domains"][1]["pid"] == other, "the other domain was restarted");
        let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
        for kind in ["image-installed", "image-activated", "image-in-force", "image-returned"] {
            ensure!(log.contains(&format!("\"kind\":\"{kind}\"")), "no {kind}: {log}");
        }
        let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        let said = bulkhead(ward, &format!("images verify probe {WHERE}"))?;
        ward.pc.progress(&format!("{}{said}", state(ward)?));
        Ok(())
    })();
    result.map_err(|Failure(error)| {
        let list = state(ward).unwrap_or_else(|Failure(error)| error);
        Failure(format!("{error}\n{list}\n{}", agent.logs()))
    })?;
    agent.stop()?;
    ward.pc.sh("rm -rf /tmp/state /tmp/office /tmp/images").map(drop)
}
