//! A function's BARs as memory of the guest.
//!
//! What VFIO lets us map, less the pages of the MSI-X table and its pending bits, appears in the
//! guest as memory: its driver rings doorbells without an exit. Everything is mapped into this process
//! when the function is opened, because nothing can be once the sandbox is closed. What is left
//! (trapped pages, BARs smaller than a page) is read and written through VFIO access by access.

use std::ops::Range;
use std::sync::Arc;

use pci::{BarIndex, Window};

use crate::config::VirtualConfig;
use crate::hardware::Hardware;
use crate::slots::{MemorySlots, Slot};
use crate::sys::Mapping;

/// Granularity of a guest's memory, in bytes.
const PAGE: u64 = 4096;
/// Most parts of one BAR that are mapped; the rest of it is trapped. Memory slots are few.
const PARTS_MAX: usize = 8;

/// A stretch of a BAR that is mapped into this process.
#[derive(Debug)]
struct Part {
    bar: BarIndex,
    /// Bytes from the start of the BAR.
    offset: u64,
    size: u64,
    slot: Option<Slot>,
    mapping: Mapping,
}

/// The BARs of a function, with what of them is mapped.
pub(crate) struct Bars {
    parts: Vec<Part>,
    slots: Arc<dyn MemorySlots>,
}

impl Bars {
    /// Maps what can be mapped, and shows nothing yet.
    pub(crate) fn new(
        config: &VirtualConfig,
        hardware: &dyn Hardware,
        slots: Arc<dyn MemorySlots>,
    ) -> std::io::Result<Self> {
        let mut parts = Vec::new();
        for (index, declared) in config.space().bars().into_iter().enumerate() {
            let (Some(bar), Some((size, _))) = (BarIndex::new(index), declared) else { continue };
            let mut trapped = Vec::new();
            if let Some(msix) = config.msix() {
                let tables = [(msix.table, msix.table_size()), (msix.pba, msix.pba_size())];
                for ((in_bar, start), size) in tables {
                    if in_bar == bar {
                        trapped.push(start..start.saturating_add(size));
                    }
                }
            }
            let region = hardware.region(bar);
            let areas = region.mappable.iter().map(|(at, size)| *at..at.saturating_add(*size));
            for part in mappable(size, areas, &trapped).into_iter().take(PARTS_MAX) {
                let (offset, size) = (part.start, part.end - part.start);
                let mapping = hardware.map(bar, offset, size)?;
                parts.push(Part { bar, offset, size, slot: None, mapping });
            }
        }
        Ok(Self { parts, slots })
    }

    /// Takes it that the window of `bar` is now there, or nowhere.
    pub(crate) fn moved(&mut self, bar: BarIndex, now: Option<Window>) {
        for part in self.parts.iter_mut().filter(|part| part.bar == bar) {
            hide(&*self.slots, part);
            let Some(address) = now.and_then(|window| window.address.checked_add(part.offset))
            else {
                continue;
            };
            // SAFETY: the mapping lives in `part` until `hide` has taken the slot away (or for ever,
            // if that fails), and nobody makes a reference into it.
            match unsafe { self.slots.map(address, part.mapping.host(), part.size) } {
                Ok(slot) => part.slot = Some(slot),
                // The guest put its BAR over its RAM or beyond what it can address: it stays
                // trapped, which works all the same where there is no RAM.
                Err(error) => {
                    tracing::warn!(%bar, address, %error, "a BAR cannot be memory of the guest there");
                }
            }
        }
    }

    /// Hides all that is shown.
    pub(crate) fn hide(&mut self) {
        for part in &mut self.parts {
            hide(&*self.slots, part);
        }
    }

    /// Hides and unmaps everything: what is mapped keeps the device open.
    pub(crate) fn close(&mut self) {
        self.hide();
        for part in self.parts.drain(..) {
            if part.slot.is_some() {
                // Still in the guest's memory: the address range must not be used for anything else.
                std::mem::forget(part);
            }
        }
    }
}

fn hide(slots: &dyn MemorySlots, part: &mut Part) {
    if let Some(Slot(number)) = part.slot.take()
        && let Err(error) = slots.unmap(Slot(number))
    {
        tracing::error!(bar = %part.bar, %error, "a BAR stays in the guest's memory");
        part.slot = Some(Slot(number));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns the whole pages of a BAR of `size` bytes that lie in `areas` and not in a page of `trapped`.
fn mappable(
    size: u64,
    areas: impl Iterator<Item = Range<u64>>,
    trapped: &[Range<u64>],
) -> Vec<Range<u64>> {
    let mut parts: Vec<_> = areas
        .filter_map(|area| {
            let start = area.start.checked_next_multiple_of(PAGE)?;
            let end = area.end.min(size) / PAGE * PAGE;
            (start < end).then_some(start..end)
        })
        .collect();
    for hole in trapped {
        let start = hole.start / PAGE * PAGE;
        let end = hole.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        parts = parts
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(start), part.start.max(end)..part.end])
            .filter(|part| part.start < part.end)
            .collect();
    }
    // Areas that overlap would become slots that overlap.
    parts.sort_by_key(|part| part.start);
    let mut last = 0;
    parts.retain(|part| {
        let apart = part.start >= last;
        if apart {
            last = part.end;
        }
        apart
    });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_pages_of_an_msix_table_are_cut_out_of_its_bar() {
        let whole = std::iter::once(0..0x4000);
        let trapped = [0..0x50, 0x2000..0x2008];
        assert_eq!(mappable(0x4000, whole, &trapped), [0x1000..0x2000, 0x3000..0x4000]);
    }

    #[test]
    fn a_bar_smaller_than_a_page_is_not_mapped() {
        assert_eq!(mappable(0x800, std::iter::once(0..0x800), &[]), []);
    }

    #[test]
    fn areas_that_are_not_whole_pages_shrink_to_the_pages_in_them() {
        let parts = mappable(0x8000, std::iter::once(0x10..0x3010), &[]);
        assert_eq!(parts, std::slice::from_ref(&(0x1000..0x3000)));
    }

    proptest! {
        #[test]
        fn mapped_parts_are_pages_inside_the_bar_apart_from_each_other_and_from_what_is_trapped(
            areas in prop::collection::vec((0u64..0x12000, 0u64..0x12000), 0..5),
            trapped in prop::collection::vec((0u64..0x12000, 1u64..0x3000), 0..3),
        ) {
            let trapped: Vec<_> = trapped.into_iter().map(|(at, size)| at..at + size).collect();
            let areas = areas.into_iter().map(|(at, size)| at..at + size);
            let parts = mappable(0x10000, areas, &trapped);
            for part in &parts {
                prop_assert!(part.start % PAGE == 0 && part.end % PAGE == 0);
                prop_assert!(part.start < part.end && part.end <= 0x10000);
                for hole in &trapped {
                    prop_assert!(part.end <= hole.start || hole.end <= part.start);
                }
            }
            for pair in parts.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
        }
    }
}
