//! What a person can get wrong: each ends with status 1, a message that says what to do, and nothing
//! half-done.

use std::time::Duration;

use tests::ward_test;
use tests::{Outcome, ensure};

use tests::ward::{CLINICAL_NIC, Ward};

/// Runs the VMM with these arguments and compares status and message.
fn refused(ward: &Ward, arguments: &[&str], status: i64, says: &[&str]) -> Outcome {
    let mut argv = vec!["/share/bulkhead-vmm", "run", "--serial", "null"];
    argv.extend(arguments);
    let output = ward.pc.exec(&argv, Duration::from_secs(30))?;
    ensure!(output.status == Some(status), "{arguments:?}: {output:?}");
    for word in says {
        ensure!(
            output.stderr.contains(word),
            "{arguments:?} does not say `{word}`: {}",
            output.stderr
        );
    }
    ensure!(!output.stderr.contains("panicked"), "{arguments:?}: {}", output.stderr);
    Ok(())
}

#[ward_test]
fn bad_kernels_initrds_and_command_lines_are_refused_with_a_remedy(ward: &Ward) -> Outcome {
    ward.pc.sh("cd /tmp; : > empty; head -c 5000 /dev/urandom > noise; head -c 100000 /share/vmlinuz > cut; truncate -s 600M huge")?;
    let kernel = ["--kernel", "/share/vmlinuz"];
    for (arguments, says) in [
        (vec!["--kernel", "/tmp/absent"], vec!["/tmp/absent", "no such file"]),
        (vec!["--kernel", "/tmp"], vec!["is a directory"]),
        (vec!["--kernel", "/tmp/empty"], vec!["is empty", "copy it again"]),
        (vec!["--kernel", "/tmp/noise"], vec!["not a kernel", "vmlinuz"]),
        (vec!["--kernel", "/tmp/cut"], vec!["cut off"]),
        ([&kernel[..], &["--initrd", "/tmp/absent"]].concat(), vec!["initrd /tmp/absent"]),
        ([&kernel[..], &["--initrd", "/tmp/huge"]].concat(), vec!["600 MiB", "raise --memory"]),
        ([&kernel[..], &["--memory", "64M"]].concat(), vec!["raise --memory"]),
    ] {
        refused(ward, &arguments, 1, &says)?;
    }
    let long = "x".repeat(3000);
    refused(ward, &[&kernel[..], &["--cmdline", &long]].concat(), 1, &["3000 bytes", "2047"])
}

#[ward_test]
fn bad_disks_are_refused_with_a_remedy(ward: &Ward) -> Outcome {
    let kernel = ["--kernel", "/share/vmlinuz", "--disk"];
    for (disk, says) in [
        ("path=/tmp/absent.img", vec!["/tmp/absent.img"]),
        ("path=/tmp", vec!["/tmp", "directory"]),
        ("path=/share/vmlinux", vec!["/share/vmlinux"]),
    ] {
        refused(ward, &[&kernel[..], &[disk]].concat(), 1, &says)?;
    }
    Ok(())
}

#[ward_test(shows = ["C-2"])]
fn functions_that_cannot_be_passed_through_are_refused_with_a_remedy(ward: &Ward) -> Outcome {
    let kernel = ["--kernel", "/share/vmlinuz", "--vfio"];
    refused(ward, &[&kernel[..], &["0000:00:1e.0"]].concat(), 1, &["0000:00:1e.0"])?;
    refused(ward, &[&kernel[..], &["5.0"]].concat(), 2, &["5.0"])?;
    refused(ward, &[&kernel[..], &[CLINICAL_NIC]].concat(), 1, &[CLINICAL_NIC, "vfio-pci"])?;
    // The south bridge itself, and its disk controller, which shares a group with it: whoever has a host
    // driver there is named, and where nobody has one the function is still not vfio-pci's.
    refused(ward, &[&kernel[..], &["0000:00:1f.0"]].concat(), 1, &["0000:00:1f.0", "ISA bridge"])?;
    let shared = ward.pc.sh("ls /sys/bus/pci/devices/0000:00:1f.2/iommu_group/devices")?;
    ensure!(shared.lines().count() > 1, "the simulated chipset has changed: {shared}");
    let in_use = ward.pc.sh(
        "for m in /sys/bus/pci/devices/0000:00:1f.2/iommu_group/devices/*; do case $m in *:1f.2) ;; *) [ -e $m/driver ] && echo ${m##*/};; esac; done; true",
    )?;
    let says = in_use.lines().next().unwrap_or("vfio-pci");
    refused(ward, &[&kernel[..], &["0000:00:1f.2"]].concat(), 1, &["0000:00:1f.2", says])
}

#[ward_test]
fn without_kvm_the_message_says_what_to_switch_on(ward: &Ward) -> Outcome {
    ward.pc.sh("mv /dev/kvm /dev/kvm.away")?;
    let result = refused(ward, &["--kernel", "/share/vmlinuz"], 1, &["/dev/kvm", "firmware setup"]);
    ward.pc.sh("mv /dev/kvm.away /dev/kvm")?;
    result
}

#[ward_test]
fn bad_usage_ends_with_status_2(ward: &Ward) -> Outcome {
    let kernel = ["--kernel", "/share/vmlinuz"];
    for (arguments, says) in [
        (vec![], "--kernel"),
        ([&kernel[..], &["--memory", "10M"]].concat(), "at least 64M"),
        ([&kernel[..], &["--memory", "4T"]].concat(), "512M or 4G"),
        ([&kernel[..], &["--cpus", "99"]].concat(), "99"),
        ([&kernel[..], &["--disk", "file=x"]].concat(), "path"),
    ] {
        refused(ward, &arguments, 2, &[says])?;
    }
    Ok(())
}
