//! The whole product: the agent, two domains, two networks, and nothing between them.

use std::time::{Duration, Instant};

use tests::agent::{Agent, SEAT_MACHINE, doctor, machine_file, seat_policy};
use tests::patience::patience;
use tests::ward::{CLINICAL_NIC, INTERNET_NIC, Ward};
use tests::ward_test;
use tests::{Outcome, ensure, isolation};

/// Longest that a guest is away whose VMM died, until its init is there again.
const AWAY: Duration = Duration::from_secs(30);

#[ward_test]
fn doctor_finds_this_pc_fit(ward: &Ward) -> Outcome {
    let machine = machine_file(CLINICAL_NIC, INTERNET_NIC);
    let output = doctor(&ward.pc, &machine, tests::agent::POLICY, &["--json"])?;
    ensure!(output.status == Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    ensure!(report.to_string().contains(CLINICAL_NIC), "{report}");
    Ok(())
}

#[ward_test(shows = ["I-1", "K-5.2.4"])]
fn a_host_with_a_network_of_its_own_is_refused_by_name(ward: &Ward) -> Outcome {
    ward.pc.make_tap("br9")?;
    ward.pc.sh("ip addr add 192.168.77.1/24 dev br9; ip link set br9 up")?;
    let result = (|| {
        let agent = Agent::launch(&ward.pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
        std::thread::sleep(Duration::from_secs(6));
        let log = ward.pc.tail("/tmp/agent.log");
        ensure!(log.contains("br9"), "the interface is not named: {log}");
        let running = ward.pc.sh("ls /proc/*/exe -l 2>/dev/null | grep -c bulkhead-vmm || true")?;
        ensure!(running.trim() == "0", "a domain runs on a host with a network");
        drop(agent);
        Ok(())
    })();
    ward.pc.sh("ip link del br9")?;
    result
}

#[ward_test(shows = ["C-1", "C-2", "I-5", "K-1.2.3", "K-1.3.9", "K-3.2.1"], also_with_39_bit_addresses)]
fn two_domains_reach_their_own_network_and_nothing_else(ward: &Ward) -> Outcome {
    let agent = Agent::start(&ward.pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
    let sides = isolation::sides(ward, &agent)?;
    let tries = isolation::try_all(&sides, &|tried| ward.pc.progress(&tried.to_string()))?;
    let wrong: Vec<_> = tries.iter().filter(|tried| !tried.holds()).collect();
    ensure!(wrong.is_empty(), "{wrong:#?}\n{}", agent.logs());
    let [clinical, internet] = &sides;

    let interfaces = ward.pc.sh("ls /sys/class/net")?;
    ensure!(interfaces.split_whitespace().all(|i| i == "lo"), "the host has {interfaces}");

    ward.pc.progress("a stopped domain's NIC is handed back, a restarted one has it again");
    let output = agent.bulkhead(&["stop", "internet"])?;
    ensure!(output.status == Some(0), "stop: {output:?}\n{}", agent.logs());
    let driver = ward.pc.sh(&format!("readlink /sys/bus/pci/devices/{INTERNET_NIC}/driver"))?;
    ensure!(driver.trim().ends_with("/e1000e"), "the NIC's driver is {driver}");
    ensure!(clinical.works()?, "the other domain noticed the stop");
    let output = agent.bulkhead(&["start", "internet"])?;
    ensure!(output.status == Some(0), "start: {output:?}\n{}", agent.logs());
    ensure!(internet.works_again()?, "after a restart the server is out of reach");

    ward.pc.progress("a VMM that dies is restarted, the other domain does not notice");
    let before = agent.status()?;
    let pid = |status: &serde_json::Value| status["domains"][1]["pid"].as_u64().unwrap_or(0);
    ward.pc.sh(&format!("kill -9 {}", pid(&before)))?;
    let killed = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    agent.probe("internet").wait_ready()?;
    let away = killed.elapsed();
    ward.pc.progress(&format!("a VMM's death to its guest's init again: {away:?}"));
    ensure!(away < patience(AWAY), "its guest was away for {away:?}");
    ensure!(internet.works_again()?, "after a crash the server is out of reach");
    ensure!(clinical.works()?, "the other domain noticed the crash");
    let after = agent.status()?;
    let domains = (&after["domains"][0], &after["domains"][1]);
    ensure!(pid(&after) != pid(&before), "the VMM that was killed still runs: {after}");
    ensure!(domains.1["restarts"] == 1 && domains.0["restarts"] == 0, "{after}");

    agent.stop()?;
    for nic in [CLINICAL_NIC, INTERNET_NIC] {
        let bound = ward.pc.sh(&format!("readlink /sys/bus/pci/devices/{nic}/driver || true"))?;
        ensure!(!bound.contains("vfio-pci"), "{nic} was not given back: {bound}");
    }
    Ok(())
}

#[ward_test(shows = ["I-5", "P-3", "K-5.1.1", "K-5.1.2", "K-5.1.3", "K-5.3.1", "K-5.4.2", "K-5.4.3"])]
fn a_signed_policy_comes_into_force_while_guests_run_and_the_audit_log_holds(
    ward: &Ward,
) -> Outcome {
    // Two officers; the PC trusts them, and takes nothing that they did not both sign.
    ward.pc.sh("rm -rf /tmp/state /tmp/officers; mkdir -p /tmp/officers /tmp/etc")?;
    let bulkhead = |line: &str| ward.pc.sh(&format!("/share/bulkhead {line}"));
    let signs = |officer: &str, file: &str| {
        bulkhead(&format!("policy sign {file} --key /tmp/officers/{officer}"))
    };
    let policy = tests::agent::POLICY;
    let next = policy.replace("serial = 1", "serial = 2").replace("\"CLINICAL\"", "\"WARD\"");
    for (name, text) in [("policy", policy), ("next", &next)] {
        ward.pc.sh(&format!("cat > /tmp/etc/{name}.toml <<'END'\n{text}END"))?;
    }
    for officer in ["kim", "lee"] {
        bulkhead(&format!(
            "policy keygen /tmp/officers/{officer} --name {officer} --no-passphrase"
        ))?;
        signs(officer, "/tmp/etc/policy.toml")?;
    }
    ward.pc.sh(
        "(echo format = 1; echo threshold = 2; cat /tmp/officers/*.pub) > /tmp/etc/trust.toml",
    )?;
    let result = (|| {
        let agent = Agent::start(&ward.pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
        let before = agent.status()?;
        ensure!(before["policy"]["signers"] == serde_json::json!(["kim", "lee"]), "{before}");

        ward.pc.progress("one signature is not enough, two are; no guest is restarted");
        signs("kim", "/tmp/etc/next.toml")?;
        let refused = agent.bulkhead(&["policy", "apply", "/tmp/etc/next.toml"])?;
        ensure!(
            refused.status == Some(1) && refused.stderr.contains("only kim did"),
            "{refused:?}"
        );
        ensure!(agent.status()?["policy"]["serial"] == 1, "a refused policy is in force");
        signs("lee", "/tmp/etc/next.toml")?;
        let applied = agent.bulkhead(&["policy", "apply", "/tmp/etc/next.toml"])?;
        ensure!(applied.status == Some(0), "{applied:?}\n{}", agent.logs());
        let after = agent.status()?;
        ensure!(
            after["policy"]["serial"] == 2 && after["domains"][0]["label"] == "WARD",
            "{after}"
        );
        for domain in 0..2 {
            let pid = |status: &serde_json::Value| status["domains"][domain]["pid"].clone();
            ensure!(pid(&before) == pid(&after) && pid(&after).is_u64(), "{before}\n{after}");
        }
        agent.stop()?;

        ward.pc.progress("the audit log holds, and a changed byte in it is found");
        let log = "/tmp/state/audit";
        let shown = bulkhead(&format!("audit show {log}"))?;
        for word in
            ["agent-started policy=1", "policy-refused", "policy-applied policy=2", "agent-stopped"]
        {
            ensure!(shown.contains(word), "`{word}` is not in the audit log:\n{shown}");
        }
        ensure!(shown.matches("to=\"running\"").count() == 2, "{shown}");
        let verified = bulkhead(&format!("audit verify {log}"))?;
        let head = verified.lines().last().unwrap_or_default().to_owned();
        bulkhead(&format!("audit verify {log} --head {head}"))?;
        ward.pc.sh(&format!("sed -i 's/policy-refused/policy-praised/' {log}/*.jsonl"))?;
        let broken =
            ward.pc.exec(&["/share/bulkhead", "audit", "verify", log], Duration::from_secs(60))?;
        ensure!(broken.status == Some(1) && broken.stderr.contains("was changed"), "{broken:?}");
        Ok(())
    })();
    ward.pc.sh("rm -rf /tmp/state /tmp/officers /tmp/etc")?;
    result
}

#[ward_test(shows = ["C-10", "I-5"])]
fn a_domain_with_a_core_of_its_own_runs_on_no_other_and_the_other_not_on_it(
    ward: &Ward,
) -> Outcome {
    let machine = |cores: u8| {
        SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"none\"").replacen(
            "cpus = 1",
            &format!("cpus = 1\ncores = {cores}"),
            1,
        )
    };
    let launch = |cores| Agent::launch_with(&ward.pc, &machine(cores), &seat_policy(), &[]);
    let agent = launch(1)?;
    for domain in ["clinical", "internet"] {
        agent.probe(domain).wait_ready()?;
    }
    let status = agent.status()?;
    for (place, cpu) in [(0, "1"), (1, "0")] {
        let pid = &status["domains"][place]["pid"];
        let line = format!("sed -n 's/^Cpus_allowed_list:\t//p' /proc/{pid}/task/*/status");
        let allowed = ward.pc.sh(&line)?;
        ensure!(allowed.lines().count() > 2, "no threads: {allowed}");
        ensure!(allowed.lines().all(|list| list == cpu), "domain {place} may run on {allowed}");
    }
    agent.stop()?;
    let agent = launch(2)?;
    let began = Instant::now();
    loop {
        let status = agent.bulkhead(&["status"])?;
        if status.stdout.contains("lower `cores`") && status.stdout.contains("retrying") {
            break;
        }
        ensure!(began.elapsed() < patience(Duration::from_secs(30)), "{status:?}");
    }
    agent.probe("internet").wait_ready()?;
    agent.stop()
}

#[ward_test(shows = ["K-3.1.1", "K-5.3.1"])]
fn a_machine_file_with_mistakes_is_refused_with_line_and_column(ward: &Ward) -> Outcome {
    let twice = machine_file(CLINICAL_NIC, CLINICAL_NIC).replace("cpus = 1", "cpu = 1");
    let agent = Agent::launch(&ward.pc, &twice)?;
    let status = agent.wait(Duration::from_secs(20))?;
    ensure!(status.is_some_and(|s| s != 0), "the agent took it: {status:?}");
    let log = ward.pc.tail("/tmp/agent.log");
    for word in [CLINICAL_NIC, "cpu", "machine.toml:"] {
        ensure!(log.contains(word), "`{word}` is not named: {log}");
    }
    Ok(())
}
