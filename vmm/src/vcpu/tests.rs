//! Tiny guests on the host's KVM. Where there is no /dev/kvm they say so and prove nothing.

use std::sync::Mutex;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::kvm::Vm;
use crate::port_io::{PortBus, PortDevice};

const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const ENTRY: Entry = Entry::Pvh { rip: CODE };
/// Port on which a guest says where it is.
const SAY: u16 = 0x10;
/// Ports of a device that answers strings of accesses.
const STRING: u16 = 0x40;

/// What a guest wrote, access by access; it reads how many reads there were before.
#[derive(Default)]
struct Recorder {
    written: Vec<Vec<u8>>,
    reads: u8,
}

impl PortDevice for Recorder {
    fn read(&mut self, _: u16, data: &mut [u8]) {
        data.fill(self.reads);
        self.reads += 1;
    }

    fn write(&mut self, _: u16, data: &[u8]) {
        self.written.push(data.to_vec());
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

struct Machine {
    vcpu: Vcpu,
    memory: GuestMemory,
    handler: ExitHandler,
    said: Arc<Mutex<Recorder>>,
    string: Arc<Mutex<Recorder>>,
    vm: Vm,
}

impl Machine {
    /// Makes one vCPU with `code` at its entry; `None` without /dev/kvm.
    fn new(code: &[u8]) -> Option<Self> {
        let memory = crate::memory::allocate("64M".parse().unwrap(), false).unwrap();
        memory.write_slice(code, GuestAddress(CODE)).unwrap();
        let vm = match Vm::new(&memory) {
            Err(KvmError::Absent | KvmError::Permission) => {
                eprintln!("no /dev/kvm: this test proves nothing here");
                return None;
            }
            other => other.unwrap(),
        };
        let fd = vm.create_vcpu(0).unwrap();
        fd.set_cpuid2(&prepare_cpuid(&vm.supported_cpuid().unwrap(), 0, 1)).unwrap();
        let vcpu = Vcpu::new(0, fd, &vm.msr_indices().unwrap()).unwrap();
        let (said, string) = <(Arc<Mutex<Recorder>>, Arc<Mutex<Recorder>>)>::default();
        let mut ports = PortBus::default();
        ports.add(SAY, 1, said.clone());
        ports.add(STRING, 1, string.clone());
        let events = Arc::new(Events::new(EventFd::new(libc::EFD_NONBLOCK).unwrap()));
        let handler = ExitHandler::new(Arc::new(ports), Arc::new(pci::Bus::new()), events);
        Some(Self { vcpu, memory, handler, said, string, vm })
    }

    fn start(&mut self) {
        self.vcpu.start(&self.memory, ENTRY).unwrap();
    }

    /// Stops as a vCPU does when the gate closes.
    fn stop(&mut self) {
        self.handler.finish(0, &mut self.vcpu.fd);
    }

    fn step(&mut self) {
        assert!(self.handler.step(0, &mut self.vcpu.fd));
    }

    /// Runs until the guest says something.
    fn next_said(&mut self) -> Vec<u8> {
        let before = self.said.lock().unwrap().written.len();
        while self.said.lock().unwrap().written.len() == before {
            self.step();
        }
        self.said.lock().unwrap().written[before].clone()
    }
}

#[test]
fn a_reset_in_the_middle_of_an_mmio_read_starts_the_guest_at_its_entry() {
    let single = [0xa1, 0x00, 0x00, 0x00, 0xe0]; // mov eax, [0xe0000000]
    let repeated = [
        0xbe, 0x00, 0x00, 0x00, 0xe0, // mov esi, 0xe0000000
        0xbf, 0x00, 0x00, 0x20, 0x00, // mov edi, 0x200000
        0xb9, 0x00, 0x08, 0x00, 0x00, // mov ecx, 2048
        0xf3, 0xa5, // rep movsd
    ];
    for access in [&single[..], &repeated[..]] {
        let mut code = vec![0xb0, b'S', 0xe6, 0x10]; // mov al, 'S'; out 0x10, al
        code.extend(access);
        code.extend([0xb0, b'X', 0xe6, 0x10, 0xeb, 0xfe]); // mov al, 'X'; out 0x10, al; jmp $
        let Some(mut machine) = Machine::new(&code) else { return };
        for _ in 0..3 {
            machine.start();
            assert_eq!(machine.next_said(), b"S");
            machine.step(); // answers the read and leaves its second half to KVM
            machine.stop();
        }
    }
}

#[test]
fn each_element_of_a_string_instruction_is_an_access_of_its_own() {
    let code = [
        0xbe, 0x00, 0x00, 0x20, 0x00, // mov esi, 0x200000
        0xb9, 0x03, 0x00, 0x00, 0x00, // mov ecx, 3
        0xba, 0x40, 0x00, 0x00, 0x00, // mov edx, 0x40
        0xf3, 0x66, 0x6f, // rep outsw
        0xbf, 0x00, 0x10, 0x20, 0x00, // mov edi, 0x201000
        0xb9, 0x04, 0x00, 0x00, 0x00, // mov ecx, 4
        0xf3, 0x6c, // rep insb
        0xe6, 0x10, // out 0x10, al
        0xeb, 0xfe, // jmp $
    ];
    let Some(mut machine) = Machine::new(&code) else { return };
    machine.memory.write_slice(&[1, 2, 3, 4, 5, 6], GuestAddress(DATA)).unwrap();
    machine.start();
    machine.next_said();
    assert_eq!(machine.string.lock().unwrap().written, [[1, 2], [3, 4], [5, 6]]);
    let mut read = [0; 4];
    machine.memory.read_slice(&mut read, GuestAddress(DATA + 0x1000)).unwrap();
    assert_eq!(read, [0, 1, 2, 3]);
}

#[test]
fn after_a_reset_a_vcpu_is_as_it_was_created() {
    let Some(mut machine) = Machine::new(&[0xf4]) else { return };
    let msrs = machine.vm.msr_indices().unwrap();
    machine.start();
    let fresh = ResetState::read(&machine.vcpu.fd, &msrs).unwrap();
    scramble(&machine.vcpu.fd, &fresh);
    let used = ResetState::read(&machine.vcpu.fd, &msrs).unwrap();
    assert_ne!(used.differences(&fresh), Vec::<String>::new(), "nothing was changed");
    machine.start();
    let again = ResetState::read(&machine.vcpu.fd, &msrs).unwrap();
    assert_eq!(again.differences(&fresh), Vec::<String>::new());
}

/// Changes whatever a guest, or KVM on its behalf, can change.
fn scramble(fd: &VcpuFd, fresh: &ResetState) {
    let mut state = ResetState::read(fd, &[]).unwrap();
    (state.regs.rax, state.regs.r15, state.regs.rsp) = (1, 2, 3);
    (state.sregs.cr2, state.sregs.cr8) = (0x1234, 5);
    state.fpu.xmm = [[0x5a; 16]; 16];
    state.debug.db[0] = 0x1000;
    state.xcrs.xcrs[0].value = 7;
    state.lapic.regs[0x80] = 0x20;
    state.events.nmi.masked = 1;
    fd.set_regs(&state.regs).unwrap();
    fd.set_sregs(&state.sregs).unwrap();
    fd.set_lapic(&state.lapic).unwrap();
    fd.set_fpu(&state.fpu).unwrap();
    fd.set_debug_regs(&state.debug).unwrap();
    fd.set_vcpu_events(&state.events).unwrap();
    // Some hosts have no vector registers beyond the first, and no such bit.
    let _ = fd.set_xcrs(&state.xcrs);
    if let Some(xsave) = &mut state.xsave {
        // Upper halves of the first vector registers, and that they are there.
        xsave.region[512 / 4] |= 4;
        xsave.region[576 / 4..640 / 4].fill(0xa5a5_a5a5);
        // SAFETY: as in `ResetState::restore`.
        let _ = unsafe { fd.set_xsave(xsave) };
    }
    for entry in &fresh.msrs {
        for data in [entry.data ^ 1, 0x1000, 6] {
            state::set_msr(fd, kvm_bindings::kvm_msr_entry { data, ..*entry });
        }
    }
}
