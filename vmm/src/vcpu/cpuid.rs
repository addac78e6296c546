//! What processor a guest sees: the host's, less what it has no use for, with its own topology.
//!
//! One socket of `cpus` single-threaded cores; APIC ID = core number. What a ward PC has no use for
//! and what widens a hostile guest's reach into the host's kernel or processor is hidden, whether
//! or not KVM offers it today:
//!
//! | hidden | why |
//! | --- | --- |
//! | VMX, SVM, SMX, SKINIT | nested virtualisation and measured launch |
//! | PDCM, leaf 0xA, perfctr, IBS, LWP, Intel PT, DS, RDT | performance counters and tracing ([`crate::kvm`] takes them away, too) |
//! | SGX | memory of its own that the host cannot look at |
//! | TSX (HLE, RTM) | a transaction turns faults into side channels |
//! | MONITOR, MWAITX, WAITPKG | a guest that holds its core without an exit |
//! | turbo, energy bias, frequency selection | the host's power management |
//! | ARCH_CAPABILITIES on AMD | AMD has no such register; KVM makes one up |
//!
//! From Intel's and AMD's manuals, KVM's api.rst (`KVM_GET_SUPPORTED_CPUID`) and what Firecracker's
//! normalisation and T2/T2A templates mask. Seen in the simulated PC only, not on hardware.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaves and bits (Intel SDM volume 2A "CPUID"; AMD APM volume 3 appendix E).
mod leaf {
    pub(super) const VENDOR: u32 = 0;
    pub(super) const FEATURES: u32 = 0x1;
    pub(super) const CACHES: u32 = 0x4;
    pub(super) const POWER: u32 = 0x6;
    pub(super) const MORE_FEATURES: u32 = 0x7;
    pub(super) const PERFORMANCE: u32 = 0xa;
    pub(super) const TOPOLOGY: u32 = 0xb;
    pub(super) const RDT_MONITORING: u32 = 0xf;
    pub(super) const RDT_ALLOCATION: u32 = 0x10;
    pub(super) const SGX: u32 = 0x12;
    pub(super) const PROCESSOR_TRACE: u32 = 0x14;
    pub(super) const TOPOLOGY_V2: u32 = 0x1f;
    pub(super) const AMD_FEATURES: u32 = 0x8000_0001;
    pub(super) const AMD_SIZES: u32 = 0x8000_0008;
    pub(super) const AMD_SVM: u32 = 0x8000_000a;
    pub(super) const AMD_IBS: u32 = 0x8000_001b;
    pub(super) const AMD_LWP: u32 = 0x8000_001c;
    pub(super) const AMD_CACHES: u32 = 0x8000_001d;
    pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
    pub(super) const AMD_PERFORMANCE: u32 = 0x8000_0022;
}

const ECX_MONITOR: u32 = 1 << 3;
const ECX_VMX: u32 = 1 << 5;
const ECX_SMX: u32 = 1 << 6;
const ECX_EIST: u32 = 1 << 7;
const ECX_PDCM: u32 = 1 << 15;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
/// DTES64 and DS-CPL belong to the debug store.
const ECX_DEBUG_STORE: u32 = 1 << 2 | 1 << 4;
const EDX_DEBUG_STORE: u32 = 1 << 21;
const EDX_HTT: u32 = 1 << 28;
/// "Always running APIC timer": the one bit of leaf 6 KVM means a guest to see.
const POWER_EAX_ARAT: u32 = 1 << 2;
const MORE_EBX_SGX: u32 = 1 << 2;
const MORE_EBX_TSX: u32 = 1 << 4 | 1 << 11;
const MORE_EBX_RDT: u32 = 1 << 12 | 1 << 15;
const MORE_EBX_PROCESSOR_TRACE: u32 = 1 << 25;
const MORE_ECX_WAITPKG: u32 = 1 << 5;
const MORE_ECX_SGX_LC: u32 = 1 << 30;
const MORE_EDX_ARCH_CAPABILITIES: u32 = 1 << 29;
const AMD_ECX_CMP_LEGACY: u32 = 1 << 1;
const AMD_ECX_SVM: u32 = 1 << 2;
const AMD_ECX_IBS: u32 = 1 << 10;
const AMD_ECX_SKINIT: u32 = 1 << 12;
const AMD_ECX_LWP: u32 = 1 << 15;
const AMD_ECX_TOPOLOGY: u32 = 1 << 22;
/// Core, northbridge and last-level cache counters, and the time stamp that goes with them.
const AMD_ECX_PERF: u32 = 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28;
const AMD_ECX_MWAITX: u32 = 1 << 29;
/// EBX of leaf 0 on processors of AMD's and of Hygon's make: "Auth", "Hygo".
const AMD_VENDORS: [u32; 2] = [0x6874_7541, 0x6f67_7948];
/// Address bits of a processor without leaf 0x8000_0008.
const PHYSICAL_BITS_MIN: u32 = 36;
/// Topology levels of leaf 0xB: type in bits 15:8 of ECX.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// Returns the processor for vCPU `id` of `cpus`.
pub fn prepare(supported: &CpuId, id: u8, cpus: u8) -> CpuId {
    let mut cpuid = supported.clone();
    // The kernel's list has no room limit we could meet; retaining only shrinks it.
    cpuid.retain(|entry| !is_topology(entry.function));
    let amd = find(supported, leaf::VENDOR).is_some_and(|e| AMD_VENDORS.contains(&e.ebx));
    for entry in cpuid.as_mut_slice() {
        adapt(entry, u32::from(id), u32::from(cpus));
        if amd && entry.function == leaf::MORE_FEATURES && entry.index == 0 {
            entry.edx &= !MORE_EDX_ARCH_CAPABILITIES;
        }
    }
    if supported.as_slice().iter().any(|e| e.function == leaf::TOPOLOGY) {
        for entry in topology(u32::from(id), u32::from(cpus)) {
            // Two entries in place of at least one removed; an overfull list keeps the rest.
            let _ = cpuid.push(entry);
        }
    }
    cpuid
}

/// Returns how many bits of a guest-physical address KVM can map on this host: 39 on many a PC.
pub fn physical_bits(supported: &CpuId) -> u32 {
    let Some(sizes) = find(supported, leaf::AMD_SIZES) else { return PHYSICAL_BITS_MIN };
    // What the processor has, and, where it is said, what its nested page tables can map.
    match (sizes.eax & 0xff, sizes.eax >> 16 & 0xff) {
        (host, 0) => host,
        (host, mapped) => host.min(mapped),
    }
}

fn find(cpuid: &CpuId, function: u32) -> Option<&kvm_cpuid_entry2> {
    cpuid.as_slice().iter().find(|entry| entry.function == function)
}

fn is_topology(function: u32) -> bool {
    matches!(function, leaf::TOPOLOGY | leaf::TOPOLOGY_V2)
}

/// Returns how many bits of an APIC ID number cores.
fn core_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, cpus: u32) {
    match entry.function {
        leaf::FEATURES => {
            // Initial APIC ID, logical processors, CLFLUSH line size kept.
            entry.ebx = (entry.ebx & 0xff00) | (id << 24) | (cpus << 16);
            entry.ecx &= !(ECX_MONITOR | ECX_VMX | ECX_SMX | ECX_EIST | ECX_PDCM | ECX_DEBUG_STORE);
            entry.ecx |= ECX_TSC_DEADLINE | ECX_HYPERVISOR;
            entry.edx &= !EDX_DEBUG_STORE;
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
        leaf::POWER => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & POWER_EAX_ARAT, 0, 0, 0);
        }
        leaf::MORE_FEATURES if entry.index == 0 => {
            entry.ebx &= !(MORE_EBX_SGX | MORE_EBX_TSX | MORE_EBX_RDT | MORE_EBX_PROCESSOR_TRACE);
            entry.ecx &= !(MORE_ECX_WAITPKG | MORE_ECX_SGX_LC);
        }
        leaf::PERFORMANCE
        | leaf::RDT_MONITORING
        | leaf::RDT_ALLOCATION
        | leaf::SGX
        | leaf::PROCESSOR_TRACE
        | leaf::AMD_SVM
        | leaf::AMD_IBS
        | leaf::AMD_LWP
        | leaf::AMD_PERFORMANCE => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        leaf::AMD_FEATURES => {
            entry.ecx &= !(AMD_ECX_SVM | AMD_ECX_IBS | AMD_ECX_SKINIT | AMD_ECX_LWP);
            entry.ecx &= !(AMD_ECX_PERF | AMD_ECX_MWAITX);
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

/// Describes the topology in leaf 0xB: threads a core, cores a socket.
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

    fn leaf_of(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
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
            entry(0, 0, 0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
            entry(1, 0, 0x800f12, 0x3f10_0800, u32::MAX, u32::MAX),
            entry(4, 0, 0xfc00_4121, 0, 0, 0),
            entry(4, 3, 0xfc03_c163, 0, 0, 0),
            entry(6, 0, u32::MAX, u32::MAX, u32::MAX, u32::MAX),
            entry(7, 0, 1, u32::MAX, u32::MAX, u32::MAX),
            entry(0x12, 0, 1, 1, 1, 1),
            entry(0x14, 0, 1, 1, 1, 1),
            entry(0xa, 0, 0x0730_0402, 0, 0, 0x603),
            entry(0xb, 0, 0, 0, 0, 7),
            entry(0x1f, 0, 0, 0, 0, 7),
            entry(0x8000_0001, 0, 0, 0, u32::MAX, u32::MAX),
            entry(0x8000_0008, 0, 0x3028, 0, 0x701f, 0),
            entry(0x8000_000a, 0, 1, 0x8000, 0, 0xff),
            entry(0x8000_001b, 0, 1, 0, 0, 0),
            entry(0x8000_0022, 0, 1, 1, 1, 1),
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
                assert_eq!(leaf_of(&cpuid, 1, 0).ebx >> 24, id);
                let cores = leaf_of(&cpuid, 0xb, 1);
                assert_eq!((cores.ebx, cores.edx, cores.ecx), (cpus, id, 0x201));
                assert!(1 << cores.eax >= cpus);
                assert_eq!(leaf_of(&cpuid, 4, 0).eax >> 14 & 0xfff, 0, "own first-level cache");
                assert_eq!(leaf_of(&cpuid, 4, 3).eax >> 14 & 0xfff, cpus - 1, "shared last level");
                assert_eq!(leaf_of(&cpuid, 0x8000_0008, 0).ecx & 0xff, cpus - 1);
                assert!(cpuid.as_slice().iter().all(|e| e.function != 0x1f));
            }
        }
    }

    #[test]
    fn nothing_is_shown_that_widens_a_guests_reach_even_if_kvm_offers_it_all() {
        let cpuid = prepare(&host(), 0, 2);
        let features = leaf_of(&cpuid, 1, 0);
        let hidden = ECX_MONITOR | ECX_VMX | ECX_SMX | ECX_EIST | ECX_PDCM | ECX_DEBUG_STORE;
        assert_eq!((features.ecx & hidden, features.edx & EDX_DEBUG_STORE), (0, 0));
        assert_ne!(features.ecx & ECX_TSC_DEADLINE, 0);
        let more = leaf_of(&cpuid, 7, 0);
        let hidden = MORE_EBX_SGX | MORE_EBX_TSX | MORE_EBX_RDT | MORE_EBX_PROCESSOR_TRACE;
        assert_eq!((more.ebx & hidden, more.ecx & (MORE_ECX_WAITPKG | MORE_ECX_SGX_LC)), (0, 0));
        assert_ne!(more.ebx, 0, "the rest stays");
        let power = leaf_of(&cpuid, 6, 0);
        assert_eq!((power.eax, power.ebx, power.ecx, power.edx), (POWER_EAX_ARAT, 0, 0, 0));
        let amd = leaf_of(&cpuid, 0x8000_0001, 0).ecx;
        let hidden = AMD_ECX_SVM | AMD_ECX_IBS | AMD_ECX_SKINIT | AMD_ECX_LWP;
        assert_eq!(amd & (hidden | AMD_ECX_PERF | AMD_ECX_MWAITX), 0);
        for leaf in [0xa, 0x12, 0x14, 0x8000_000a, 0x8000_001b, 0x8000_0022] {
            let entry = leaf_of(&cpuid, leaf, 0);
            assert_eq!((entry.eax, entry.ebx, entry.ecx, entry.edx), (0, 0, 0, 0), "{leaf:#x}");
        }
    }

    #[test]
    fn only_a_processor_that_has_the_register_shows_arch_capabilities() {
        for (vendor, shown) in [(0x756e_6547, true), (0x6874_7541, false), (0x6f67_7948, false)] {
            let mut host = host();
            for entry in host.as_mut_slice().iter_mut().filter(|e| e.function == 0) {
                entry.ebx = vendor;
            }
            let more = leaf_of(&prepare(&host, 0, 1), 7, 0);
            assert_eq!(more.edx & MORE_EDX_ARCH_CAPABILITIES != 0, shown, "{vendor:#x}");
        }
    }

    #[test]
    fn a_guest_has_the_address_bits_that_its_host_can_map() {
        for (eax, bits) in [(0x3027, 39), (0x3030, 48), (0x27_3034, 39), (0x30_3027, 39)] {
            let mut host = host();
            for entry in host.as_mut_slice().iter_mut().filter(|e| e.function == 0x8000_0008) {
                entry.eax = eax;
            }
            assert_eq!(physical_bits(&host), bits, "{eax:#x}");
        }
    }
}
