//! Which processors each domain has to itself: whole cores, so that no two domains share one.
//!
//! ```text
//!  core     0      1      2      3          [domain.clinical] cores = 2
//!  CPUs   0, 4   1, 5   2, 6   3, 7         [domain.internet] cores = 1
//!         host   inter-  clinical           from the last core down, in the order of the domains
//! ```
//! The first core stays for the agent, the host and the domains that ask for none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::machine::{Kind, Machine, VmHardware};

/// Processors that are looked at; Linux is built for 8,192 at most.
const CPUS_MAX: usize = 8192;

/// The cores of this PC, each with the numbers of its processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cores(Vec<BTreeSet<u32>>);

/// What the machine file's `cores` come to on this PC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Domain by domain its processors, as `cpuset.cpus` takes them; `None` if it may use those of the others that ask for none.
    own: Vec<(String, Option<String>)>,
    /// What is left for who asks for none; `None` if nobody asks.
    rest: Option<String>,
}

/// The machine file asks for more cores than there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "machine.toml gives domains {wanted} whole cores, and this PC has {there}, of which one stays for Bulkhead and the host: lower `cores`, or take it out"
)]
pub struct TooFewCores {
    /// Cores that the domains are to have.
    pub wanted: usize,
    /// Cores of the PC.
    pub there: usize,
}

impl Cores {
    /// Reads the cores that are switched on from `devices/system/cpu` below `sysfs`; none if the kernel does not tell.
    #[must_use]
    pub fn read(sysfs: &Path) -> Self {
        let dir = sysfs.join("devices/system/cpu");
        let list = |path: &Path| fs::read_to_string(path).ok().and_then(|text| numbers(&text));
        let online = list(&dir.join("online")).unwrap_or_default();
        let mut cores: Vec<BTreeSet<u32>> = Vec::new();
        for cpu in online.iter().copied() {
            if cores.iter().any(|core| core.contains(&cpu)) {
                continue;
            }
            let siblings = list(&dir.join(format!("cpu{cpu}/topology/thread_siblings_list")));
            let mut core = siblings.unwrap_or_default();
            core.insert(cpu);
            cores.push(core.intersection(&online).copied().collect());
        }
        Self(cores)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives each domain of the machine file that asks for cores its own.
    ///
    /// # Errors
    /// There are too few.
    pub fn plan(&self, machine: &Machine) -> Result<Plan, TooFewCores> {
        let wants = machine.domains.iter().map(|domain| match &domain.kind {
            Kind::Vm(hardware) => (domain.name.clone(), hardware.cores),
            Kind::External => (domain.name.clone(), None),
        });
        let wants: Vec<(String, Option<u8>)> = wants.collect();
        let wanted = wants.iter().map(|(_, cores)| usize::from(cores.unwrap_or(0))).sum();
        if wanted == 0 {
            let own = wants.into_iter().map(|(name, _)| (name, None)).collect();
            return Ok(Plan { own, rest: None });
        }
        if wanted >= self.count() {
            return Err(TooFewCores { wanted, there: self.count() });
        }
        let mut free = self.0.clone();
        let mut give = |cores: u8| {
            let start = free.len().saturating_sub(usize::from(cores));
            cpu_list(free.split_off(start).into_iter().flatten())
        };
        let own = wants.into_iter().map(|(name, cores)| (name, cores.map(&mut give))).collect();
        Ok(Plan { own, rest: Some(cpu_list(free.into_iter().flatten())) })
    }
}

impl Plan {
    /// Returns the processors that a domain is kept to, as `cpuset.cpus` takes them; `None` if to none.
    #[must_use]
    pub fn of(&self, domain: &str) -> Option<&str> {
        let own = self.own.iter().find(|(name, _)| name == domain).map(|(_, own)| own.as_deref());
        own.flatten().or(self.rest.as_deref())
    }
}

/// Returns whether no two domains can meet on one core: each has cores of its own, but for one at most, and none is another VMM's, which nothing keeps
/// anywhere.
#[must_use]
pub fn keeps_all_apart(machine: &Machine) -> bool {
    let mut without = 0;
    for domain in &machine.domains {
        match &domain.kind {
            Kind::Vm(hardware) if hardware.cores.is_some() => {}
            Kind::Vm(_) => without += 1,
            Kind::External => return false,
        }
    }
    without <= 1 && machine.domains.len() > without
}

/// Returns the processors that a domain's VMM is kept to.
///
/// # Errors
/// It asks for cores, and there are too few: it cannot be started.
pub fn cpus_of(
    plan: &Result<Plan, TooFewCores>,
    hardware: &VmHardware,
    name: &str,
) -> Result<Option<String>, String> {
    match plan {
        Ok(plan) => Ok(plan.of(name).map(str::to_owned)),
        // Those that ask for nothing do not wait for a machine file that fits.
        Err(_) if hardware.cores.is_none() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns whether two lists as the kernel writes them (`0-3,8`) are of the same processors. One that is none is like no other.
#[must_use]
pub fn are_the_same(one: &str, other: &str) -> bool {
    numbers(one).is_some_and(|one| numbers(other) == Some(one))
}

/// Reads a list as the kernel writes it: `0-3,8`.
fn numbers(text: &str) -> Option<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        found.extend((first..=last).take(CPUS_MAX));
        if found.len() > CPUS_MAX {
            return None;
        }
    }
    Some(found)
}

fn cpu_list(cpus: impl Iterator<Item = u32>) -> String {
    let sorted: BTreeSet<u32> = cpus.collect();
    sorted.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Context;

    /// Makes a PC whose processors have these siblings.
    fn pc(online: &str, siblings: &[(u32, &str)]) -> Cores {
        let dir = tempfile::tempdir().unwrap();
        let cpus = dir.path().join("devices/system/cpu");
        fs::create_dir_all(&cpus).unwrap();
        fs::write(cpus.join("online"), format!("{online}\n")).unwrap();
        for (cpu, list) in siblings {
            let topology = cpus.join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), format!("{list}\n")).unwrap();
        }
        Cores::read(dir.path())
    }

    fn machine(clinical: &str, internet: &str) -> Machine {
        parse(&format!(
            "format = 1\n[domain.clinical]\nkernel = \"k\"\n{clinical}\n[domain.internet]\nkernel = \"k\"\n{internet}\n"
        ))
    }

    fn parse(text: &str) -> Machine {
        let context = Context { images: Path::new("/images"), domain_policies: None };
        Machine::parse("machine.toml", text, context).unwrap()
    }

    /// Makes four cores of two threads each.
    fn eight() -> Cores {
        let siblings: Vec<(u32, String)> =
            (0..8).map(|cpu| (cpu, format!("{},{}", cpu % 4, cpu % 4 + 4))).collect();
        let siblings: Vec<(u32, &str)> =
            siblings.iter().map(|(cpu, list)| (*cpu, list.as_str())).collect();
        pc("0-7", &siblings)
    }

    #[test]
    fn domains_get_whole_cores_with_both_threads_and_no_two_get_one() {
        let machine = machine("cores = 2", "cores = 1");
        let plan = eight().plan(&machine).unwrap();
        assert_eq!(plan.of("clinical"), Some("2,3,6,7"));
        assert_eq!(plan.of("internet"), Some("1,5"));
        assert!(keeps_all_apart(&machine));
        let other = "format = 1\n[domain.clinical]\nkernel = \"k\"\ncores = 2\n[domain.lab]\nvmm = \"external\"\n";
        assert!(!keeps_all_apart(&parse(other)), "nothing keeps another VMM off these cores");
    }

    #[test]
    fn who_asks_for_none_gets_what_the_others_leave_and_nobody_is_kept_anywhere_if_nobody_asks() {
        let one = machine("cores = 3", "");
        let plan = eight().plan(&one).unwrap();
        assert_eq!((plan.of("clinical"), plan.of("internet")), (Some("1,2,3,5,6,7"), Some("0,4")));
        assert!(keeps_all_apart(&one), "one has its own, one is left");
        let none = machine("", "");
        let plan = eight().plan(&none).unwrap();
        assert_eq!((plan.of("clinical"), plan.of("internet")), (None, None));
        assert!(!keeps_all_apart(&none));
    }

    #[test]
    fn one_core_stays_for_the_host_and_what_does_not_fit_is_an_error_with_a_remedy() {
        assert!(eight().plan(&machine("cores = 2", "cores = 1")).is_ok());
        let error = eight().plan(&machine("cores = 2", "cores = 2")).unwrap_err();
        assert_eq!(error, TooFewCores { wanted: 4, there: 4 });
        assert!(error.to_string().contains("lower `cores`"), "{error}");
        assert!(
            Cores::default().plan(&machine("cores = 1", "")).is_err(),
            "the kernel tells nothing"
        );
        assert!(Cores::default().plan(&machine("", "")).is_ok());
    }

    #[test]
    fn processors_that_are_off_or_say_nothing_of_their_siblings_are_no_surprise() {
        let cores = pc("0,2-3", &[(0, "0-1"), (2, "2-3"), (3, "2-3")]);
        assert_eq!(cores.count(), 2);
        assert_eq!(cores.plan(&machine("cores = 1", "")).unwrap().of("clinical"), Some("2,3"));
        let mute = pc("0-1", &[]);
        assert_eq!(mute.plan(&machine("cores = 1", "")).unwrap().of("internet"), Some("0"));
        assert!(
            are_the_same("2-3,6\n", "6,2,3")
                && !are_the_same("2-3", "2")
                && !are_the_same("x", "x")
        );
        for nonsense in ["", "x", "5-", "4294967295-1", "0-4294967295"] {
            assert!(pc(nonsense, &[]).count() <= CPUS_MAX, "{nonsense}");
        }
    }
}
