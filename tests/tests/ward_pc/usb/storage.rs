//! Sticks that may be read.

use std::fs;

use serde_json::json;
use tests::agent::Agent;
use tests::ward::Ward;
use tests::{Outcome, ensure};

use super::{MIB, Ports, disk_in, is_attached, no_disk_on_host, run, sum_of, wait_for};

pub(super) fn read_only(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    ward.pc.progress("a stick of the hospital's: 64 MiB are read");
    let pattern: Vec<u8> =
        (0u32..16 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let medium = ports.medium("patient");
    fs::write(&medium, &pattern[..64 * MIB])?;
    let before = sum_of(&medium)?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick in the clinical domain", is_attached("read-only"))?;
    no_disk_on_host(ward)?;
    let coming = ward.pc.sh("cat /sys/module/usbcore/parameters/authorized_default")?;
    ensure!(coming.trim() == "0", "controllers that come later start with {coming}");
    disk_in(&clinical, true)?;
    let (sum, _) = run(&clinical, "sha256sum /dev/sda")?;
    ensure!(sum.starts_with(&before), "read {sum}, on the stick is {before}");
    ensure!(run(&clinical, "[ $(cat /sys/block/sda/ro) = 1 ]")?.1, "it is not shown as protected");
    disk_in(&internet, false)?;

    ward.pc.progress("nothing the guest does writes to it");
    for attempt in [
        "dd if=/dev/zero of=/dev/sda bs=4k count=1 conv=fsync",
        // What a hostile kernel would do: its own protection switched off.
        "blockdev --setrw /dev/sda && echo 0 > /sys/block/sda/device/allow_restart; blockdev --setrw /dev/sda; dd if=/dev/zero of=/dev/sda bs=64k count=4 conv=fsync",
        "mke2fs -F /dev/sda",
    ] {
        let (output, done) = run(&clinical, attempt)?;
        ensure!(!done, "`{attempt}` succeeded: {output}");
    }
    // Past its own kernel's protection: WRITE (10) and (16), UNMAP, FORMAT UNIT, ATA PASS-THROUGH, a vendor's own.
    for (cdb, out) in [
        (vec![0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], 4096),
        (vec![0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 4096),
        (vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 24),
        (vec![0x04, 0, 0, 0, 0, 0], 0),
        (vec![0xa1, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0x35, 0, 0], 512),
        (vec![0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 512),
    ] {
        let question = json!({"op": "scsi", "device": "/dev/sda", "cdb": cdb, "out": out});
        let answer = clinical.ask(question)?;
        let protect = answer["status"] == 2 && answer["key"] == 7 && answer["asc"] == 0x27;
        ensure!(protect, "{cdb:02x?} is answered with {answer}");
    }
    let (sum, _) =
        run(&clinical, "echo 3 > /proc/sys/vm/drop_caches; head -c 1048576 /dev/sda | sha256sum")?;
    let first = {
        let part = ward.pc.dir().join("part");
        fs::write(&part, &pattern[..MIB])?;
        sum_of(&part)?
    };
    ensure!(sum.starts_with(&first), "after that it reads {sum}");

    ward.pc.progress("pulled while it is read");
    clinical.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c",
        "(dd if=/dev/sda of=/dev/null bs=64k; true) > /dev/null 2>&1 &"]}))?;
    ports.pull("patient")?;
    disk_in(&clinical, false)?;
    ensure!(sum_of(&medium)? == before, "the stick is not what it was");
    Ok(())
}
