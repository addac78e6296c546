//! A stand-in for KVM's interrupt routing that records what it was told.

use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::host::{MsiController, MsiError, MsiMessage, MsiVector};

#[derive(Default)]
struct State {
    vectors: Vec<(EventFd, Option<MsiMessage>)>,
    calls: usize,
}

/// A stand-in for the host's interrupt routing, and what it was told. Vectors are numbered in the order they were allocated.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<State>>);

impl Recorder {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns where vector `index` delivers to; `None` while masked.
    pub fn live(&self, index: u16) -> Option<MsiMessage> {
        self.with(|s| s.vectors.get(usize::from(index)).and_then(|(_, message)| *message))
    }

    /// Returns whether something was signalled on vector `index`; looking does not take it.
    pub fn waiting(&self, index: u16) -> bool {
        self.with(|s| {
            s.vectors.get(usize::from(index)).is_some_and(|(fd, _)| match fd.read() {
                Ok(count) => fd.write(count).is_ok(),
                Err(_) => false,
            })
        })
    }

    /// Takes what was signalled on vector `index`.
    pub fn take(&self, index: u16) -> bool {
        self.with(|s| s.vectors.get(usize::from(index)).is_some_and(|(fd, _)| fd.read().is_ok()))
    }

    /// Returns how often a vector was masked or unmasked.
    pub fn calls(&self) -> usize {
        self.with(|s| s.calls)
    }
}

struct Vector {
    recorder: Recorder,
    index: usize,
    trigger: EventFd,
}

impl Vector {
    fn set(&self, message: Option<MsiMessage>) {
        self.recorder.with(|s| {
            s.calls += 1;
            if let Some((_, slot)) = s.vectors.get_mut(self.index) {
                *slot = message;
            }
        });
    }
}

impl MsiController for Recorder {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, MsiError> {
        let trigger = EventFd::new(EFD_NONBLOCK).map_err(MsiError::EventFd)?;
        let copy = trigger.try_clone().map_err(MsiError::EventFd)?;
        let index = self.with(|s| {
            s.vectors.push((copy, None));
            s.vectors.len() - 1
        });
        Ok(Box::new(Vector { recorder: self.clone(), index, trigger }))
    }
}

/// `EFD_NONBLOCK` (eventfd(2)); the same as `O_NONBLOCK`.
const EFD_NONBLOCK: i32 = 0o4000;

impl MsiVector for Vector {
    fn trigger(&self) -> &EventFd {
        &self.trigger
    }

    fn unmask(&mut self, message: MsiMessage) -> Result<(), MsiError> {
        self.set(Some(message));
        Ok(())
    }

    fn mask(&mut self) -> Result<(), MsiError> {
        self.set(None);
        Ok(())
    }

    fn pending(&self) -> bool {
        self.recorder.waiting(u16::try_from(self.index).unwrap_or(u16::MAX))
    }

    fn clear(&mut self) {
        let _ = self.trigger.read();
    }
}
