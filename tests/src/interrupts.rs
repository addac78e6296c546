//! Interrupts the simulated PC's processors from outside, so that no interrupt of theirs stays lost.
//!
//! QEMU before 10.2 changes a processor's pending interrupts from two threads without a lock when a guest is entered or left with a
//! virtual interrupt (`helper_vmrun`, `do_vmexit`: `interrupt_request |= CPU_INTERRUPT_VIRQ`), so that what a device or a timer asks for in
//! that instant is forgotten: it stays in the local APIC's request register, and the processor sleeps on. Any later interrupt has QEMU look
//! into the register again. A local APIC's timer that was lost is not set again by itself, so the later one has to come from elsewhere, and to
//! each processor: QEMU's test interface (`-qtest`) writes to the address at which a processor takes message-signalled interrupts.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

/// The test interface's socket, in the PC's folder.
pub(crate) const SOCKET: &str = "qtest";
/// How long a lost interrupt stays lost at most.
const PERIOD: Duration = Duration::from_millis(250);
/// Where the first processor takes interrupts (Intel SDM, volume 3, 11.11); the next one's place is at `TO_NEXT` behind it.
const FIRST: u64 = 0xfee0_0000;
const TO_NEXT: u64 = 0x1000;
/// Linux's RESCHEDULE_VECTOR: the processor looks whether it has another task to run, and goes on.
const VECTOR: u8 = 0xfd;

/// Interrupts each of `processors` four times a second until QEMU is gone. Only once the PC's kernel is up: firmware does not know the vector.
pub(crate) fn keep_coming(dir: &Path, processors: u64) -> Outcome {
    let stream = UnixStream::connect(dir.join(SOCKET))?;
    let writes: String = (0..processors)
        .map(|processor| format!("writel {:#x} {VECTOR:#x}\n", FIRST + processor * TO_NEXT))
        .collect();
    std::thread::spawn(move || {
        let mut answers = BufReader::new(stream);
        while answers.get_mut().write_all(writes.as_bytes()).is_ok() {
            for _ in 0..processors {
                if !matches!(answers.read_line(&mut String::new()), Ok(read) if read > 0) {
                    return;
                }
            }
            std::thread::sleep(PERIOD);
        }
    });
    Ok(())
}
