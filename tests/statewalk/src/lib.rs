//! Exhaustive tests of pure state machines: every state that a small world can be in is visited, breadth first.
//!
//! A [`World`] is a state machine together with whoever watches that it keeps its promises, and names what can happen to it next. [`walk`] has
//! everything happen in every state. It ends when no state is left that was not visited (the walk is then *complete*: the promises hold for
//! every sequence of these events, however long), at a given depth, or at the first broken promise, with the shortest way there.
//!
//! ```
//! use statewalk::{World, walk};
//!
//! /// A door that must not open while it is locked.
//! #[derive(Clone)]
//! struct Door { locked: bool, open: bool }
//!
//! impl World for Door {
//!     type Event = &'static str;
//!     type Identity = (bool, bool);
//!
//!     fn events(&self) -> Vec<&'static str> {
//!         vec!["lock", "unlock", "push", "pull"]
//!     }
//!     fn identity(&self) -> (bool, bool) {
//!         (self.locked, self.open)
//!     }
//!     fn step(&mut self, event: &&'static str) -> Result<(), String> {
//!         match *event {
//!             "lock" => self.locked = !self.open,
//!             "unlock" => self.locked = false,
//!             "push" => self.open = self.open || !self.locked,
//!             _ => self.open = false,
//!         }
//!         if self.locked && self.open { Err("it is open and locked".to_owned()) } else { Ok(()) }
//!     }
//! }
//!
//! let seen = walk(Door { locked: false, open: false }, usize::MAX).unwrap();
//! assert!(seen.complete);
//! assert_eq!(seen.states, 3);
//! ```
//!
//! What a walk does not find is what its world leaves out: a third domain, a second device, time that passes in other steps. So a world is kept with
//! planted faults that the walk has to find. For tests only: no program of Bulkhead's is built with it.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::mem;

/// A state machine, and whoever watches it.
pub trait World: Clone {
    /// What can happen.
    type Event: Clone + Debug;
    /// What tells one state from another.
    type Identity: Eq + Hash;

    /// Returns everything that can happen next.
    fn events(&self) -> Vec<Self::Event>;

    /// Returns the state, as far as what comes later depends on it. Of two worlds with the same identity only the first is looked at any
    /// further, so what is left out here must make no difference to any promise.
    fn identity(&self) -> Self::Identity;

    /// Applies an event to the world.
    ///
    /// # Errors
    /// The promise that this breaks.
    fn step(&mut self, event: &Self::Event) -> Result<(), String>;

    /// Looks at a state that was not met before, once: for promises that are of states and cost too much to look at after each event.
    ///
    /// # Errors
    /// The promise that is not kept in it.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What a walk has seen in which no promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// States that were visited.
    pub states: usize,
    /// Events that happened in them.
    pub steps: usize,
    /// The most events that lie between the start and any of them, on the shortest way.
    pub depth: usize,
    /// Whether no other state can be reached.
    pub complete: bool,
}

/// The shortest way to a broken promise.
#[derive(Clone, PartialEq, Eq)]
pub struct Broken<E> {
    /// What happened, in order.
    pub way: Vec<E>,
    /// What was promised, or what happened instead.
    pub promise: String,
}

impl<E: Debug> Debug for Broken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.promise)?;
        self.way
            .iter()
            .enumerate()
            .try_for_each(|(at, event)| write!(f, "\n  {}. {event:?}", at + 1))
    }
}

/// Visits every state that lies at most `depth` events from `start`.
///
/// # Errors
/// The first broken promise; there is none on a shorter way.
pub fn walk<W: World>(start: W, depth: usize) -> Result<Seen, Broken<W::Event>> {
    let mut known = HashSet::from([start.identity()]);
    // How each state was first reached: from which, and by what.
    let mut reached: Vec<Option<(usize, W::Event)>> = vec![None];
    let mut frontier = vec![(0, start)];
    let mut seen = Seen { states: 1, steps: 0, depth: 0, complete: true };
    while !frontier.is_empty() {
        if seen.depth == depth {
            return Ok(Seen { complete: false, ..seen });
        }
        for (number, world) in mem::take(&mut frontier) {
            for event in world.events() {
                let mut next = world.clone();
                seen.steps += 1;
                if let Err(promise) = next.step(&event) {
                    return Err(Broken { way: way(&reached, number, event), promise });
                }
                if known.insert(next.identity()) {
                    if let Err(promise) = next.check() {
                        return Err(Broken { way: way(&reached, number, event), promise });
                    }
                    frontier.push((reached.len(), next));
                    reached.push(Some((number, event)));
                }
            }
        }
        seen.states = reached.len();
        seen.depth += usize::from(!frontier.is_empty());
    }
    Ok(seen)
}

/// Returns the events that lead to a state, and the one after them.
fn way<E: Clone>(reached: &[Option<(usize, E)>], mut at: usize, last: E) -> Vec<E> {
    let mut way = vec![last];
    while let Some(Some((before, event))) = reached.get(at) {
        way.push(event.clone());
        at = *before;
    }
    way.reverse();
    way
}

/// Returns the bytes that a value is hashed by: an identity made of parts that can be hashed and not kept. Two values of one type have the same
/// bytes only if they are equal, as long as their `Hash` is derived.
#[must_use]
pub fn bytes_of(value: &impl Hash) -> Box<[u8]> {
    struct Bytes(Vec<u8>);
    impl Hasher for Bytes {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn finish(&self) -> u64 {
            0 // nobody asks for it
        }
    }
    let mut bytes = Bytes(Vec::new());
    value.hash(&mut bytes);
    bytes.0.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A lamp that goes through so many states, and breaks its promise in one of them.
    #[derive(Clone, Debug)]
    struct Lamp {
        at: u32,
        states: u32,
        faulty: Option<u32>,
        /// In this state it is not as it should be, however it came there, which is looked at so often.
        wrong: Option<u32>,
        looks: Rc<Cell<u32>>,
    }

    fn lamp() -> Lamp {
        Lamp { at: 0, states: 7, faulty: None, wrong: None, looks: Rc::default() }
    }

    impl World for Lamp {
        type Event = u32;
        type Identity = u32;

        fn events(&self) -> Vec<u32> {
            vec![1, 2]
        }

        fn identity(&self) -> u32 {
            self.at
        }

        fn step(&mut self, event: &u32) -> Result<(), String> {
            self.at = (self.at + event) % self.states;
            if self.faulty == Some(self.at) { Err("it stays on".to_owned()) } else { Ok(()) }
        }

        fn check(&self) -> Result<(), String> {
            self.looks.set(self.looks.get() + 1);
            if self.wrong == Some(self.at) { Err("it is dark".to_owned()) } else { Ok(()) }
        }
    }

    #[test]
    fn every_state_is_visited_once_and_the_walk_says_that_no_other_can_be_reached() {
        let lamp = lamp();
        let all = Seen { states: 7, steps: 14, depth: 3, complete: true };
        assert_eq!(walk(lamp.clone(), usize::MAX), Ok(all));
        assert_eq!(lamp.looks.get(), 6, "each but the first is looked at once");
        assert_eq!(walk(lamp.clone(), 4), Ok(all));
        // At this depth it is not known yet that there is nothing more.
        assert_eq!(
            walk(lamp.clone(), 3),
            Ok(Seen { states: 7, steps: 10, depth: 3, complete: false })
        );
        assert_eq!(walk(lamp, 0), Ok(Seen { states: 1, steps: 0, depth: 0, complete: false }));
    }

    #[test]
    fn a_broken_promise_is_found_by_the_shortest_way_and_shown_as_it_happened() {
        let lamp = Lamp { faulty: Some(5), ..lamp() };
        let broken = walk(lamp.clone(), usize::MAX).unwrap_err();
        assert_eq!(broken.way, [1, 2, 2]);
        assert_eq!(format!("{broken:?}"), "it stays on\n  1. 1\n  2. 2\n  3. 2");
        let wrong = Lamp { faulty: None, wrong: Some(4), ..lamp };
        let broken = walk(wrong, usize::MAX).unwrap_err();
        assert_eq!((broken.promise.as_str(), &broken.way[..]), ("it is dark", &[2, 2][..]));
    }

    #[test]
    fn values_have_the_same_bytes_only_if_they_are_equal() {
        let values: [(Vec<u8>, Vec<u8>, Option<u8>); 6] = [
            (vec![], vec![], None),
            (vec![1], vec![], None),
            (vec![], vec![1], None),
            (vec![], vec![], Some(0)),
            (vec![], vec![], Some(1)),
            (vec![0], vec![], None),
        ];
        for one in &values {
            let same = values.iter().filter(|other| bytes_of(*other) == bytes_of(one)).count();
            assert_eq!((same, bytes_of(one)), (1, bytes_of(&one.clone())));
        }
    }
}
