//! What a finding that is not well means to those who work at the PC.

use super::{Finding, Level};

/// By the word of the check, in the order of the alphabet.
const MEANINGS: &[(&str, &str)] = &[
    (
        "audit-disk",
        "once nothing can be recorded, nothing is pasted and no USB device is given to a desktop; the desktops go on",
    ),
    (
        "audit-log",
        "what crossed between the desktops cannot be shown for certain any more; the desktops go on",
    ),
    ("cgroups", "a desktop that is busy can slow the other one down, or does not start"),
    ("clock", "times in the audit log are wrong, and signatures and renewals go by the wrong hour"),
    ("clock-source", "desktops are a little slower"),
    ("cores", "the desktops that were to have cores of their own do not start"),
    ("disk-health", "once the disk fails no desktop starts, and what was saved on it is lost"),
    (
        "disk-space",
        "a desktop that writes more than is left gets errors, and no update is installed",
    ),
    (
        "encryption",
        "without the volume no desktop starts; or who takes the disk out reads what is on it, and nobody at the PC notices anything",
    ),
    ("hand-over", "the desktop that is to have this card does not start"),
    ("host-network", "no desktop starts as long as the host is in a network itself"),
    ("host-use", "the desktop that is to have this card does not start"),
    ("huge-pages", "desktops are a little slower"),
    ("image", "the desktop of this image does not start"),
    ("interrupt-remapping", "no desktop with a network card of its own starts"),
    ("interrupts", "the desktop that is to have this card does not start"),
    ("io-weight", "a desktop that is busy with the disk slows the other one down"),
    ("iommu", "no desktop with a network card of its own starts"),
    ("iommu-group", "the desktop that is to have this card does not start"),
    ("kept", "what is saved in that desktop is gone when it starts again"),
    ("kvm", "no desktop starts"),
    ("kvm-vm", "no desktop starts"),
    (
        "landlock",
        "a desktop that was taken over meets one wall less; nobody at the PC notices anything",
    ),
    (
        "leftovers",
        "a desktop may not start, or run without a screen, or what it was to forget is still on the disk",
    ),
    (
        "listening",
        "a program of the host can be attacked, and behind it is every desktop; nobody at the PC notices anything",
    ),
    ("locked-memory", "no desktop with a network card of its own starts"),
    ("machine-file", "no desktop starts, or those that this file was to change stay as they were"),
    ("memory", "not every desktop starts, or the PC becomes slow"),
    (
        "mitigations",
        "a desktop that was taken over may read what is the other one's; nobody at the PC notices anything",
    ),
    (
        "modules-load",
        "after the next start of the PC a desktop may not start, or be without its network",
    ),
    ("nested-paging", "desktops are too slow to work with"),
    ("pci-device", "the desktop that is to have this card does not start"),
    ("pci-pin", "the desktop that is to have this card does not start"),
    (
        "policy",
        "the last good policy counts, and what the new one changes does not; without one no desktop starts",
    ),
    (
        "policy-enforcement",
        "what this rule says nobody keeps to: something may cross that was not to, or not cross that was",
    ),
    ("policy-signature", "the last good policy counts, and what the new one changes does not"),
    ("pressure", "a desktop that slows the other one down is named nowhere"),
    (
        "program",
        "Bulkhead runs in another version than was meant, or a desktop may not start; the cause stands in the finding",
    ),
    (
        "reset",
        "the desktop with this card may not start again after a fault, or find in it what the one before left",
    ),
    ("roles", "whoever is to have this role has to ask root"),
    ("seat", "nobody sees a desktop"),
    ("seat-font", "Korean labels and notices are shown as empty boxes"),
    ("seat-input", "nobody can type or point"),
    ("seat-screen", "nobody sees a desktop"),
    (
        "secure-boot",
        "who can switch the PC off and on starts a system of their own on it; nobody at the PC notices anything",
    ),
    ("sleep", "after a sleep desktops lose their network, and what was not saved"),
    (
        "smt",
        "a desktop that was taken over may find out something of the other one; nobody at the PC notices anything",
    ),
    (
        "tpm",
        "where the state is on an encrypted volume, somebody types a key at each start of the PC, and before that no desktop comes up",
    ),
    ("trust-store", "the officers of the store before count"),
    ("unit", "the desktops do not start with the PC, or with fewer walls around them"),
    (
        "usb",
        "a USB device may reach the host before the policy is asked, or no device reaches a desktop",
    ),
    ("vfio-device", "no desktop with a network card of its own starts"),
    ("vfio-pci", "no desktop with a network card of its own starts"),
    ("vmm", "no desktop starts"),
    (
        "vmm-users",
        "another program of the PC might end a desktop, or open what only that desktop's user may; nobody at the PC notices anything",
    ),
    ("worker", "nothing is copied or pasted between the desktops, and no USB device reaches one"),
    ("worker-user", "another program of the PC might read a picture while it is pasted"),
];

/// The same where what is in force is weak, and nothing was refused.
const OF_WARNINGS: &[(&str, &str)] = &[
    (
        "policy-signature",
        "who has the PC can change what crosses; nobody at the PC notices anything",
    ),
    (
        "trust-store",
        "fewer people than meant, or who has the PC, may be able to change what crosses, or no change of the store can follow; nobody at the PC notices anything",
    ),
];

/// Returns what a finding means to the ward; nothing where all is well, or nobody could look.
#[must_use]
pub(super) fn of(finding: &Finding) -> Option<&'static str> {
    if finding.level == Level::Ok || finding.message.starts_with("not looked at") {
        return None;
    }
    let weak = OF_WARNINGS.iter().find(|(check, _)| *check == finding.check);
    if let Some((_, meaning)) = weak.filter(|_| finding.level == Level::Warn) {
        return Some(*meaning);
    }
    let at = MEANINGS.binary_search_by(|(check, _)| (*check).cmp(&finding.check)).ok()?;
    MEANINGS.get(at).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_of_the_page_has_a_meaning_and_every_meaning_a_check() {
        assert!(MEANINGS.is_sorted_by(|one, next| one.0 < next.0));
        let page = include_str!("../../../docs/it/doctor.md");
        let mut named: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| finding |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        named.sort_unstable();
        let known: Vec<&str> = MEANINGS.iter().map(|(check, _)| *check).collect();
        assert_eq!(named, known);
        assert_eq!(of(&Finding::warn("kvm", "", "")), Some("no desktop starts"));
        assert_eq!(of(&Finding::ok("kvm", "")), None);
        assert_eq!(of(&Finding::warn("kvm", "not looked at: ...", "")), None);
    }

    #[test]
    fn what_is_in_force_and_weak_means_another_thing_than_what_is_refused() {
        for (check, meaning) in OF_WARNINGS {
            assert_eq!(of(&Finding::warn(*check, "", "")), Some(*meaning));
            let refused = of(&Finding::fail(*check, "", "")).unwrap();
            assert!(refused.contains("before count") || refused.contains("last good"), "{refused}");
        }
    }
}
