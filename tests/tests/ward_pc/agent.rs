//! The whole product: the agent, two domains, two networks, and nothing between them.

use std::time::Duration;

use serde_json::json;
use tests::agent::{Agent, machine_file};
use tests::runner::Test;
use tests::{Outcome, ensure};

use crate::{CLINICAL_MAC, CLINICAL_NIC, INTERNET_MAC, INTERNET_NIC, Ward};

pub(crate) const TESTS: &[Test<Ward>] = &[
    ("doctor_finds_this_pc_fit", doctor),
    ("a_host_with_a_network_of_its_own_is_refused_by_name", host_network),
    ("two_domains_reach_their_own_network_and_nothing_else", two_domains),
    ("a_machine_file_with_mistakes_is_refused_with_line_and_column", bad_machine_file),
];

fn doctor(ward: &Ward) -> Outcome {
    let machine = machine_file(CLINICAL_NIC, INTERNET_NIC);
    let policy = tests::agent::POLICY;
    ward.pc.sh(&format!(
        "mkdir -p /tmp/etc; cat > /tmp/etc/machine.toml <<'END'\n{machine}END\ncat > /tmp/etc/policy.toml <<'END'\n{policy}END\n"
    ))?;
    let output = ward.pc.exec(
        &[
            "/share/bulkhead",
            "doctor",
            "--json",
            "--machine",
            "/tmp/etc/machine.toml",
            "--policy",
            "/tmp/etc/policy.toml",
            "--images",
            "/share",
        ],
        Duration::from_secs(60),
    )?;
    ensure!(output.status == Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    ensure!(report.to_string().contains(CLINICAL_NIC), "{report}");
    Ok(())
}

fn host_network(ward: &Ward) -> Outcome {
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

fn two_domains(ward: &Ward) -> Outcome {
    let agent = Agent::start(&ward.pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let a = clinical.configure("10.1.0.5/24")?;
    let b = internet.configure("10.2.0.6/24")?;
    for (probe, mac) in [(&clinical, CLINICAL_MAC), (&internet, INTERNET_MAC)] {
        let interface = probe.interface()?;
        ensure!(interface["mac"] == mac && interface["msi_kind"] == "msix", "{interface}");
    }

    ward.pc.progress("each domain reaches its own network");
    for (probe, name, network) in [(&clinical, &a, &ward.clinical), (&internet, &b, &ward.internet)]
    {
        let server = network.server_text();
        ensure!(probe.reaches(&server)?, "{server} is out of reach");
        ensure!(probe.reaches_by(&network.server_link_local(), Some(name))?, "IPv6 link-local");
        let page = probe.ask(json!({"op": "http", "address": server})).map_err(|e| {
            tests::Failure(format!("{}\nthe last frames:\n{}", e.0, network.last_frames(12)))
        })?;
        let says = format!("this is the {} network", network.name);
        ensure!(page["body"].as_str().is_some_and(|b| b.contains(&says)), "{page}");
    }

    ward.pc.progress("neither reaches the other's network or the other guest");
    for (probe, name, others, guest) in
        [(&clinical, &a, &ward.internet, "10.2.0.6"), (&internet, &b, &ward.clinical, "10.1.0.5")]
    {
        for address in [&*others.server_text(), guest] {
            ensure!(!probe.reaches(address)?, "{address} is reached");
            let answered =
                probe.ask(json!({"op": "arp", "interface": name, "address": address}))?;
            ensure!(answered["answered"] == false, "{address} answers ARP across");
        }
        ensure!(!probe.reaches_by(&others.server_link_local(), Some(name))?, "IPv6 across");
    }
    let link_local = |probe: &tests::guest::Probe<'_>| -> Outcome<String> {
        let interface = probe.interface()?;
        Ok(interface["ipv6"][0].as_str().ok_or("no link-local address")?.to_owned())
    };
    ensure!(!clinical.reaches_by(&link_local(&internet)?, Some(&a))?, "guest to guest by IPv6");

    ward.pc.progress("forged and broadcast frames stay on their own network");
    for (probe, name, forged, marker) in [
        (&clinical, &a, INTERNET_MAC, "FORGED-BY-CLINICAL"),
        (&internet, &b, CLINICAL_MAC, "FORGED-BY-INTERNET"),
    ] {
        for destination in ["ff:ff:ff:ff:ff:ff", forged, "02:ee:0a:01:00:01", "02:ee:0a:02:00:01"] {
            probe.ask(json!({"op": "send-frame", "interface": name, "source": forged,
                "destination": destination, "payload": marker, "count": 5}))?;
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    ensure!(ward.clinical.saw(b"FORGED-BY-CLINICAL"), "the forged frames were never sent");
    ensure!(ward.internet.saw(b"FORGED-BY-INTERNET"), "the forged frames were never sent");
    ensure!(!ward.clinical.saw(b"FORGED-BY-INTERNET"), "a frame crossed to the clinical network");
    ensure!(!ward.internet.saw(b"FORGED-BY-CLINICAL"), "a frame crossed to the Internet");

    ward.pc.progress("the host has no network");
    let interfaces = ward.pc.sh("ls /sys/class/net")?;
    ensure!(interfaces.split_whitespace().all(|i| i == "lo"), "the host has {interfaces}");
    let status = agent.status()?;
    ward.pc.progress(&format!("status: {status}"));

    ward.pc.progress("a stopped domain's NIC is handed back, a restarted one has it again");
    let output = agent.bulkhead(&["stop", "internet"])?;
    ensure!(output.status == Some(0), "stop: {output:?}\n{}", agent.logs());
    ensure!(clinical.reaches("10.1.0.1")?, "the other domain noticed");
    let output = agent.bulkhead(&["start", "internet"])?;
    ensure!(output.status == Some(0), "start: {output:?}\n{}", agent.logs());
    internet.wait_ready()?;
    internet.configure("10.2.0.6/24")?;
    ensure!(internet.reaches("10.2.0.1")?, "after a restart the server is out of reach");

    ward.pc.progress("a VMM that dies is restarted, the other domain does not notice");
    let before = agent.status()?;
    let pid = ward.pc.sh("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'bulkhead-vmm run.*/internet/' && basename $p; done; true")?;
    ward.pc.sh(&format!("kill -9 {}", pid.split_whitespace().next().unwrap_or("0")))?;
    std::thread::sleep(Duration::from_secs(2));
    internet.wait_ready()?;
    internet.configure("10.2.0.6/24")?;
    ensure!(internet.reaches("10.2.0.1")?, "after a crash the server is out of reach");
    ensure!(clinical.reaches("10.1.0.1")?, "the other domain noticed");
    ensure!(agent.status()? != before, "status does not show the restart");

    agent.stop()?;
    for nic in [CLINICAL_NIC, INTERNET_NIC] {
        let bound = ward.pc.sh(&format!("readlink /sys/bus/pci/devices/{nic}/driver || true"))?;
        ensure!(!bound.contains("vfio-pci"), "{nic} was not given back: {bound}");
    }
    Ok(())
}

fn bad_machine_file(ward: &Ward) -> Outcome {
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
