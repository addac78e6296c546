//! Whether one domain can be kept from starving another of the disk, and whether anybody would hear of one that presses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::disks::{DISKS_MAX, Disks, number};
use super::{Finding, SystemPaths, cgroup_mount, text};
use config::machine::{Kind, Machine};

/// Examines whether the kernel tells how long domains wait (pressure stall information).
pub(super) fn stall_information(system: &SystemPaths) -> Finding {
    let check = "pressure";
    match system.proc_text("pressure/cpu") {
        Some(_) => Finding::ok(
            check,
            "the kernel tells how long domains wait for processor, memory and disk",
        ),
        None => Finding::warn(
            check,
            "the kernel does not tell what domains wait for (/proc/pressure): one that presses is said nowhere",
            "add psi=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub`, and restart; a kernel that still has no /proc/pressure is built without CONFIG_PSI",
        ),
    }
}

/// Examines, for each disk that domains' images are on, whether the weight of their I/O counts there.
pub(super) fn weights(system: &SystemPaths, machine: &Machine) -> Vec<Finding> {
    let check = "io-weight";
    let mut on: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for domain in &machine.domains {
        let Kind::Vm(vm) = &domain.kind else { continue };
        for number in vm.disks.iter().filter_map(|disk| number(&disk.path)) {
            let device = system.sysfs.path("dev/block").join(&number);
            for disk in Disks::below(&device).names {
                on.entry(disk).or_default().insert(&domain.name);
            }
        }
    }
    let costs = cost_models(system);
    let finding = |(disk, domains): (String, BTreeSet<&str>)| {
        let block = system.sysfs.path("block").join(&disk);
        let names = domains.into_iter().collect::<Vec<_>>().join(", ");
        let scheduler = text(&block.join("queue/scheduler"));
        let model = text(&block.join("dev")).is_some_and(|number| costs.contains(&number));
        let found = match scheduler.as_deref() {
            _ if model => {
                Finding::ok(check, "the kernel's cost model weighs what domains read and write")
            }
            Some(scheduler) if scheduler.contains("[bfq]") => {
                Finding::ok(check, "its scheduler bfq weighs what domains read and write")
            }
            Some(scheduler) => Finding::warn(
                check,
                format!(
                    "nothing weighs what {names} read and write (scheduler: {scheduler}): a domain that hammers the disk slows the others down"
                ),
                format!(
                    "`echo bfq > /etc/modules-load.d/bfq.conf`, and in /etc/udev/rules.d/60-bulkhead-disk.rules: ACTION==\"add|change\", KERNEL==\"{disk}\", ATTR{{queue/scheduler}}=\"bfq\"; then restart"
                ),
            ),
            None => Finding::warn(
                check,
                "not looked at: the kernel does not name its scheduler",
                format!("see why {} cannot be read", block.join("queue/scheduler").display()),
            ),
        };
        found.of(&disk)
    };
    on.into_iter().take(DISKS_MAX).map(finding).collect()
}

/// Returns the numbers of the disks for which the kernel's cost model is on (`io.cost.qos` of the first cgroup).
fn cost_models(system: &SystemPaths) -> BTreeSet<String> {
    let mounts = system.proc_text("self/mounts").unwrap_or_default();
    let Some(point) = cgroup_mount(&mounts) else { return BTreeSet::new() };
    let models = text(&Path::new(point).join("io.cost.qos")).unwrap_or_default();
    let on = models.lines().filter(|line| line.split(' ').any(|word| word == "enable=1"));
    on.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use config::machine::Context;
    use control::findings::Level;

    use super::*;
    use crate::fake::Pc;

    /// A PC whose images are on this machine's own file system, of which it says that it is a partition, on a volume, or on a whole disk.
    struct PcWithImages {
        pc: Pc,
        machine: Machine,
        number: String,
    }

    impl PcWithImages {
        fn new() -> Self {
            let pc = Pc::new();
            let dir = pc.files.dir.path().to_owned();
            fs::write(dir.join("root.img"), "x").unwrap();
            let text = "format = 1\n[domain.clinical]\nkernel = \"k\"\ndisks = [ { path = \"root.img\" }, { path = \"gone.img\" } ]\n";
            let context = Context { images: &dir, domain_policies: None };
            let machine = Machine::parse("machine.toml", text, context).unwrap();
            let number = number(&dir.join("root.img")).unwrap();
            Self { pc, machine, number }
        }

        fn sys(&self, below: &str) -> PathBuf {
            let path = self.pc.system.sysfs.path(below);
            fs::create_dir_all(&path).unwrap();
            path
        }

        fn disk(&self, name: &str, number: &str, scheduler: &str) -> PathBuf {
            let disk = self.sys(&format!("block/{name}"));
            fs::create_dir_all(disk.join("queue")).unwrap();
            fs::write(disk.join("queue/scheduler"), scheduler).unwrap();
            fs::write(disk.join("dev"), number).unwrap();
            disk
        }

        /// The images are there.
        fn images_on(&self, device: &Path) {
            symlink(device, self.sys("dev/block").join(&self.number)).unwrap();
        }

        fn found(&self) -> Vec<(Level, String)> {
            let findings = weights(&self.pc.system, &self.machine).into_iter();
            findings.map(|found| (found.level, found.subject.unwrap())).collect()
        }
    }

    #[test]
    fn a_disk_on_which_the_domains_weights_count_for_nothing_is_named_with_the_remedy() {
        let pc = PcWithImages::new();
        let disk = pc.disk("sda", "8:0\n", "[mq-deadline] none bfq\n");
        let part = disk.join("sda2");
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("partition"), "2\n").unwrap();
        pc.images_on(&part);
        let findings = weights(&pc.pc.system, &pc.machine);
        assert_eq!(pc.found(), [(Level::Warn, "sda".to_owned())]);
        assert!(findings[0].message.contains("clinical"), "{}", findings[0].message);
        assert!(findings[0].remedy.as_ref().unwrap().contains("KERNEL==\"sda\""));
        pc.disk("sda", "8:0\n", "mq-deadline none [bfq]\n");
        assert_eq!(pc.found(), [(Level::Ok, "sda".to_owned())]);
    }

    #[test]
    fn of_a_volume_the_disks_below_it_are_looked_at() {
        let pc = PcWithImages::new();
        let volume = pc.disk("dm-0", "253:0\n", "none\n");
        for (name, number, scheduler) in
            [("nvme0n1", "259:0\n", "[none] bfq\n"), ("sdb", "8:16\n", "[bfq]\n")]
        {
            let disk = pc.disk(name, number, scheduler);
            fs::create_dir_all(volume.join("slaves")).unwrap();
            symlink(&disk, volume.join("slaves").join(name)).unwrap();
        }
        pc.images_on(&volume);
        assert_eq!(
            pc.found(),
            [(Level::Warn, "nvme0n1".to_owned()), (Level::Ok, "sdb".to_owned())]
        );
        // One that is made of itself is no endless one.
        symlink(&volume, volume.join("slaves/dm-0")).unwrap();
        assert_eq!(pc.found().len(), 2);
    }

    #[test]
    fn the_kernels_cost_model_weighs_too_where_it_is_on_for_that_disk() {
        let pc = PcWithImages::new();
        let disk = pc.disk("sda", "8:0\n", "[none]\n");
        pc.images_on(&disk);
        let group = pc.pc.files.dir.path().join("cgroup");
        fs::create_dir_all(&group).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", group.display());
        fs::write(pc.pc.system.proc.join("self/mounts"), mounts).unwrap();
        fs::write(group.join("io.cost.qos"), "8:0 enable=0 ctrl=auto\n8:16 enable=1 ctrl=user\n")
            .unwrap();
        assert_eq!(pc.found()[0].0, Level::Warn);
        fs::write(group.join("io.cost.qos"), "8:0 enable=1 ctrl=user\n").unwrap();
        assert_eq!(pc.found()[0].0, Level::Ok);
    }

    #[test]
    fn images_on_no_disk_are_no_finding_and_a_scheduler_that_is_not_named_is_not_taken_for_one() {
        let pc = PcWithImages::new();
        assert_eq!(pc.found(), []);
        let disk = pc.sys("block/sda");
        pc.images_on(&disk);
        let findings = weights(&pc.pc.system, &pc.machine);
        assert_eq!(findings[0].level, Level::Warn);
        assert!(findings[0].message.starts_with("not looked at"));
    }

    #[test]
    fn a_kernel_that_does_not_tell_what_domains_wait_for_is_named() {
        let pc = Pc::new();
        assert_eq!(stall_information(&pc.system).level, Level::Warn);
        fs::create_dir_all(pc.system.proc.join("pressure")).unwrap();
        fs::write(pc.system.proc.join("pressure/cpu"), "some avg10=0.00\n").unwrap();
        assert_eq!(stall_information(&pc.system).level, Level::Ok);
    }
}
