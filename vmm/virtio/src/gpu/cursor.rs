//! The cursor's picture.

use seat_link::{CURSOR_BYTES, CURSOR_SIDE, Cursor, CursorChange, Size};

use super::resource::Resource;
use crate::GuestMemory;

/// Returns the cursor that a resource pictures; one of another size than the specification's is not
/// shown (virtio 1.2 section 5.7.6.10).
pub(super) fn picture(
    memory: &GuestMemory,
    resource: &Resource,
    hot_x: u32,
    hot_y: u32,
) -> CursorChange {
    if (resource.size() != Size { width: CURSOR_SIDE, height: CURSOR_SIDE }) {
        return CursorChange::Hidden;
    }
    let mut pixels = vec![0; CURSOR_BYTES];
    resource.bytes(memory, 0, CURSOR_BYTES, |at, part| {
        if let Some(place) = pixels.get_mut(at..at + part.len()) {
            part.copy_to(place);
        }
    });
    let last = CURSOR_SIDE - 1;
    CursorChange::Shown(Box::new(Cursor { hot_x: hot_x.min(last), hot_y: hot_y.min(last), pixels }))
}
