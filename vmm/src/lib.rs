//! bulkhead-vmm: a small KVM virtual machine monitor.
