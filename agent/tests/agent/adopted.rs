//! Agents that are killed, replaced or asked to leave while their VMMs run: the next one takes those up, and nothing else.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Agent, MACHINE, PATIENCE, Ward, alive};

const DOMAINS: [&str; 2] = ["clinical", "internet"];

fn running_in(ward: &Ward) -> (Agent, [i64; 2]) {
    let agent = ward.start_agent();
    DOMAINS.iter().for_each(|domain| ward.wait_for_state(domain, "running"));
    let pids = DOMAINS.map(|domain| ward.pid(domain));
    // What it answered is written down a moment later.
    ward.wait("the records", || {
        DOMAINS.iter().all(|domain| record(ward, domain)["answered"] == true)
    });
    (agent, pids)
}

fn record(ward: &Ward, domain: &str) -> Value {
    let text = fs::read(ward.at(&format!("run/{domain}/vmm.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Changes what is written down of a domain's VMM.
fn forge(ward: &Ward, domain: &str, change: impl FnOnce(&mut Value)) {
    let mut record = record(ward, domain);
    change(&mut record);
    let path = ward.at(&format!("run/{domain}/vmm.json"));
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
}

fn entries(ward: &Ward, kind: &str) -> Vec<Value> {
    let log = ward.at("state/audit");
    let shown = ward.bulkhead(&["audit", "show", log.to_str().unwrap(), "--kind", kind, "--json"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verified(ward: &Ward) {
    let log = ward.at("state/audit");
    let verified = ward.bulkhead(&["audit", "verify", log.to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
}

fn kill_vmm(pid: i64, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    while alive(pid) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Has a VMM end in order that is nobody's child ends as one does whose guest switched itself off.
fn end_in_order(ward: &Ward, domain: &str, pid: i64) {
    let log = ward.at(&format!("run/{domain}/vmm.log"));
    let text = format!("\n{}\n", vmm_control::ENDED_IN_ORDER);
    let mut log = fs::OpenOptions::new().append(true).open(log).unwrap();
    std::io::Write::write_all(&mut log, text.as_bytes()).unwrap();
    kill_vmm(pid, Signal::SIGKILL);
}

// Shows: I-5, K-5.2.3.
#[test]
fn guests_run_on_when_their_agent_is_killed_and_the_next_one_takes_them_up_and_says_so() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    thread::sleep(Duration::from_millis(200));
    assert!(pids.into_iter().all(alive), "a VMM does not die with its agent");
    let agent = ward.start_agent();
    for (domain, pid) in DOMAINS.into_iter().zip(pids) {
        let found = ward.domain(domain);
        assert_eq!((found["state"].as_str(), found["pid"].as_i64()), (Some("running"), Some(pid)));
        assert_eq!(found["restarts"], 0);
        assert_eq!(ward.events(domain).len(), 1, "nothing was asked of its guest");
    }
    let gap = &entries(&ward, "agent-gap");
    assert_eq!(gap.len(), 1, "{gap:?}");
    assert_eq!(gap[0]["detail"]["domains"], json!(DOMAINS));
    assert!(gap[0]["detail"]["seconds"].as_u64().unwrap() < 30, "{gap:?}");
    assert!(gap[0]["detail"]["ended"].is_null());
    // It does with them whatever it does with its own.
    assert_eq!(ward.bulkhead(&["reset", "internet"]).status.code(), Some(0));
    ward.wait("the reset", || ward.events("internet").last().is_some_and(|e| e == "reset"));
    assert_eq!(ward.bulkhead(&["restart", "internet"]).status.code(), Some(0));
    assert_ne!(ward.pid("internet"), pids[1]);
    assert_eq!(agent.stop().code(), Some(0));
    assert!(!pids.into_iter().any(alive));
    assert_eq!(ward.events("clinical")[1..], ["power-button"]);
    verified(&ward);
    assert!(DOMAINS.iter().all(|domain| !ward.at(&format!("run/{domain}/vmm.json")).exists()));
}

#[test]
fn an_agent_that_is_replaced_leaves_its_guests_running_and_writes_that_down() {
    let ward = Ward::new(MACHINE);
    let (mut agent, pids) = running_in(&ward);
    agent.signal(Signal::SIGUSR1);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(pids.into_iter().all(alive));
    assert_eq!(ward.bulkhead(&["status"]).status.code(), Some(2), "nobody mediates");
    assert_eq!(entries(&ward, "agent-left")[0]["detail"]["domains"], json!(DOMAINS));
    assert!(entries(&ward, "agent-stopped").is_empty());
    let agent = ward.start_agent();
    assert_eq!(DOMAINS.map(|domain| ward.pid(domain)), pids);
    assert_eq!(entries(&ward, "agent-gap").len(), 1);
    // Asked to leave and then to stop, it stops.
    agent.signal(Signal::SIGUSR1);
    agent.signal(Signal::SIGTERM);
    agent.stop();
    let left = pids.into_iter().filter(|pid| alive(*pid)).count();
    // Whichever of the two came to be seen first.
    assert!(left == 0 || entries(&ward, "agent-left").len() == 2, "{left}");
    verified(&ward);
}

#[test]
fn an_agent_does_not_leave_for_one_that_could_not_start() {
    let ward = Ward::new(MACHINE);
    let (mut agent, pids) = running_in(&ward);
    fs::write(ward.at("machine.toml"), MACHINE.replacen("kernel", "kernle", 1)).unwrap();
    agent.signal(Signal::SIGUSR1);
    ward.wait("why not", || ward.log().contains("NOT LEAVING"));
    assert!(ward.log().contains("kernle"), "{}", ward.log());
    assert_eq!(ward.domain("clinical")["state"], "running");
    fs::write(ward.at("machine.toml"), MACHINE).unwrap();
    agent.signal(Signal::SIGUSR1);
    assert_eq!(agent.wait().code(), Some(0));
    let agent = ward.start_agent();
    assert_eq!(DOMAINS.map(|domain| ward.pid(domain)), pids);
    agent.stop();
}

#[test]
fn an_agent_that_is_to_leave_waits_for_a_vmm_that_has_not_answered_yet() {
    let ward = Ward::new(MACHINE);
    ward.behave("internet", "late");
    let mut agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    ward.wait_for_state("internet", "starting");
    let pid = ward.pid("internet");
    agent.signal(Signal::SIGUSR1);
    assert_eq!(agent.wait().code(), Some(0));
    assert_eq!(record(&ward, "internet")["answered"], true);
    let agent = ward.start_agent();
    assert_eq!(ward.pid("internet"), pid, "the next one would have ended it");
    agent.stop();
}

#[test]
fn a_vmm_that_died_while_no_agent_ran_is_dealt_with_as_if_one_had() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    // One says what is wrong, and one ends in order.
    let log = ward.at("run/clinical/vmm.log");
    let mut text = fs::read_to_string(&log).unwrap();
    text += "bulkhead-vmm: the disk \u{1b}[31mis gone\n";
    fs::write(&log, text).unwrap();
    kill_vmm(pids[0], Signal::SIGKILL);
    let socket = ward.at("run/internet/vmm.sock");
    let mut vmm = std::os::unix::net::UnixStream::connect(socket).unwrap();
    std::io::Write::write_all(&mut vmm, b"{\"command\":\"stop\"}\n").unwrap();
    ward.wait("its end", || !alive(pids[1]));
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    assert_eq!(ward.domain("clinical")["restarts"], 1);
    assert_eq!(ward.domain("internet")["state"], "off", "its guest had switched itself off");
    let changed = entries(&ward, "domain");
    let told = |domain: &str| {
        let of = |entry: &&Value| entry["domain"] == domain && entry["detail"]["from"] == "running";
        changed.iter().rfind(of).unwrap()["detail"].clone()
    };
    assert_eq!(told("clinical")["to"], "retrying");
    let problem = told("clinical")["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains(r"the disk \u{1b}[31mis gone"), "{problem}");
    assert!(told("internet")["problem"].is_null());
    let gap = &entries(&ward, "agent-gap")[0]["detail"];
    assert_eq!((&gap["domains"], &gap["ended"]), (&json!([]), &json!(DOMAINS)));
    assert_eq!(agent.stop().code(), Some(0));
    verified(&ward);
}

#[test]
fn a_process_that_has_the_number_of_a_vmm_is_not_touched() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    kill_vmm(pids[0], Signal::SIGKILL);
    forge(&ward, "clinical", |record| record["identity"]["pid"] = other.id().into());
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    assert_ne!(ward.pid("clinical"), i64::from(other.id()));
    assert!(other.try_wait().unwrap().is_none(), "it runs");
    assert_eq!(ward.pid("internet"), pids[1]);
    agent.stop();
    assert!(other.try_wait().unwrap().is_none(), "it runs");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_vmm_whose_program_was_replaced_since_is_taken_up_and_said_to_be_an_old_one() {
    let ward = Ward::new(MACHINE).with_a_vmm_of_its_own();
    let (agent, pids) = running_in(&ward);
    agent.kill();
    fs::remove_file(ward.at("stand-in")).unwrap();
    fs::write(ward.at("stand-in"), "another version").unwrap();
    let agent = ward.start_agent();
    assert_eq!(DOMAINS.map(|domain| ward.pid(domain)), pids);
    let status = ward.status()["notes"].to_string();
    assert!(status.contains("clinical is run by a bulkhead-vmm that was replaced"), "{status}");
    agent.stop();
}

#[test]
fn a_vmm_that_is_not_what_its_record_says_is_ended_and_another_one_started() {
    let forgeries: [fn(&mut Value); 4] = [
        |record| record["executable"]["inode"] = 1.into(),
        |record| record["cgroup"] = "/elsewhere".into(),
        |record| record["answered"] = false.into(),
        |record| record["format"] = 7.into(),
    ];
    for change in forgeries {
        let ward = Ward::new(MACHINE);
        let (agent, pids) = running_in(&ward);
        agent.kill();
        forge(&ward, "clinical", change);
        let agent = ward.start_agent();
        ward.wait("another VMM", || {
            let pid = ward.domain("clinical")["pid"].as_i64();
            pid.is_some_and(|pid| pid != pids[0])
        });
        ward.wait_for_state("clinical", "running");
        assert!(!alive(pids[0]));
        assert_eq!(ward.events("clinical")[1], "power-button", "in order");
        assert_eq!(ward.pid("internet"), pids[1], "the other one did not notice");
        agent.stop();
    }
}

#[test]
fn a_record_that_was_not_written_whole_costs_its_own_domain_a_restart() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let path = ward.at("run/clinical/vmm.json");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let agent = ward.start_agent();
    ward.wait("another VMM", || {
        let clinical = ward.domain("clinical");
        clinical["state"] == "running" && clinical["pid"].as_i64() != Some(pids[0])
    });
    assert!(!alive(pids[0]));
    assert_eq!(ward.pid("internet"), pids[1]);
    agent.stop();
}

#[test]
fn of_two_agents_that_come_at_once_one_takes_up_the_guests_and_the_other_touches_nothing() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let mut both = [ward.agent_command(), ward.agent_command()]
        .map(|mut command| command.stderr(std::process::Stdio::null()).spawn().unwrap());
    let until = Instant::now() + PATIENCE;
    while both.iter_mut().filter_map(|agent| agent.try_wait().unwrap()).count() != 1 {
        assert!(Instant::now() < until, "none was refused");
        thread::sleep(Duration::from_millis(20));
    }
    ward.wait("the other to answer", || ward.bulkhead(&["status"]).status.code() != Some(2));
    assert_eq!(DOMAINS.map(|domain| ward.pid(domain)), pids);
    let [one, other] = &mut both;
    let stays = if one.try_wait().unwrap().is_none() { one } else { other };
    kill(Pid::from_raw(i32::try_from(stays.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(stays.wait().unwrap().success());
    assert!(!pids.into_iter().any(alive));
}

#[test]
fn a_domain_whose_machine_file_changed_runs_on_and_is_said_to_until_it_is_restarted() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let machine = MACHINE.replacen("kernel =", "cpus = 2\nkernel =", 1);
    fs::write(ward.at("machine.toml"), machine).unwrap();
    let agent = ward.start_agent();
    assert_eq!(DOMAINS.map(|domain| ward.pid(domain)), pids);
    let notes = || ward.status()["notes"].to_string();
    assert!(notes().contains("clinical runs as it was started"), "{}", notes());
    assert_eq!(ward.bulkhead(&["restart", "clinical"]).status.code(), Some(0));
    assert!(!notes().contains("clinical runs as it was started"), "{}", notes());
    // A link of another version is not spoken, and its guest runs on.
    agent.kill();
    forge(&ward, "clinical", |record| record["link"] = 99.into());
    let agent = ward.start_agent();
    assert!(
        notes().contains("clinical is run by a bulkhead-vmm of another version"),
        "{}",
        notes()
    );
    assert_eq!(ward.domain("clinical")["state"], "running");
    agent.stop();
}

// Shows: I-5.
#[test]
fn a_vmm_of_one_link_version_up_or_down_runs_on_until_its_own_desktop_is_restarted() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let versions = [seat_link::VERSION - 1, seat_link::VERSION + 1];
    for (domain, version) in DOMAINS.into_iter().zip(versions) {
        forge(&ward, domain, |record| record["link"] = version.into());
    }
    let agent = ward.start_agent();
    let told = |domain: &str| {
        let note = format!("{domain} is run by a bulkhead-vmm of another version");
        ward.status()["notes"].to_string().contains(&note)
    };
    for (domain, pid) in DOMAINS.into_iter().zip(pids) {
        assert!(told(domain), "{domain}");
        let found = ward.domain(domain);
        assert_eq!((found["state"].as_str(), found["pid"].as_i64()), (Some("running"), Some(pid)));
        assert_eq!(ward.events(domain).len(), 1, "nothing was asked of its guest");
    }
    assert_eq!(ward.bulkhead(&["restart", "clinical"]).status.code(), Some(0));
    assert_ne!(ward.pid("clinical"), pids[0]);
    assert_eq!(ward.pid("internet"), pids[1]);
    assert!(!told("clinical") && told("internet"));
    ward.wait("the record", || record(&ward, "clinical")["answered"] == true);
    assert_eq!(record(&ward, "clinical")["link"], seat_link::VERSION);
    assert_eq!(record(&ward, "internet")["link"], versions[1]);
    agent.stop();
    assert!(!pids.into_iter().any(alive));
    verified(&ward);
}

#[test]
fn a_vmm_of_a_domain_that_there_is_not_any_more_is_ended() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    agent.kill();
    let machine = fs::read_to_string(ward.at("machine.toml")).unwrap();
    let external = machine.replace(
        "[domain.internet]\nkernel = \"vmlinuz\"",
        "[domain.internet]\nvmm = \"external\"",
    );
    assert_ne!(external, machine);
    fs::write(ward.at("machine.toml"), external).unwrap();
    let agent = ward.start_agent();
    assert_eq!(ward.pid("clinical"), pids[0]);
    ward.wait("its end", || !alive(pids[1]));
    assert_eq!(ward.events("internet")[1..], ["power-button"]);
    ward.wait("its record's", || !ward.at("run/internet/vmm.json").exists());
    agent.stop();
}

#[test]
fn a_domain_that_was_stopped_stays_off_when_the_agent_is_killed_and_runs_after_an_orderly_end() {
    let ward = Ward::new(MACHINE);
    let (agent, pids) = running_in(&ward);
    assert_eq!(ward.bulkhead(&["stop", "internet"]).status.code(), Some(0));
    agent.kill();
    let agent = ward.start_agent();
    assert_eq!(ward.pid("clinical"), pids[0]);
    ward.wait_for_state("internet", "off");
    // Its guest switches itself off, and is left off as well.
    end_in_order(&ward, "clinical", pids[0]);
    ward.wait_for_state("clinical", "off");
    agent.kill();
    let agent = ward.start_agent();
    DOMAINS.iter().for_each(|domain| ward.wait_for_state(domain, "off"));
    assert_eq!(ward.bulkhead(&["start", "internet"]).status.code(), Some(0));
    agent.kill();
    let agent = ward.start_agent();
    assert_eq!(ward.domain("internet")["state"], "running");
    assert_eq!(agent.stop().code(), Some(0));
    let (agent, _) = running_in(&ward);
    agent.stop();
}

#[test]
fn what_was_begun_with_a_domain_when_the_agent_was_killed_is_brought_to_its_end() {
    for (command, goes_on) in [("stop", "off"), ("restart", "running")] {
        for ends in [false, true] {
            let ward = Ward::new(MACHINE);
            ward.behave("internet", "ignore");
            let (agent, pids) = running_in(&ward);
            let mut asking = ward.bulkhead_command(&[command, "internet"]).spawn().unwrap();
            ward.wait_for_state("internet", "stopping");
            agent.kill();
            asking.wait().unwrap();
            ward.behave("internet", "obey");
            if ends {
                end_in_order(&ward, "internet", pids[1]);
            }
            let agent = ward.start_agent();
            ward.wait("what was begun", || {
                let internet = ward.domain("internet");
                internet["state"] == goes_on && internet["pid"].as_i64() != Some(pids[1])
            });
            assert!(!alive(pids[1]));
            assert_eq!(ward.pid("clinical"), pids[0]);
            agent.stop();
        }
    }
}

// Shows: I-4.
#[test]
fn a_pc_that_was_locked_when_its_agent_was_killed_is_locked() {
    let ward = Ward::new(MACHINE);
    let (agent, _) = running_in(&ward);
    let seat = || ward.status()["seat"].clone();
    assert_eq!(ward.bulkhead(&["switch", "internet"]).status.code(), Some(0));
    ward.wait("the switch", || seat()["front"] == "internet");
    assert_eq!(ward.bulkhead(&["lock"]).status.code(), Some(0));
    ward.wait("the lock", || seat()["locked"] == true);
    agent.kill();
    let agent = ward.start_agent();
    assert_eq!((&seat()["locked"], &seat()["front"]), (&json!(true), &json!("internet")));
    agent.kill();
    // Nobody can say how it was left: there are guests, and so it is locked.
    fs::remove_file(ward.at("run/seat.json")).unwrap();
    let agent = ward.start_agent();
    ward.wait("the lock", || seat()["locked"] == true);
    // One that was left in order begins anew, with its guests.
    agent.stop();
    let agent = ward.start_agent();
    assert_eq!((&seat()["locked"], &seat()["front"]), (&json!(false), &json!("clinical")));
    agent.stop();
}
