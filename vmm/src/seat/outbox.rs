//! What is new for the agent: gathered until the last update was taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use link::{Channel, CursorChange, Rect, ToAgent, Update};

/// News of several threads, sent as one update at a time.
pub(super) struct Outbox {
    channel: Arc<Channel>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    news: Update,
    changed: bool,
    /// An update was sent and not taken yet.
    on_its_way: bool,
}

impl Outbox {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        Self { channel, state: Mutex::default() }
    }

    /// Something is new.
    pub(super) fn change(&self, change: impl FnOnce(&mut Update)) {
        let mut state = self.lock();
        change(&mut state.news);
        state.changed = true;
        self.send(&mut state);
    }

    /// The agent took the last update.
    pub(super) fn taken(&self) {
        let mut state = self.lock();
        state.on_its_way = false;
        self.send(&mut state);
    }

    /// Sends what the kernel had no memory for when it was new.
    pub(super) fn catch_up(&self) {
        self.send(&mut self.lock());
    }

    fn send(&self, state: &mut State) {
        if !state.changed || state.on_its_way {
            return;
        }
        // A link whose other end is gone is noticed where it is read.
        if matches!(self.channel.send(&ToAgent::Update(state.news.clone()).encode()), Ok(true)) {
            state.on_its_way = true;
            state.changed = false;
            state.news.damage = Rect::default();
            state.news.cursor = CursorChange::Same;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
