//! What is new for the agent: gathered until the last update was taken, and kept for the next agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seat_link::{Channel, CursorChange, Rect, ToAgent, Update};

/// News of several threads, sent as one update at a time.
#[derive(Default)]
pub(super) struct Outbox(Mutex<State>);

#[derive(Default)]
struct State {
    channel: Option<Arc<Channel>>,
    news: Update,
    /// What the guest last did with its cursor: an agent that comes has not seen it.
    cursor: CursorChange,
    changed: bool,
    /// Whether an update was sent and not acknowledged yet.
    on_its_way: bool,
}

impl Outbox {
    /// Begins with an agent that knows nothing yet. The picture comes with the frame memory that it gives.
    pub(super) fn begin(&self, channel: Arc<Channel>) {
        let mut state = self.lock();
        state.channel = Some(channel);
        state.on_its_way = false;
        state.news.picture = None;
        state.news.damage = Rect::default();
        state.news.cursor = state.cursor.clone();
        // One that is told nothing new need not be told it.
        state.changed = state.news != Update::default();
        self.send(&mut state);
    }

    /// Ends with the agent, which is gone.
    pub(super) fn end(&self) {
        self.lock().channel = None;
    }

    /// Changes the update that waits, and wakes the thread that sends it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Update)) {
        let mut state = self.lock();
        change(&mut state.news);
        if state.news.cursor != CursorChange::Same {
            state.cursor = state.news.cursor.clone();
        }
        state.changed = true;
        self.send(&mut state);
    }

    /// Takes it that the agent took the last update.
    pub(super) fn acknowledged(&self) {
        let mut state = self.lock();
        state.on_its_way = false;
        self.send(&mut state);
    }

    /// Sends what the kernel had no memory for when it was new.
    pub(super) fn catch_up(&self) {
        self.send(&mut self.lock());
    }

    fn send(&self, state: &mut State) {
        let Some(channel) = &state.channel else { return };
        if !state.changed || state.on_its_way {
            return;
        }
        // A link whose other end is gone is noticed where it is read.
        if matches!(channel.send(&ToAgent::Update(state.news.clone()).encode()), Ok(true)) {
            state.on_its_way = true;
            state.changed = false;
            state.news.damage = Rect::default();
            state.news.cursor = CursorChange::Same;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
