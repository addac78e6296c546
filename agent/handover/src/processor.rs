//! Who made the PC's processor, and what firmware menus and the kernel call what Bulkhead needs of it.

/// A maker of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    Intel,
    Amd,
    Other,
}

impl Vendor {
    /// Reads it from the text of `/proc/cpuinfo`.
    #[must_use]
    pub fn of(cpuinfo: &str) -> Self {
        match field(cpuinfo, "vendor_id") {
            Some("GenuineIntel") => Self::Intel,
            Some("AuthenticAMD") => Self::Amd,
            _ => Self::Other,
        }
    }

    /// Returns the module by which KVM uses it; Intel's for a processor of an unknown maker.
    #[must_use]
    pub fn kvm_module(self) -> &'static str {
        match self {
            Self::Amd => "kvm-amd",
            Self::Intel | Self::Other => "kvm-intel",
        }
    }

    /// Says how virtualisation is switched on.
    #[must_use]
    pub fn virtualisation_in_bios(self) -> &'static str {
        match self {
            Self::Intel => {
                "switch \"Intel Virtualization Technology\" (VT-x, VMX) on in the BIOS, then power the PC off and on"
            }
            Self::Amd => "switch \"SVM Mode\" (AMD-V) on in the BIOS, then power the PC off and on",
            Self::Other => {
                "switch hardware virtualisation (VT-x or SVM) on in the BIOS, then power the PC off and on"
            }
        }
    }

    /// Says what the IOMMU is called in the BIOS.
    #[must_use]
    pub fn iommu_in_bios(self) -> &'static str {
        match self {
            Self::Intel => "\"Intel VT for Directed I/O\" (VT-d)",
            Self::Amd => "\"IOMMU\" (AMD-Vi; set it to Enabled, not Auto)",
            Self::Other => "the IOMMU (VT-d or AMD-Vi)",
        }
    }

    /// Returns the parameter that has the kernel use the IOMMU; `None` where it depends on who made the processor.
    #[must_use]
    pub fn iommu_parameter(self) -> Option<&'static str> {
        match self {
            Self::Intel => Some("intel_iommu=on"),
            Self::Amd => Some("amd_iommu=on"),
            Self::Other => None,
        }
    }
}

/// Returns whether the processor has this flag, by the text of `/proc/cpuinfo`.
#[must_use]
pub fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    flags.split_ascii_whitespace().any(|has| has == flag)
}

/// Returns the first value of a field of `/proc/cpuinfo`.
#[must_use]
pub fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}
