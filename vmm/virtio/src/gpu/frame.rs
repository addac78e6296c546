//! Frame memory: where the agent reads the guest's screen.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use seat_link::{PIXEL_BYTES, Rect, Size};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::resource::Resource;
use crate::GuestMemory;

/// Frame memory of one screen, mapped: XRGB8888, rows without gaps, top row first.
#[derive(Debug)]
pub struct Frame {
    size: Size,
    region: MmapRegion,
}

impl Frame {
    /// Maps the frame memory of a screen of this size.
    ///
    /// # Errors
    /// The size is no screen's, or the file is too small for it or cannot be mapped.
    pub fn map(mut file: File, size: Size) -> io::Result<Self> {
        let bytes = size.frame_bytes();
        // Not by a call that takes a path (statx), which no thread of a closed sandbox has a use for.
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        if bytes == 0 || length < bytes as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let region =
            MmapRegion::from_file(FileOffset::new(file, 0), bytes).map_err(io::Error::other)?;
        Ok(Self { size, region })
    }

    /// Returns the pixels across and down.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Copies a part of the guest's picture, once, to where it is seen: `rect` in the resource's pixels,
    /// `origin` the resource's pixel that is at the screen's top left. Returns what was written, in the
    /// screen's pixels.
    pub(super) fn copy(
        &self,
        memory: &GuestMemory,
        resource: &Resource,
        origin: Rect,
        rect: Rect,
    ) -> Rect {
        let seen = rect.shared(origin);
        let place = Rect { x: seen.x - origin.x, y: seen.y - origin.y, ..seen };
        let place = place.within(self.size);
        if seen.is_empty() || place.is_empty() {
            return Rect::default();
        }
        let row_bytes = (place.width * PIXEL_BYTES) as usize;
        let whole_rows = place.x == 0
            && place.width == self.size.width
            && self.size.width == resource.size().width;
        // Whole rows lie one after the other on both sides.
        let (rows, bytes) = if whole_rows {
            (1, row_bytes * place.height as usize)
        } else {
            (place.height, row_bytes)
        };
        for row in 0..rows {
            let from =
                Rect { x: origin.x + place.x, y: origin.y + place.y + row, width: 1, height: 1 };
            let to = (u64::from(place.y + row) * u64::from(self.size.width) + u64::from(place.x))
                * u64::from(PIXEL_BYTES);
            let Some(to) = usize::try_from(to).ok() else { continue };
            resource.bytes(memory, resource.offset(from), bytes, |at, part| {
                if let Ok(target) = self.region.get_slice(to + at, part.len()) {
                    part.copy_to_volatile_slice(target);
                }
            });
        }
        place
    }

    /// Makes the whole screen black.
    pub(super) fn clear(&self) {
        const BLACK: [u8; 4096] = [0; 4096];
        let len = self.size.frame_bytes();
        for at in (0..len).step_by(BLACK.len()) {
            let part = BLACK.get(..BLACK.len().min(len - at)).unwrap_or_default();
            if let Ok(target) = self.region.get_slice(at, part.len()) {
                target.copy_from(part);
            }
        }
    }

    /// Returns the whole of the memory.
    #[must_use]
    pub fn bytes(&self) -> VolatileSlice<'_> {
        self.region.as_volatile_slice()
    }
}
