//! Resources: pictures that lie in guest memory. Nothing of a picture is kept on this side.

use std::collections::BTreeMap;
use std::sync::Arc;

use seat_link::{PIXEL_BYTES, Rect, Size};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::command::Entry;
use super::spec::FORMATS;
use crate::GuestMemory;

/// The most resources at once. Linux has one for each buffer of each client that scans out.
pub(super) const RESOURCES_MAX: usize = 1024;
/// The most runs of guest memory behind all of them: 4 MiB of ours, a gigabyte of the guest's page by page.
pub(super) const ENTRIES_TOTAL_MAX: usize = 256 << 10;
/// The widest and highest resource; larger ones no screen could show.
const SIDE_MAX: u32 = 16 << 10;

/// Why a command on a resource was refused; the driver is told no more than the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too much of something.
    OutOfMemory,
    /// No such resource, or one of that number already.
    Resource,
    /// There is no scanout of this number.
    Scanout,
    /// A value that cannot be.
    Parameter,
}

/// A picture of the guest's: where its rows lie in guest memory, one after the other without gaps.
#[derive(Debug)]
pub(super) struct Resource {
    size: Size,
    backing: Vec<Run>,
}

/// A run of guest memory, and where in the picture's bytes it begins.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    address: u64,
    len: u64,
}

impl Resource {
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Returns whether `rect` lies within the picture.
    pub(super) fn contains(&self, rect: Rect) -> bool {
        let right = u64::from(rect.x) + u64::from(rect.width);
        let bottom = u64::from(rect.y) + u64::from(rect.height);
        right <= self.size.width.into() && bottom <= self.size.height.into()
    }

    /// Returns where the first pixel of `rect` lies among the picture's bytes.
    pub(super) fn offset(&self, rect: Rect) -> u64 {
        let pixels = u64::from(rect.y) * u64::from(self.size.width) + u64::from(rect.x);
        pixels * u64::from(PIXEL_BYTES)
    }

    /// Shows `each` the picture's bytes from `offset` on, `len` of them, run by run; bytes without
    /// backing, or whose backing is not guest memory, are left out.
    ///
    /// `each` gets how far into the `len` bytes a part begins, and the part.
    pub(super) fn bytes(
        &self,
        memory: &GuestMemory,
        offset: u64,
        len: usize,
        mut each: impl FnMut(usize, VolatileSlice<'_>),
    ) {
        let first = self.backing.partition_point(|run| run.start + run.len <= offset);
        let mut done = 0usize;
        for run in self.backing.get(first..).unwrap_or_default() {
            if done >= len {
                return;
            }
            let Some(skip) = (offset + done as u64).checked_sub(run.start) else { return };
            let Ok(left) = usize::try_from(run.len.saturating_sub(skip)) else { return };
            let part = left.min(len - done);
            let at = run.address.checked_add(skip).map(GuestAddress);
            if let Some(slice) = at.and_then(|at| memory.get_slice(at, part).ok()) {
                each(done, slice);
            }
            done += part;
        }
    }
}

/// All resources of a driver.
#[derive(Debug, Default)]
pub(super) struct Resources {
    all: BTreeMap<u32, Resource>,
    entries: usize,
}

impl Resources {
    pub(super) fn get(&self, id: u32) -> Result<&Resource, Refusal> {
        self.all.get(&id).ok_or(Refusal::Resource)
    }

    /// Makes a resource, as `VIRTIO_GPU_CMD_RESOURCE_CREATE_2D` asks for it.
    pub(super) fn create(&mut self, id: u32, format: u32, size: Size) -> Result<(), Refusal> {
        if id == 0 || self.all.contains_key(&id) {
            return Err(Refusal::Resource);
        }
        let side = 1..=SIDE_MAX;
        if !FORMATS.contains(&format) || !side.contains(&size.width) || !side.contains(&size.height)
        {
            return Err(Refusal::Parameter);
        }
        if self.all.len() >= RESOURCES_MAX {
            return Err(Refusal::OutOfMemory);
        }
        self.all.insert(id, Resource { size, backing: Vec::new() });
        Ok(())
    }

    /// Drops a resource, as `VIRTIO_GPU_CMD_RESOURCE_UNREF` asks for it.
    pub(super) fn unref(&mut self, id: u32) -> Result<(), Refusal> {
        let resource = self.all.remove(&id).ok_or(Refusal::Resource)?;
        self.entries = self.entries.saturating_sub(resource.backing.len());
        Ok(())
    }

    /// Gives a resource its pages, as `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING` asks for it. Runs that follow each other become one.
    pub(super) fn attach(
        &mut self,
        memory: &Arc<GuestMemory>,
        id: u32,
        entries: &[Entry],
    ) -> Result<(), Refusal> {
        let resource = self.all.get_mut(&id).ok_or(Refusal::Resource)?;
        if !resource.backing.is_empty() {
            return Err(Refusal::Resource);
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0u64;
        for entry in entries {
            let len = u64::from(entry.len);
            if len == 0 {
                continue;
            }
            if !memory.check_range(GuestAddress(entry.address), entry.len as usize) {
                return Err(Refusal::Parameter);
            }
            match runs.last_mut() {
                Some(last)
                    if last.address + last.len == entry.address
                        && memory
                            .get_slice(GuestAddress(last.address), usize_of(last.len + len))
                            .is_ok() =>
                {
                    last.len += len;
                }
                _ => runs.push(Run { start, address: entry.address, len }),
            }
            start += len;
        }
        if self.entries + runs.len() > ENTRIES_TOTAL_MAX {
            return Err(Refusal::OutOfMemory);
        }
        self.entries += runs.len();
        resource.backing = runs;
        Ok(())
    }

    /// Takes a resource its pages, as `VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING` asks for it.
    pub(super) fn detach(&mut self, id: u32) -> Result<(), Refusal> {
        let resource = self.all.get_mut(&id).ok_or(Refusal::Resource)?;
        self.entries = self.entries.saturating_sub(resource.backing.len());
        resource.backing.clear();
        Ok(())
    }
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
