//! `bulkhead-vmm` by itself.

use std::time::Duration;

use serde_json::{Value, json};
use tests::confinement::is_nobody_nowhere;
use tests::ward_test;
use tests::{Guest, Outcome, ensure};

use tests::ward::{CLINICAL_NIC, Ward};

const MINUTE: Duration = Duration::from_secs(60);
/// Whom a VMM runs as that somebody starts by hand.
const NOBODY: u32 = 65_534;

#[ward_test]
fn the_pc_has_nested_virtualisation_and_an_iommu_group_for_each_nic(ward: &Ward) -> Outcome {
    ward.pc.sh("[ -c /dev/kvm ] && [ -c /dev/vfio/vfio ]")?;
    for nic in [CLINICAL_NIC, tests::ward::INTERNET_NIC] {
        let members = ward.pc.sh(&format!("ls /sys/bus/pci/devices/{nic}/iommu_group/devices"))?;
        ensure!(members.trim() == nic, "the group of {nic} holds {members}");
    }
    Ok(())
}

fn boots(ward: &Ward, kernel: &str) -> Outcome {
    let guest = Guest::start_kernel(&ward.pc, "boot", kernel, &[])?;
    let timing = guest.probe.ask(json!({"op": "timing"}))?;
    ensure!(timing["clocksource"] == "kvm-clock", "{timing}");
    let status = guest.api("status")?;
    ensure!(status["state"] == "running" && status["vcpus"] == 1, "{status}");
    guest.power_off()
}

#[ward_test]
fn a_guest_boots_from_a_bzimage_and_powers_off(ward: &Ward) -> Outcome {
    boots(ward, "/share/vmlinuz")
}

#[ward_test]
fn a_guest_boots_from_a_pvh_elf_and_powers_off(ward: &Ward) -> Outcome {
    boots(ward, "/share/vmlinux")
}

#[ward_test]
fn every_vcpu_of_an_smp_guest_comes_up(ward: &Ward) -> Outcome {
    let guest = Guest::start(&ward.pc, "smp", &["--cpus", "4"])?;
    let cpus = guest.probe.ask(json!({"op": "cpus"}))?;
    ensure!(cpus["online"] == "0-3", "{cpus}");
    guest.power_off()
}

#[ward_test(also_with_39_bit_addresses)]
fn a_guest_uses_its_memory_on_both_sides_of_the_hole(ward: &Ward) -> Outcome {
    // The hole begins at 3 GiB. What is touched is more than lies on either side: of the smaller one above it, which Linux gives out first, in the
    // ordinary run.
    let (all, seen, touched) =
        if tests::runner::is_in_full() { ("5G", 4800, 3500) } else { ("3328M", 3000, 600) };
    let guest = Guest::start(&ward.pc, "big", &["--memory", all])?;
    let memory = guest.probe.ask(json!({"op": "memory"}))?;
    let mib = memory["total_kib"].as_u64().unwrap_or(0) / 1024;
    ensure!(mib > seen, "the guest sees {mib} MiB");
    guest.probe.ask(json!({"op": "touch-memory", "mib": touched}))?;
    guest.power_off()
}

#[ward_test(shows = ["K-1.3.3", "K-5.2.4"])]
fn a_running_vmm_is_nobody_nowhere_and_may_do_nothing(ward: &Ward) -> Outcome {
    let guest = Guest::start(&ward.pc, "sandbox", &[])?;
    let proc = format!("/proc/{}", guest.pid);
    is_nobody_nowhere(&ward.pc, &proc, NOBODY)?;
    // What its mount namespace has at the root, wherever a process in it thinks its own root is: nothing of the PC's. A root that was only changed
    // with chroot(2) would leave the PC's file system there.
    let in_namespace = |pid: &str| {
        let argv = ["/bin/busybox", "nsenter", "-t", pid, "-m", "/bin/busybox", "true"];
        ward.pc.exec(&argv, MINUTE)
    };
    ensure!(in_namespace("1")?.status == Some(0), "nsenter itself does not work");
    let entered = in_namespace(&guest.pid.to_string())?;
    ensure!(
        entered.status != Some(0) && entered.stderr.contains("No such file"),
        "the PC's file system is still in its mount namespace: {entered:?}"
    );
    // Every file it has open was opened before: no directory, nothing of /etc.
    let files = ward.pc.sh(&format!("ls -l {proc}/fd"))?;
    ensure!(!files.contains("/etc/") && files.contains("/share/vmlinux"), "{files}");
    guest.power_off()
}

fn wrong_at(guest: &Guest<'_>, device: &str, seed: u64) -> Outcome<Value> {
    let question = json!({"op": "blk-verify", "device": device, "mib": 16, "seed": seed});
    Ok(guest.probe.ask(question)?["wrong_at"].clone())
}

#[ward_test]
fn disks_keep_what_was_flushed_when_the_vmm_loses_power(ward: &Ward) -> Outcome {
    ward.pc.sh(
        "for d in a b ro; do dd if=/dev/zero of=/tmp/$d.img bs=1M count=32 2>/dev/null; done",
    )?;
    let disks = [
        "--disk",
        "path=/tmp/a.img,id=first",
        "--disk",
        "path=/tmp/b.img",
        "--disk",
        "path=/tmp/ro.img,readonly",
    ];
    let guest = Guest::start(&ward.pc, "disks", &disks)?;
    let devices = guest.probe.ask(json!({"op": "block-devices"}))?;
    ensure!(devices["devices"][0]["id"] == "first", "{devices}");
    ensure!(devices["devices"][2]["read_only"] == true, "{devices}");
    ensure!(devices["devices"][1]["bytes"] == 32 << 20, "{devices}");
    for (device, seed) in [("/dev/vda", 1), ("/dev/vdb", 2)] {
        guest.probe.ask(json!({"op": "blk-write", "device": device, "mib": 16, "seed": seed}))?;
    }
    let refused =
        guest.probe.ask(json!({"op": "blk-write", "device": "/dev/vdc", "mib": 1, "seed": 3}));
    ensure!(refused.is_err(), "a read-only disk was written");
    guest.kill()?;
    let guest = Guest::start(&ward.pc, "disks", &disks)?;
    for (device, seed) in [("/dev/vda", 1), ("/dev/vdb", 2)] {
        let wrong = wrong_at(&guest, device, seed)?;
        ensure!(wrong.is_null(), "{device} lost what was flushed, from MiB {wrong}");
    }
    ensure!(!wrong_at(&guest, "/dev/vda", 2)?.is_null(), "the check itself finds nothing");
    guest.power_off()?;
    let zeroes = ward.pc.sh("tr -d '\\000' < /tmp/ro.img | wc -c")?;
    ensure!(zeroes.trim() == "0", "the read-only image changed");
    Ok(())
}

#[ward_test(shows = ["K-3.3.2"])]
fn a_disk_in_use_is_refused_to_a_second_vmm(ward: &Ward) -> Outcome {
    ward.pc.sh("dd if=/dev/zero of=/tmp/lock.img bs=1M count=4 2>/dev/null")?;
    let guest = Guest::start(&ward.pc, "lock", &["--disk", "path=/tmp/lock.img"])?;
    let second = ward.pc.exec(
        &[
            tests::guest::VMM,
            "run",
            "--kernel",
            "/share/vmlinuz",
            "--serial",
            "null",
            "--disk",
            "path=/tmp/lock.img",
        ],
        MINUTE,
    )?;
    ensure!(second.status == Some(1), "{second:?}");
    ensure!(second.stderr.contains("/tmp/lock.img") && second.stderr.contains("use"), "{second:?}");
    guest.power_off()
}

#[ward_test]
fn a_guest_on_a_tap_reaches_the_host_and_is_reached(ward: &Ward) -> Outcome {
    ward.pc.make_tap("tap0")?;
    ward.pc.sh("ip addr add 192.168.9.1/24 dev tap0 && ip link set tap0 up")?;
    let result = (|| {
        let guest = Guest::start(&ward.pc, "tap", &["--net", "tap=tap0,mac=52:54:00:99:00:02"])?;
        let interface = guest.probe.interface()?;
        ensure!(interface["mac"] == "52:54:00:99:00:02", "{interface}");
        ensure!(interface["driver"] == "virtio_net", "{interface}");
        guest.probe.configure("192.168.9.2/24")?;
        ensure!(guest.probe.reaches("192.168.9.1")?, "the guest does not reach the host");
        ward.pc.sh("ping -c 2 -W 2 192.168.9.2")?;
        // 8 MiB through TCP, checked by their sum.
        ward.pc.sh(
            "mkdir -p /tmp/www; dd if=/dev/urandom of=/tmp/www/payload bs=1M count=8 2>/dev/null",
        )?;
        let server = ward.pc.spawn(
            &["/bin/busybox", "httpd", "-f", "-p", "7000", "-h", "/tmp/www"],
            "/tmp/httpd.log",
        )?;
        let command = "wget -q -O - http://192.168.9.1:7000/payload | md5sum";
        let sum =
            guest.probe.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", command]}))?;
        ward.pc.sh(&format!("kill {server}"))?;
        let wanted = ward.pc.sh("md5sum < /tmp/www/payload")?;
        ensure!(
            sum["output"].as_str().map(str::trim) == Some(wanted.trim()),
            "{sum} is not {wanted}"
        );
        guest.power_off()
    })();
    ward.pc.sh("ip link del tap0")?;
    result
}

#[ward_test(shows = ["K-5.2.3"])]
fn a_console_port_nobody_reads_stalls_nobody(ward: &Ward) -> Outcome {
    let ports = [
        "--port",
        "name=org.x.idle,socket=/run/idle.sock",
        "--port",
        "name=org.x.gone,socket=/run/gone.sock",
    ];
    let guest = Guest::start(&ward.pc, "ports", &ports)?;
    // A client that connects and never reads, and a port nobody connects to.
    let holder = ward.pc.spawn(
        &[
            "/bin/busybox",
            "sh",
            "-c",
            "exec 3<>/dev/null; sleep 600 | nc local:/run/idle.sock | sleep 600",
        ],
        "/tmp/holder.log",
    )?;
    for port in ["org.x.idle", "org.x.gone"] {
        guest.probe.ask(json!({"op": "flood-port", "port": port, "bytes": 64 << 20}))?;
    }
    for _ in 0..20 {
        guest.probe.ask(json!({"op": "timing"}))?;
    }
    let rss = resident_kib(ward, guest.pid)?;
    ensure!(rss < 600 << 10, "the VMM buffers without bound: {rss} KiB resident");
    ward.pc.sh(&format!("kill {holder} 2>/dev/null; true"))?;
    guest.probe.ask(json!({"op": "timing"}))?;
    guest.power_off()
}

#[ward_test]
fn the_power_button_powers_a_guest_off(ward: &Ward) -> Outcome {
    let guest = Guest::start(&ward.pc, "button", &[])?;
    ensure!(guest.api("power-button")?["ok"] == true, "refused");
    ensure!(guest.wait(MINUTE)? == 0, "{}", guest.logs());
    let printed = ward.pc.tail("/run/button/serial.log");
    ensure!(printed.contains("PROBE-POWER-BUTTON"), "{printed}");
    let guest = Guest::start(&ward.pc, "button", &[])?;
    ward.pc.sh(&format!("kill {}", guest.pid))?;
    ensure!(guest.wait(MINUTE)? == 0, "SIGTERM: {}", guest.logs());
    Ok(())
}

#[ward_test]
fn a_paused_guest_answers_again_when_resumed(ward: &Ward) -> Outcome {
    let guest = Guest::start(&ward.pc, "pause", &["--cpus", "2"])?;
    ensure!(guest.api("pause")?["ok"] == true, "refused");
    ensure!(guest.api("status")?["state"] == "paused", "not paused");
    ensure!(guest.api("pause")?["ok"] == false, "paused twice");
    let ticks = || ward.pc.sh(&format!("cut -d' ' -f14,15 /proc/{}/stat", guest.pid));
    let before = ticks()?;
    ward.pc.sh("sleep 1")?;
    ensure!(ticks()? == before, "a paused guest uses the processor");
    ensure!(guest.api("resume")?["ok"] == true, "refused");
    guest.probe.ask(json!({"op": "timing"}))?;
    guest.power_off()
}

fn resident_kib(ward: &Ward, pid: u64) -> Outcome<u64> {
    let line = ward.pc.sh(&format!("grep VmRSS /proc/{pid}/status"))?;
    Ok(line.split_whitespace().nth(1).and_then(|w| w.parse().ok()).ok_or("no VmRSS")?)
}

#[ward_test]
fn reboots_leak_neither_file_descriptors_nor_memory(ward: &Ward) -> Outcome {
    ward.pc.sh("dd if=/dev/zero of=/tmp/r.img bs=1M count=4 2>/dev/null")?;
    let guest = Guest::start(&ward.pc, "reboots", &["--cpus", "2", "--disk", "path=/tmp/r.img"])?;
    let files = || ward.pc.sh(&format!("ls /proc/{}/fd | wc -l", guest.pid));
    // Heap and stacks, without the guest's own RAM.
    let private = || -> Outcome<u64> {
        let awk = "/heap/ {on=1} on && /^Rss/ {sum+=$2; on=0} END {print sum+0}";
        Ok(ward.pc.sh(&format!("awk '{awk}' /proc/{}/smaps", guest.pid))?.trim().parse()?)
    };
    let mut settled = None;
    for round in 1..=if tests::runner::is_in_full() { 10u64 } else { 4 } {
        guest.probe.ask(json!({"op": "reboot"}))?;
        for _ in 0..200 {
            if guest.api("status")?["resets"] == round {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(guest.api("status")?["resets"] == round, "no reset {round}\n{}", guest.logs());
        guest.probe.wait_ready()?;
        if round == 2 {
            settled = Some((files()?, private()?));
        }
    }
    let (files_then, private_then) = settled.ok_or("no figures")?;
    let (files_now, private_now) = (files()?, private()?);
    ensure!(files_now == files_then, "{files_then} file descriptors became {files_now}");
    ensure!(private_now <= private_then + 64, "{private_then} KiB of heap became {private_now}");
    guest.power_off()
}

#[ward_test(shows = ["C-2"], also_with_39_bit_addresses)]
fn a_passed_through_nic_uses_msi_x_and_survives_a_reset_of_its_guest(ward: &Ward) -> Outcome {
    ward.pc.bind_vfio(CLINICAL_NIC)?;
    let result = (|| {
        let guest = Guest::start(&ward.pc, "vfio", &["--vfio", CLINICAL_NIC])?;
        for round in 0..2 {
            let interface = guest.probe.interface()?;
            ensure!(interface["mac"] == tests::ward::CLINICAL_MAC, "{interface}");
            ensure!(
                interface["driver"] == "e1000e" && interface["msi_kind"] == "msix",
                "{interface}"
            );
            guest.probe.configure("10.1.0.5/24")?;
            ensure!(guest.probe.reaches("10.1.0.1")?, "round {round}: the server is out of reach");
            if round == 0 {
                guest.probe.ask(json!({"op": "reboot"}))?;
                std::thread::sleep(Duration::from_secs(1));
                guest.probe.wait_ready()?;
            }
        }
        guest.power_off()
    })();
    ward.pc.release_vfio(CLINICAL_NIC)?;
    result
}
