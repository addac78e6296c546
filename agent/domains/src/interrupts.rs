//! Keeps the interrupts of a domain's PCI functions to the processors of its VMM. The kernel spreads them over all processors, and would serve a flood of
//! one domain's network on a core that another domain has for itself.

use std::fs;
use std::io;
use std::path::Path;

use config::cores;

/// Interrupts of one function that are looked at: as many as MSI-X has (PCI Express 6.0, section 7.7.2).
const INTERRUPTS_MAX: usize = 2048;

/// What became of a function's interrupts.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// How many were moved.
    pub(super) moved: usize,
    /// Why the kernel left one where it is, if it did: it is tried again at the next look.
    pub(super) refused: Option<io::Error>,
}

/// Moves each interrupt of a function that may be served by other processors to these, written as the kernel lists them (`2-3,6`). `of_function` is the
/// function's folder `msi_irqs` in `/sys`, which is there while its driver has interrupts; `irq` is `/proc/irq` (`Documentation/core-api/irq/irq-affinity.rst`).
pub(super) fn keep(of_function: &Path, irq: &Path, cpus: &str) -> Kept {
    let entries = fs::read_dir(of_function).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut kept = Kept::default();
    for number in numbers.take(INTERRUPTS_MAX) {
        let file = irq.join(number.to_string()).join("smp_affinity_list");
        // One that has gone meanwhile is nobody's.
        let Ok(now) = fs::read_to_string(&file) else { continue };
        if cores::are_the_same(&now, cpus) {
            continue;
        }
        match fs::write(&file, cpus) {
            Ok(()) => kept.moved += 1,
            Err(error) => kept.refused = Some(error),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_a_function_are_moved_to_its_domains_processors_and_no_others_are_touched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        let list = |number: u32| format!("irq/{number}/smp_affinity_list");
        for number in [30, 31, 33] {
            write(&format!("msi_irqs/{number}"), "msix\n");
        }
        write("msi_irqs/nonsense", "msix\n");
        for (number, cpus) in [(30, "0-3\n"), (31, "2-3\n"), (32, "0-3\n")] {
            write(&list(number), cpus);
        }
        let look = |folder: &str| keep(&at(folder), &at("irq"), "2,3");
        let kept = look("msi_irqs");
        assert!(kept.moved == 1 && kept.refused.is_none(), "31 is there already, 33 has gone");
        let now = [30, 31, 32].map(|number| fs::read_to_string(at(&list(number))).unwrap());
        assert_eq!(now, ["2,3", "2-3\n", "0-3\n"]);
        assert_eq!(look("msi_irqs").moved, 0);
        assert_eq!(look("nothing").moved, 0, "its driver has none");
    }
}
