//! The one trait every PCI function implements.

use crate::bar::{BarIndex, BarKind, Window};
use crate::config::ConfigSpace;

/// One PCI function. The bus calls it from whichever vCPU thread made the access, under the
/// function's own lock; nothing here may block on a host resource or on another function.
///
/// Every argument that a guest chose (offset, length, value) may be anything: an access that means
/// nothing reads as all ones and is dropped on write.
pub trait Function: Send {
    /// Reads `data.len()` (1, 2 or 4) bytes at `offset` (0 to 4095) of configuration space.
    fn config_read(&mut self, offset: u16, data: &mut [u8]);

    /// Writes 1, 2 or 4 bytes at `offset` (0 to 4095) of configuration space. Afterwards the bus
    /// asks for [`Function::windows`] again and reports what moved.
    fn config_write(&mut self, offset: u16, data: &[u8]);

    /// Returns the configuration space that the guest sees, of which the BARs are a part.
    fn config_space(&self) -> &ConfigSpace;

    /// Returns it to place BARs in.
    fn config_space_mut(&mut self) -> &mut ConfigSpace;

    /// Returns what each BAR decodes at this moment: `None` for a BAR that does not exist, is the upper
    /// half of a 64-bit one, or whose decoding the command register has off.
    fn windows(&self) -> [Option<Window>; BarIndex::COUNT] {
        self.config_space().windows()
    }

    /// Returns size in bytes (a power of two) and kind of each memory BAR, for the VMM to place them before
    /// the guest runs; `None` where there is no BAR.
    fn bars(&self) -> [Option<(u64, BarKind)>; BarIndex::COUNT] {
        self.config_space().bars()
    }

    /// Places a BAR before the guest runs, as firmware would. Decoding stays off until the guest
    /// turns it on in the command register.
    fn place_bar(&mut self, bar: BarIndex, address: u64) {
        self.config_space_mut().place_bar(bar, address);
    }

    /// Reads 1 to 8 bytes at `offset` in a BAR. The bus has checked that the access lies in the
    /// window.
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]);

    /// Writes 1 to 8 bytes at `offset` in a BAR. The bus has checked that the access lies in the
    /// window.
    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]);

    /// Called when the window of `bar` changed: doorbells and memory mapped at the old place have
    /// to follow. The configuration write that moved it is done, and no access to the new window
    /// has come yet.
    fn bar_moved(&mut self, bar: BarIndex, now: Option<Window>);

    /// Resets the function, as the machine is being reset or torn down: back to the state before the
    /// guest first ran, doorbells and mappings gone. Called with all vCPUs stopped. Waits for nobody:
    /// what takes longer is done when [`Function::is_reset`] says so.
    fn reset(&mut self);

    /// Returns whether the last [`Function::reset`] is complete: only then is guest memory out of the reach of
    /// whatever the function had begun, and may the guest run.
    fn is_reset(&mut self) -> bool {
        true
    }
}
