//! What processor a guest sees: the host's, less what it has no use for, with its own topology.
//!
//! One socket of `cpus` single-threaded cores; APIC ID = core number. Nested virtualisation and
//! performance counters are hidden: neither is needed on a ward PC and both widen what a hostile
//! guest can reach in the host's kernel.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaves and bits (Intel SDM volume 2A "CPUID"; AMD APM volume 3 appendix E).
mod leaf {
    pub(super) const FEATURES: u32 = 0x1;
    pub(super) const CACHES: u32 = 0x4;
    pub(super) const PERFORMANCE: u32 = 0xa;
    pub(super) const TOPOLOGY: u32 = 0xb;
    pub(super) const TOPOLOGY_V2: u32 = 0x1f;
    pub(super) const AMD_FEATURES: u32 = 0x8000_0001;
    pub(super) const AMD_SIZES: u32 = 0x8000_0008;
    pub(super) const AMD_SVM: u32 = 0x8000_000a;
    pub(super) const AMD_CACHES: u32 = 0x8000_001d;
    pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
    pub(super) const AMD_PERFORMANCE: u32 = 0x8000_0022;
}

const ECX_VMX: u32 = 1 << 5;
const ECX_PDCM: u32 = 1 << 15;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
const AMD_ECX_CMP_LEGACY: u32 = 1 << 1;
const AMD_ECX_SVM: u32 = 1 << 2;
const AMD_ECX_TOPOLOGY: u32 = 1 << 22;
const AMD_ECX_PERF_CORE: u32 = 1 << 23;
const AMD_ECX_PERF_NB: u32 = 1 << 24;
/// Topology levels of leaf 0xB: type in bits 15:8 of ECX.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// The processor for vCPU `id` of `cpus`.
pub fn prepare(supported: &CpuId, id: u8, cpus: u8) -> CpuId {
    let mut cpuid = supported.clone();
    // The kernel's list has no room limit we could meet; retaining only shrinks it.
    cpuid.retain(|entry| !is_topology(entry.function));
    for entry in cpuid.as_mut_slice() {
        adapt(entry, u32::from(id), u32::from(cpus));
    }
    if supported.as_slice().iter().any(|e| e.function == leaf::TOPOLOGY) {
        for entry in topology(u32::from(id), u32::from(cpus)) {
            // Two entries in place of at least one removed; an overfull list keeps the rest.
            let _ = cpuid.push(entry);
        }
    }
    cpuid
}

fn is_topology(function: u32) -> bool {
    matches!(function, leaf::TOPOLOGY | leaf::TOPOLOGY_V2)
}

/// Bits of an APIC ID that number cores.
fn core_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, cpus: u32) {
    match entry.function {
        leaf::FEATURES => {
            // Initial APIC ID, logical processors, CLFLUSH line size kept.
            entry.ebx = (entry.ebx & 0xff00) | (id << 24) | (cpus << 16);
            entry.ecx &= !(ECX_VMX | ECX_PDCM);
            entry.ecx |= ECX_TSC_DEADLINE | ECX_HYPERVISOR;
            entry.edx = if cpus > 1 { entry.edx | EDX_HTT } else { entry.edx & !EDX_HTT };
        }
        // Each cache level below the last is a core's own; the last is shared by all.
        leaf::CACHES if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { cpus - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | ((cpus - 1) << 26);
        }
        leaf::AMD_CACHES if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { cpus - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | (sharing << 14);
        }
        leaf::PERFORMANCE | leaf::AMD_SVM | leaf::AMD_PERFORMANCE => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        leaf::AMD_FEATURES => {
            entry.ecx &= !(AMD_ECX_SVM | AMD_ECX_PERF_CORE | AMD_ECX_PERF_NB);
            if cpus > 1 {
                entry.ecx |= AMD_ECX_CMP_LEGACY | AMD_ECX_TOPOLOGY;
            } else {
                entry.ecx &= !AMD_ECX_CMP_LEGACY;
            }
        }
        leaf::AMD_SIZES => {
            entry.ecx = (entry.ecx & !0xf0ff) | (core_bits(cpus) << 12) | (cpus - 1);
        }
        leaf::AMD_TOPOLOGY => {
            // Extended APIC ID; core ID with one thread a core; one node.
            (entry.eax, entry.ebx, entry.ecx) = (id, id, 0);
        }
        _ => {}
    }
}

/// Leaf 0xB: threads a core, cores a socket.
fn topology(id: u32, cpus: u32) -> [kvm_cpuid_entry2; 2] {
    let level = |index: u32, kind: u32, shift: u32, count: u32| kvm_cpuid_entry2 {
        function: leaf::TOPOLOGY,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: id,
        ..Default::default()
    };
    [level(0, LEVEL_THREAD, 0, 1), level(1, LEVEL_CORE, core_bits(cpus), cpus)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|e| e.function == function && e.index == index)
            .expect("leaf present")
    }

    fn host() -> CpuId {
        let entry = |function, index, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        CpuId::from_entries(&[
            entry(1, 0, 0x800f12, 0x3f10_0800, u32::MAX, u32::MAX),
            entry(4, 0, 0xfc00_4121, 0, 0, 0),
            entry(4, 3, 0xfc03_c163, 0, 0, 0),
            entry(0xa, 0, 0x0730_0402, 0, 0, 0x603),
            entry(0xb, 0, 0, 0, 0, 7),
            entry(0x1f, 0, 0, 0, 0, 7),
            entry(0x8000_0001, 0, 0, 0, u32::MAX, u32::MAX),
            entry(0x8000_0008, 0, 0x3028, 0, 0x701f, 0),
            entry(0x8000_000a, 0, 1, 0x8000, 0, 0xff),
            entry(0x8000_001e, 0, 5, 0x102, 0, 0),
        ])
        .unwrap()
    }

    #[test]
    fn every_vcpu_is_a_core_of_one_socket() {
        for cpus in [1, 2, 3, 16] {
            for id in 0..cpus {
                let cpuid = prepare(&host(), id, cpus);
                let (id, cpus) = (u32::from(id), u32::from(cpus));
                assert_eq!(find(&cpuid, 1, 0).ebx >> 24, id);
                let cores = find(&cpuid, 0xb, 1);
                assert_eq!((cores.ebx, cores.edx, cores.ecx), (cpus, id, 0x201));
                assert!(1 << cores.eax >= cpus);
                assert_eq!(find(&cpuid, 4, 0).eax >> 14 & 0xfff, 0, "own first-level cache");
                assert_eq!(find(&cpuid, 4, 3).eax >> 14 & 0xfff, cpus - 1, "shared last level");
                assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xff, cpus - 1);
                assert!(cpuid.as_slice().iter().all(|e| e.function != 0x1f));
            }
        }
    }

    #[test]
    fn nested_virtualisation_and_counters_are_hidden() {
        let cpuid = prepare(&host(), 0, 2);
        assert_eq!(find(&cpuid, 1, 0).ecx & (ECX_VMX | ECX_PDCM), 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & AMD_ECX_SVM, 0);
        assert_eq!(find(&cpuid, 0xa, 0).eax, 0);
        assert_eq!(find(&cpuid, 0x8000_000a, 0).edx, 0);
        assert_ne!(find(&cpuid, 1, 0).ecx & ECX_TSC_DEADLINE, 0);
    }
}
