//! The real agent and command line as processes, with stand-ins for VMMs: what is promised of
//! starting, watching, restarting and stopping them. The real VMM is met in the simulated ward PC.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test's helpers fail the test, as its body does"
)]

mod accounts;
mod adopted;
mod answers;
#[path = "../artefacts/mod.rs"]
mod artefacts;
mod asked;
mod audit;
mod flawed;
mod imaged;
mod played;
#[path = "../../audit/tests/support/relink.rs"]
mod relink;
mod renewed;
mod roll_out;
mod shown;
mod support;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base::layout::MEDIATORS_PORTS;
use domains::host_network::configured_interfaces;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::{Value, json};
use support::{MACHINE, PATIENCE, Ward, alive, program};

#[test]
#[ignore = "not a test: the stand-in that the agents of the tests start as their VMM"]
fn the_stand_in_vmm() {
    support::stand_in();
}

fn running() -> (Ward, support::Agent) {
    let ward = Ward::new(MACHINE);
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    ward.wait_for_state("internet", "running");
    (ward, agent)
}

#[test]
fn both_domains_run_and_are_asked_to_shut_down_when_the_agent_is_stopped() {
    let (ward, agent) = running();
    let pids = ["clinical", "internet"].map(|domain| ward.pid(domain));
    assert_eq!(agent.stop().code(), Some(0));
    assert!(!pids.into_iter().any(alive));
    for domain in ["clinical", "internet"] {
        assert_eq!(ward.events(domain)[1..], ["power-button"], "{domain}");
    }
    assert!(!ward.at("run/control.sock").exists());
    assert_eq!(ward.bulkhead(&["status"]).status.code(), Some(2));
}

#[test]
fn the_agent_survives_the_death_of_a_thread_as_it_is_built_and_its_vmm_does_not() {
    let (ward, agent) = running();
    assert_eq!(ward.status()["agent"]["unwinds"], true, "build it with scripts/build");
    agent.stop();
    // The class of Rust's exceptions is in what unwinds and only there.
    let unwinds = |program: &str| {
        let bytes = fs::read(support::program(program)).unwrap();
        bytes.windows(8).any(|window| window == b"MOZ\0RUST")
    };
    assert!(unwinds("bulkhead-agent"));
    if std::env::var_os("BULKHEAD_ARTEFACTS").is_some() {
        assert!(
            !unwinds("bulkhead-vmm"),
            "its memory is a budget, and a guest's VMM ends where it is wrong"
        );
    }
}

#[test]
fn the_agent_and_what_it_starts_leave_no_core_dump() {
    let (ward, agent) = running();
    let own = ward.status()["agent"]["pid"].as_i64().unwrap();
    for pid in [own, ward.pid("clinical")] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
    agent.stop();
}

#[test]
fn a_vmm_is_told_exactly_what_the_machine_file_says() {
    let (ward, agent) = running();
    let run = ward.at("run/clinical").display().to_string();
    let kernel = ward.at("images/vmlinuz").display().to_string();
    assert_eq!(ward.events("clinical")[0], "run --spec-fd 0 --log-level info");
    let port = |name: &str| json!({"name": name, "socket": format!("{run}/{name}.sock")});
    let ports: Vec<Value> =
        ["probe"].iter().chain(MEDIATORS_PORTS).map(|name| port(name)).collect();
    let mut expected = json!({
        "kernel": kernel,
        "cmdline": "",
        "memory": "1024M",
        "hugepages": false,
        "cpus": 1,
        "disks": [],
        "nets": [],
        "vfio": [],
        "serial": "null",
        "ports": ports,
        "usb": (1..=4).map(|n| format!("{run}/usb-{n}.sock")).collect::<Vec<_>>(),
        "control_socket": format!("{run}/vmm.sock"),
        "stop_timeout": "2s",
        "exit_on_reset": false,
        "sandbox": {"enabled": true},
    });
    if Uid::effective().is_root() {
        expected["sandbox"]["ids"] = json!([64000, 64000]);
    }
    let told: Value = serde_json::from_slice(&fs::read(ward.at("spec-clinical")).unwrap()).unwrap();
    assert_eq!(told, expected);
    agent.stop();
}

// Shows: I-5, K-5.2.3.
#[test]
fn a_vmm_that_fails_is_restarted_and_the_other_domain_does_not_notice() {
    let ward = Ward::new(MACHINE);
    ward.behave("internet", "crash-2");
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    let clinical = ward.pid("clinical");
    ward.wait_for_state("internet", "running");
    let internet = ward.domain("internet");
    assert_eq!(internet["restarts"], 2);
    assert!(internet["problem"].is_null(), "what was put right is no problem any more");
    kill(Pid::from_raw(i32::try_from(ward.pid("internet")).unwrap()), Signal::SIGKILL).unwrap();
    ward.wait("a third restart", || ward.domain("internet")["restarts"] == 3);
    ward.wait_for_state("internet", "running");
    assert_eq!(ward.pid("clinical"), clinical);
    assert_eq!(ward.domain("clinical")["restarts"], 0);
    assert_eq!(agent.stop().code(), Some(0));
    // What a VMM says is in the log with its domain, and cannot steer a terminal.
    let log = ward.log();
    assert!(log.contains(r"bulkhead-vmm: the kernel \u{1b}[31mfile is empty"), "{log}");
    assert!(log.contains("SIGKILL"), "{log}");
}

#[test]
fn a_guest_that_powers_off_stays_off_until_it_is_started() {
    let (ward, agent) = running();
    assert_eq!(ward.bulkhead(&["stop", "internet"]).status.code(), Some(0));
    assert_eq!(ward.domain("internet")["state"], "off");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(ward.domain("internet")["state"], "off");
    assert_eq!(ward.domain("clinical")["state"], "running");
    let started = ward.bulkhead(&["start", "internet"]);
    assert_eq!(started.status.code(), Some(0));
    assert!(
        String::from_utf8_lossy(&started.stdout).ends_with("internet: running\n"),
        "{started:?}"
    );
    let before = ward.pid("internet");
    assert_eq!(ward.bulkhead(&["restart", "internet"]).status.code(), Some(0));
    assert_ne!(ward.pid("internet"), before);
    assert_eq!(ward.bulkhead(&["reset", "internet"]).status.code(), Some(0));
    ward.wait("the reset", || ward.events("internet").last().is_some_and(|e| e == "reset"));
    agent.stop();
}

#[test]
fn a_guest_that_ignores_its_power_button_is_killed_after_the_deadline_and_the_agent_ends_well() {
    let ward = Ward::new(MACHINE);
    ward.behave("internet", "ignore");
    let agent = ward.start_agent();
    ward.wait_for_state("internet", "running");
    let pid = ward.pid("internet");
    let start = Instant::now();
    assert_eq!(agent.stop().code(), Some(0));
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&start.elapsed()));
    assert!(!alive(pid));
    assert_eq!(ward.events("internet")[1..], ["power-button", "stop"]);
}

#[test]
fn stop_now_and_a_second_signal_do_not_wait_for_the_guests() {
    let ward = Ward::new(&MACHINE.replace("\"2s\"", "\"10m\""));
    ward.behave("internet", "mute");
    ward.behave("clinical", "ignore");
    let mut agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    assert_eq!(ward.bulkhead(&["stop", "--now", "clinical"]).status.code(), Some(0));
    agent.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_secs(1));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
}

#[test]
fn signals_that_come_together_are_one_wish_and_a_closed_terminal_ends_no_guest_unsaved() {
    let ward = Ward::new(&MACHINE.replace("\"2s\"", "\"10s\""));
    ward.behave("internet", "ignore");
    let mut agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    ward.wait_for_state("internet", "running");
    let start = Instant::now();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTERM] {
        agent.signal(signal);
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    agent.signal(Signal::SIGHUP);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(10), "the guest that says nothing had its time");
}

#[test]
fn a_second_agent_in_the_same_place_is_refused_and_harms_nothing() {
    let (ward, agent) = running();
    let second = ward.agent_command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another bulkhead-agent runs here"), "{said}");
    assert_eq!(ward.domain("clinical")["state"], "running");
    agent.stop();
}

#[test]
fn a_vmm_that_floods_its_log_or_does_not_answer_holds_nobody_up() {
    let ward = Ward::new(MACHINE);
    ward.behave("internet", "flood");
    ward.behave("clinical", "mute");
    let agent = ward.start_agent();
    ward.wait_for_state("internet", "running");
    thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    assert_eq!(ward.domain("clinical")["state"], "starting");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(ward.log().len() < 1 << 20, "{} bytes of log", ward.log().len());
    assert!(ward.log().lines().all(|line| line.len() < 2000));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.stop().code(), Some(0));
}

#[test]
fn domains_start_only_on_a_host_without_a_network() {
    let ward = Ward::new(&MACHINE.replace("allow_host_network = true", ""));
    let interfaces = configured_interfaces().unwrap();
    let agent = ward.start_agent();
    if let Some(interface) = interfaces.first() {
        ward.wait_for_state("clinical", "retrying");
        let problem = ward.domain("clinical")["problem"].to_string();
        assert!(
            problem.contains(&interface.name) && problem.contains("allow_host_network"),
            "{problem}"
        );
        assert!(ward.events("clinical").is_empty());
        let output = ward.bulkhead(&["start", "clinical", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&interface.name));
    } else {
        ward.wait_for_state("clinical", "running");
    }
    agent.stop();
    // The same in a network namespace of its own, where there is but loopback.
    let plain = ward.agent_command();
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--net"]).arg(plain.get_program()).args(plain.get_args());
    let agent = ward.start(inside);
    ward.wait_for_state("clinical", "running");
    let status = ward.status();
    assert_eq!(status["host_network"]["ok"], true);
    assert_eq!(status["host_network"]["allowed"], false);
    agent.stop();
}

#[test]
fn external_domains_are_held_to_no_host_network_rule_by_agent_and_status() {
    let external = |name: &str| format!("[domain.{name}]\nvmm = \"external\"\n");
    let (one, other) = (external("clinical"), external("internet"));
    let ward = Ward::new(&format!("format = 1\n[seat]\nbackend = \"none\"\n{one}{other}"));
    // In a network namespace of its own: there a network is made that the rule would not allow.
    let plain = ward.agent_command();
    let mut inside = Command::new("unshare");
    let script = "ip link set lo up && ip link add v0 type bridge && ip addr add 10.9.8.7/24 dev v0 && exec \"$@\"";
    inside.args(["--map-root-user", "--net", "sh", "-c", script, "sh"]);
    inside.arg(plain.get_program()).args(plain.get_args());
    let agent = ward.start(inside);
    let status = ward.status();
    let network = &status["host_network"];
    assert_eq!(network["ok"], true, "{network}");
    assert_eq!(network["interfaces"][0]["name"], "v0", "{network}");
    let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    assert!(text.contains("no external domain is held back"), "{text}");
    let log = ward.log();
    assert!(log.contains("v0 (10.9.8.7)") && !log.contains("ERROR"), "{log}");
    agent.stop();
}

#[test]
fn an_overridden_host_network_rule_is_loud() {
    let (ward, agent) = running();
    let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    assert!(text.contains("allow_host_network = true"), "{text}");
    assert!(text.contains("unsigned"), "{text}");
    agent.stop();
}

#[test]
fn files_that_are_wrong_or_missing_are_refused_before_anything_is_touched() {
    let ward = Ward::new(&MACHINE.replace("kernel =", "kernal ="));
    let output = ward.agent_command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("machine.toml:6:1") && said.contains("did you mean `kernel`?"), "{said}");
    assert!(!said.contains('\x1b'), "no colours for a file");
    fs::remove_file(ward.at("policy.toml")).unwrap();
    let output = ward.agent_command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("cannot read the policy") && said.contains("--policy"), "{said}");
    fs::write(ward.at("policy.toml"), "format = 1\nserial = 1\n").unwrap();
    let output = ward.agent_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("policy.toml:"));
    assert!(!ward.at("state").exists() && !ward.at("run").exists());
}

#[test]
fn a_missing_vmm_is_told_with_its_remedy() {
    let ward = Ward::new(MACHINE);
    fs::remove_file(ward.at("vmm")).unwrap();
    let output = ward.agent_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name it with --vmm"));
}

// Shows: K-1.1.1, K-1.3.1, K-5.3.2.
#[test]
fn a_user_without_a_role_is_refused() {
    if !Uid::effective().is_root() {
        return; // only root can be somebody else
    }
    use std::os::unix::process::CommandExt;
    let (ward, agent) = running();
    for args in [["status", "--json"], ["stop", "clinical"]] {
        // Another user cannot read the build directory; a copy of the command line it can.
        let copy = ward.at("bulkhead");
        if !copy.exists() {
            fs::copy(program("bulkhead"), &copy).unwrap();
        }
        let output = Command::new(&copy)
            .env("BULKHEAD_RUNTIME", ward.at("run"))
            .args(args)
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = format!("{output:?}");
        assert!(said.contains("user 65534 may not") && said.contains("bulkhead-it"), "{said}");
    }
    assert_eq!(ward.domain("clinical")["state"], "running");
    agent.stop();
}

#[test]
fn exit_statuses_are_those_of_the_handbook() {
    let ward = Ward::new(MACHINE);
    let code = |args: &[&str]| ward.bulkhead(args).status.code();
    assert_eq!(code(&["status"]), Some(2), "no agent");
    assert_eq!(code(&["start", "clinical"]), Some(2), "no agent");
    let output = ward.bulkhead(&["status", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert!(answer["error"].as_str().unwrap().contains("no agent is running"));
    assert_eq!(code(&["fly"]), Some(2), "bad usage");
    assert_eq!(code(&["start"]), Some(2), "bad usage");
    assert_eq!(code(&["--help"]), Some(0));
    let agent = ward.start_agent();
    assert_eq!(code(&["stop", "nowhere"]), Some(1), "no such domain");
    let runtime = ward.at("run").display().to_string();
    let by_option = Command::new(program("bulkhead"))
        .env_remove("BULKHEAD_RUNTIME")
        .args(["--runtime", &runtime, "status"])
        .status()
        .unwrap();
    assert!(by_option.success());
    let usage = Command::new(program("bulkhead-agent")).arg("--fly").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    agent.stop();
}

#[test]
fn the_doctor_names_a_broken_machine_file_and_a_vmm_that_is_none() {
    let ward = Ward::new(&MACHINE.replace("kernel = \"vmlinuz\"\nports", "kernel = 7\nports"));
    let doctor = |vmm: &str| {
        let mut command = ward.bulkhead_command(&["doctor", "--json", "--vmm", vmm]);
        command.arg("--machine").arg(ward.at("machine.toml"));
        command.arg("--policy").arg(ward.at("policy.toml"));
        let start = Instant::now();
        let output = command.output().unwrap();
        assert!(start.elapsed() < PATIENCE);
        assert_eq!(output.status.code(), Some(1));
        let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(diagnosis["ok"], false);
        diagnosis["findings"].as_array().unwrap().clone()
    };
    let findings = doctor(ward.at("vmm").to_str().unwrap());
    let of = |findings: &[Value], check: &str| {
        findings.iter().find(|f| f["check"] == check).unwrap().clone()
    };
    let machine = of(&findings, "machine-file");
    assert_eq!(machine["level"], "fail");
    assert!(machine["message"].as_str().unwrap().contains("machine.toml:6:10"), "{machine}");
    assert_eq!(of(&findings, "vmm")["level"], "ok");
    let worker = of(&findings, "worker");
    assert!(worker["message"].as_str().unwrap().contains("decoded a picture"), "{worker}");
    let findings = doctor("/bin/true");
    assert_eq!(of(&findings, "vmm")["level"], "fail");
    let every_failure_has_a_remedy = findings
        .iter()
        .all(|f| f["level"] == "ok" || f["remedy"].as_str().is_some_and(|r| !r.is_empty()));
    assert!(every_failure_has_a_remedy);
}

#[test]
fn an_agent_whose_vmms_say_nothing_is_idle() {
    let ward = Ward::new(MACHINE);
    ward.behave("clinical", "silent");
    ward.behave("internet", "mute");
    let agent = ward.start_agent();
    ward.wait("both VMMs", || !ward.domain("internet")["pid"].is_null());
    thread::sleep(Duration::from_secs(1));
    let pid = ward.status()["agent"]["pid"].as_i64().unwrap();
    let wake_ups = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = wake_ups();
    thread::sleep(Duration::from_secs(3));
    let woken = wake_ups() - before;
    // Each VMM is asked ten times a second until it has answered once.
    assert!(woken <= 150, "woken {woken} times in 3 s");
    agent.signal(Signal::SIGTERM);
    agent.stop();
}
