//! What happens to a passed-through function while a guest has it: its link fails, the host wants it back.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::ward::{CLINICAL_NIC, SLOT, Ward};
use tests::ward_test;
use tests::{Guest, Outcome, ensure};

/// Where a card in the slot is.
const SLOT_NIC: &str = "0000:01:00.0";
const SOON: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut there: impl FnMut() -> Outcome<bool>) -> Outcome {
    let start = Instant::now();
    while !there()? {
        ensure!(start.elapsed() < tests::patience::patience(SOON), "{what} after {SOON:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn logged(ward: &Ward, guest: &Guest<'_>, what: &str) -> Outcome<bool> {
    Ok(ward.pc.tail(&format!("/run/{}/vmm.log", guest.name)).contains(what))
}

#[ward_test]
fn a_link_error_of_a_passed_through_card_is_reported_and_the_guest_loses_the_card_until_its_reset(
    ward: &Ward,
) -> Outcome {
    let mut qmp = ward.pc.qmp()?;
    // QEMU's e1000e cannot be told to report errors; its virtio cards can.
    let card = json!({"driver": "virtio-net-pci", "id": "card", "bus": SLOT, "romfile": "", "disable-legacy": "on",
        "iommu_platform": true, "aer": true});
    qmp.execute("device_add", card)?;
    let result = (|| {
        wait_until("no card in the slot", || {
            Ok(ward.pc.sh(&format!("[ -e /sys/bus/pci/devices/{SLOT_NIC}/iommu_group ]")).is_ok())
        })?;
        // QEMU's cards send no error message without SERR#, which the PC's firmware leaves off here (command register, bit 8).
        ward.pc.sh(&format!(
            "printf '\\001' | dd of=/sys/bus/pci/devices/{SLOT_NIC}/config bs=1 seek=5 conv=notrunc 2>/dev/null"
        ))?;
        ward.pc.bind_vfio(SLOT_NIC)?;
        let guest = Guest::start(&ward.pc, "aer", &["--vfio", SLOT_NIC])?;
        let interface = guest.probe.interface()?;
        ensure!(interface["driver"] == "virtio_net", "{interface}");
        ensure!(!logged(ward, &guest, "(AER)")?, "an error before there was one");

        qmp.monitor("pcie_aer_inject_error card COMP_TIME")?;
        wait_until("nothing is said of the error", || logged(ward, &guest, "(AER)"))?;
        // The guest goes on, without the card.
        guest.probe.ask(json!({"op": "timing"}))?;
        let status = guest.api("status")?;
        ensure!(status["state"] == "running", "{status}");

        // From outside: virtio's driver waits for ever for a card that is not there to be reset.
        guest.api("reset")?;
        wait_until("no reset", || Ok(guest.api("status")?["resets"] == 1))?;
        guest.probe.wait_ready()?;
        let interface = guest.probe.interface()?;
        ensure!(interface["driver"] == "virtio_net", "after the reset: {interface}");
        guest.power_off()
    })();
    ward.pc.release_vfio(SLOT_NIC)?;
    qmp.unplug("card")?;
    result
}

#[ward_test]
fn a_passed_through_card_is_given_back_when_the_host_asks_and_its_guest_goes_on(
    ward: &Ward,
) -> Outcome {
    ward.pc.bind_vfio(CLINICAL_NIC)?;
    let result = (|| {
        let guest = Guest::start(&ward.pc, "asked", &["--vfio", CLINICAL_NIC])?;
        ensure!(guest.probe.interface()?["driver"] == "e1000e", "no card to begin with");
        // Returns when the card is given back, and not before.
        ward.pc.sh(&format!("echo {CLINICAL_NIC} > /sys/bus/pci/drivers/vfio-pci/unbind"))?;
        ensure!(
            logged(ward, &guest, "wants a passed-through function back and has it")?,
            "{}",
            guest.logs()
        );
        let links = format!("ls -l /proc/{}/fd | grep -c vfio-device; true", guest.pid);
        let open = ward.pc.sh(&links)?;
        ensure!(open.trim() == "0", "the VMM has {open} passed-through devices open");
        guest.probe.ask(json!({"op": "timing"}))?;
        guest.probe.ask(json!({"op": "reboot"}))?;
        wait_until("no reset", || Ok(guest.api("status")?["resets"] == 1))?;
        guest.probe.wait_ready()?;
        guest.power_off()
    })();
    ward.pc.release_vfio(CLINICAL_NIC)?;
    result
}
