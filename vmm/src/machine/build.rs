//! Puts a machine together from its configuration, in the order of what depends on what.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use pci::Bus;
use vfio::VfioFunction;
use virtio::GuestMemory;
use virtio::net::Tap;
use vmm_control::{SerialSpec, VmSpec};
use vmm_sys_util::eventfd::EventFd;

use super::devices::{self, Host};
use super::{MachineError, Subscriber, eventfd, host, ports};
use crate::acpi::Description;
use crate::boot::Kernel;
use crate::heartbeat::Heartbeat;
use crate::kvm::{Interrupts, KvmDoorbells, KvmMsi, KvmSlots, Vm};
use crate::layout;
use crate::listen;
use crate::memory;
use crate::port_io::PortBus;
use crate::power::Power;
use crate::sandbox::Role;
use crate::serial::{self, LogWriter, Output, SerialInput};
use crate::vcpu::{Event, Events, ExitHandler, Gate, Member, Vcpu, physical_bits, prepare_cpuid};

/// A machine that is complete but does not run yet.
pub(super) struct Machine {
    pub(super) kernel: Kernel,
    pub(super) memory: GuestMemory,
    pub(super) description: Description,
    pub(super) vm: Vm,
    pub(super) vcpus: Vec<(Vcpu, Member)>,
    pub(super) gate: Arc<Gate>,
    pub(super) handler: Arc<ExitHandler>,
    pub(super) events: Arc<Events>,
    pub(super) wake: EventFd,
    pub(super) pci: Arc<Bus>,
    pub(super) ports: Arc<PortBus>,
    pub(super) power: Arc<Mutex<Power>>,
    pub(super) api: Option<UnixListener>,
    /// Passed-through functions; they are on the bus as well.
    pub(super) functions: Vec<Arc<Mutex<VfioFunction>>>,
    /// What the main loop serves.
    pub(super) main_loop: Vec<Subscriber>,
    /// What is served by a thread of its own, with the thread's name and what it may do.
    pub(super) own_threads: Vec<(String, Role, Subscriber)>,
    /// Threads that those start when they need them.
    pub(super) helpers: Vec<(String, Heartbeat)>,
    /// Bytes of the longest file it has to write.
    pub(super) file_bytes_max: u64,
}

pub(super) fn build(spec: &VmSpec) -> Result<Machine, MachineError> {
    // The cheap mistakes first: files, sockets, disks. Nothing has an effect outside before them.
    let kernel = Kernel::open(&spec.kernel, spec.initrd.as_deref(), &spec.cmdline, spec.memory)?;
    let memory = memory::allocate(spec.memory, spec.hugepages)?;
    let vm = Vm::new(&memory)?;
    let interrupts = Interrupts::new(Arc::clone(vm.fd()))?;
    let wake = eventfd()?;
    let events = Arc::new(Events::new(wake.try_clone().map_err(host("clone an eventfd"))?));

    let mut bus = Bus::new();
    let (domain_of, domain_memory) = (Arc::clone(vm.fd()), memory.clone());
    let parts = devices::build(
        spec,
        &mut bus,
        &Host {
            memory: memory.clone(),
            container: Box::new(move || vfio::Container::new(&domain_of, &domain_memory)),
            tap: Box::new(Tap::open),
            msi: Arc::new(KvmMsi(Arc::clone(&interrupts))),
            doorbells: Arc::new(KvmDoorbells::new(Arc::clone(vm.fd()))),
            slots: Arc::new(KvmSlots::new(Arc::clone(vm.fd()))),
        },
    )?;
    let bits = physical_bits(&vm.supported_cpuid()?);
    let mmio64 = layout::mmio64_window(layout::mmio64_start(spec.memory), bits)
        .ok_or(MachineError::AddressBits { memory: spec.memory, bits })?;
    devices::place(&mut bus, mmio64.clone())?;
    let pci = Arc::new(bus);
    let mut main_loop = parts.main_loop;

    let (output, log) = output(&spec.serial)?;
    let mut own_threads = parts.own_threads;
    if let Some(writer) = log {
        own_threads.push(("serial".to_owned(), Role::Log, Arc::new(Mutex::new(writer))));
    }
    let ports::Legacy { ports, power, serial } = ports::build(&interrupts, &events, output)?;
    let ports = Arc::new(ports);
    let handler =
        Arc::new(ExitHandler::new(Arc::clone(&ports), Arc::clone(&pci), Arc::clone(&events)));
    if spec.serial == SerialSpec::Stdio {
        let quit = Arc::clone(&events);
        let input = SerialInput::new(serial, Box::new(move || quit.raise(Event::Stop)));
        main_loop.push(Arc::new(Mutex::new(input)));
    }
    let api = spec
        .control_socket
        .as_deref()
        .map(listen::streams)
        .transpose()
        .map_err(MachineError::Api)?;

    let (gate, members) = Gate::new(usize::from(spec.cpus));
    Ok(Machine {
        kernel,
        memory,
        description: Description {
            cpus: spec.cpus,
            mmio64: (mmio64.start, mmio64.end - mmio64.start),
        },
        vcpus: vcpus(&vm, spec.cpus)?.into_iter().zip(members).collect(),
        vm,
        gate,
        handler,
        events,
        wake,
        pci,
        ports,
        power,
        api,
        functions: parts.functions,
        main_loop,
        own_threads,
        helpers: parts.helpers,
        file_bytes_max: parts.disk_file_bytes_max.max(serial::LOG_MAX),
    })
}

fn vcpus(vm: &Vm, count: u8) -> Result<Vec<Vcpu>, MachineError> {
    let supported = vm.supported_cpuid()?;
    let msrs = vm.msr_indices()?;
    let mut vcpus = Vec::with_capacity(usize::from(count));
    for id in 0..count {
        let fd = vm.create_vcpu(id)?;
        fd.set_cpuid2(&prepare_cpuid(&supported, id, count))
            .map_err(crate::kvm::refused("give a vCPU its features"))?;
        vcpus.push(Vcpu::new(id, fd, &msrs)?);
    }
    Ok(vcpus)
}

/// Opens where the serial port prints, and who writes it down if that is a log.
fn output(spec: &SerialSpec) -> Result<(Output, Option<LogWriter>), MachineError> {
    match spec {
        SerialSpec::Stdio => {
            let output = Output::stdout().map_err(host("print to standard output"))?;
            Ok((output, None))
        }
        SerialSpec::Null => Ok((Output::Null, None)),
        SerialSpec::File(path) => {
            let opened = serial::log(path);
            let (output, writer) = opened.map_err(|e| MachineError::SerialLog(path.clone(), e))?;
            Ok((output, Some(writer)))
        }
    }
}
