//! Plain MSI: one message for up to 32 vectors (PCI Local Bus 3.0 section 6.8.1).
//!
//! Offered in its largest form, 64-bit with a mask a vector, whatever the hardware has: masking
//! happens in the [`MsiVector`]s, so the hardware need not know how.

use crate::host::{MsiController, MsiError, MsiMessage, MsiVector};

/// Capability ID of MSI.
pub const CAPABILITY_ID: u8 = 0x05;
/// Bytes of the capability after ID and link: control, address, data, mask, pending.
pub const BODY_SIZE: usize = 22;
/// Most vectors, as a power of two.
pub const VECTORS_LOG2_MAX: u8 = 5;

/// Offsets in the body.
mod offset {
    pub(super) const CONTROL: usize = 0;
    pub(super) const ADDRESS: usize = 2;
    pub(super) const DATA: usize = 10;
    pub(super) const MASK: usize = 14;
    pub(super) const PENDING: usize = 18;
}

const CONTROL_ENABLE: u8 = 1;
const CONTROL_CAPABLE_SHIFT: u8 = 1;
const CONTROL_ENABLED_SHIFT: u8 = 4;
/// 64-bit address, maskable: bits 7 and 8 of control.
const CONTROL_64: u8 = 1 << 7;
const CONTROL_MASKABLE: u8 = 1;

/// The state of a function's MSI.
pub struct Msi {
    body: [u8; BODY_SIZE],
    vectors: Vec<Box<dyn MsiVector>>,
    live: Vec<Option<MsiMessage>>,
}

impl Msi {
    /// Makes `2^log2` vectors, disabled.
    pub fn new(controller: &dyn MsiController, log2: u8) -> Result<Self, MsiError> {
        let log2 = log2.min(VECTORS_LOG2_MAX);
        let vectors: Vec<_> =
            (0..1 << log2).map(|_| controller.allocate()).collect::<Result<_, MsiError>>()?;
        let mut body = [0; BODY_SIZE];
        body[offset::CONTROL] = CONTROL_64 | log2 << CONTROL_CAPABLE_SHIFT;
        body[offset::CONTROL + 1] = CONTROL_MASKABLE;
        let live = vec![None; vectors.len()];
        Ok(Self { body, vectors, live })
    }

    /// Returns how many vectors there are.
    pub fn count(&self) -> u16 {
        // At most 32.
        self.vectors.len() as u16
    }

    /// Returns whether MSI is on.
    pub fn enabled(&self) -> bool {
        self.body[offset::CONTROL] & CONTROL_ENABLE != 0
    }

    /// Returns the vector itself, for a device that signals its eventfd.
    pub fn vector(&self, index: u16) -> Option<&dyn MsiVector> {
        self.vectors.get(usize::from(index)).map(|vector| &**vector)
    }

    /// Returns how many vectors the guest enabled; zero while MSI is off.
    pub fn in_use(&self) -> u16 {
        if !self.enabled() {
            return 0;
        }
        let log2 = (self.body[offset::CONTROL] >> CONTROL_ENABLED_SHIFT) & 7;
        (1 << log2.min(VECTORS_LOG2_MAX)).min(self.count())
    }

    /// Reads the body; zero beyond its end.
    pub fn read(&self, at: usize, data: &mut [u8]) {
        let mut body = self.body;
        let pending = self.pending().to_le_bytes();
        for (byte, bits) in body.iter_mut().skip(offset::PENDING).zip(pending) {
            *byte = bits;
        }
        for (byte, at) in data.iter_mut().zip(at..) {
            *byte = body.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes the body. Returns whether a vector became live or ceased to be.
    pub fn write(&mut self, at: usize, data: &[u8]) -> bool {
        for (new, at) in data.iter().zip(at..) {
            if let Some(byte) = self.body.get_mut(at) {
                let mask = writable(at);
                *byte = (*byte & !mask) | (new & mask);
            }
        }
        self.sync()
    }

    /// Disables every vector and forgets what is pending.
    pub fn reset(&mut self) {
        for (at, byte) in self.body.iter_mut().enumerate() {
            *byte &= !writable(at);
        }
        self.sync();
        for vector in &mut self.vectors {
            vector.clear();
        }
    }

    fn word(&self, at: usize) -> u32 {
        let byte = |i: usize| u32::from(self.body.get(at + i).copied().unwrap_or(0)) << (8 * i);
        byte(0) | byte(1) | byte(2) | byte(3)
    }

    fn pending(&self) -> u32 {
        self.vectors.iter().zip(&self.live).zip(0..).fold(0, |bits, ((vector, live), index)| {
            bits | u32::from(live.is_none() && vector.pending()) << index
        })
    }

    fn sync(&mut self) -> bool {
        let address =
            u64::from(self.word(offset::ADDRESS)) | u64::from(self.word(offset::ADDRESS + 4)) << 32;
        let data = self.word(offset::DATA) & 0xffff;
        let masked = self.word(offset::MASK);
        let in_use = u32::from(self.in_use());
        let mut changed = false;
        for ((vector, live), index) in self.vectors.iter_mut().zip(&mut self.live).zip(0u32..) {
            let open = index < in_use && masked >> index & 1 == 0;
            // The device writes the vector's number into the low bits of the data.
            let low = in_use.saturating_sub(1);
            let wanted = open.then_some(MsiMessage { address, data: data & !low | index & low });
            if *live == wanted {
                continue;
            }
            let result = match wanted {
                Some(message) => vector.unmask(message),
                None => vector.mask(),
            };
            match result {
                Ok(()) => {
                    *live = wanted;
                    changed = true;
                }
                Err(error) => {
                    tracing::warn!(index, %error, "an interrupt vector does not work");
                }
            }
        }
        changed
    }
}

/// Returns which bits of the body's byte a guest may write.
fn writable(at: usize) -> u8 {
    match at {
        offset::CONTROL => CONTROL_ENABLE | 7 << CONTROL_ENABLED_SHIFT,
        offset::ADDRESS => 0xfc,
        3..=11 | 14..=17 => 0xff,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Recorder;
    use proptest::prelude::*;

    #[test]
    fn enabled_vectors_deliver_with_their_number_in_the_data() {
        let recorder = Recorder::default();
        let mut msi = Msi::new(&recorder, 2).unwrap();
        msi.write(offset::ADDRESS, &0xfee0_1000u64.to_le_bytes());
        msi.write(offset::DATA, &0x4030u16.to_le_bytes());
        msi.write(offset::MASK, &[0b0010]);
        assert!(msi.write(offset::CONTROL, &[CONTROL_ENABLE | 2 << CONTROL_ENABLED_SHIFT]));
        assert_eq!(msi.in_use(), 4);
        assert_eq!(recorder.live(3), Some(MsiMessage { address: 0xfee0_1000, data: 0x4033 }));
        assert_eq!(recorder.live(1), None);
        msi.vector(1).unwrap().trigger().write(1).unwrap();
        let mut pending = [0; 4];
        msi.read(offset::PENDING, &mut pending);
        assert_eq!(pending, [0b10, 0, 0, 0]);
        msi.reset();
        assert!((0..4).all(|i| recorder.live(i).is_none() && !recorder.waiting(i)));
    }

    proptest! {
        #[test]
        fn any_write_leaves_only_enabled_unmasked_vectors_live(
            writes in prop::collection::vec((0usize..30, prop::collection::vec(any::<u8>(), 1..5)), 0..40)
        ) {
            let recorder = Recorder::default();
            let mut msi = Msi::new(&recorder, 5).unwrap();
            for (at, data) in writes {
                msi.write(at, &data);
                msi.read(at, &mut [0; 4]);
                for index in 0..32u16 {
                    let open = index < msi.in_use() && msi.word(offset::MASK) >> index & 1 == 0;
                    prop_assert_eq!(recorder.live(index).is_some(), open);
                }
            }
        }
    }
}
