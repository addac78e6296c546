//! Walks all states of a model, breadth first.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A model whose states are walked.
pub(super) trait Model {
    type State: Clone + Eq + Hash;
    type Step: Clone + Debug;

    /// Returns what may happen next.
    fn steps(&self, state: &Self::State) -> Vec<Self::Step>;

    /// Takes a step.
    ///
    /// # Errors
    /// The promise that is broken by it.
    fn take(&self, state: &Self::State, step: &Self::Step) -> Result<Self::State, String>;

    /// Looks at a state that was not met before.
    ///
    /// # Errors
    /// The promise that is not kept in it.
    fn look(&self, state: &Self::State) -> Result<(), String>;
}

/// A promise that is not kept.
#[derive(Debug)]
pub(super) struct Broken<S> {
    pub(super) promise: String,
    /// The shortest way there.
    pub(super) way: Vec<S>,
}

/// Walks from here to all states there are, if that are not more than `most`; how many.
pub(super) fn walk<M: Model>(
    model: &M,
    start: M::State,
    most: usize,
) -> Result<usize, Broken<M::Step>> {
    let mut known: HashSet<M::State> = HashSet::from([start.clone()]);
    let mut came: Vec<Option<(usize, M::Step)>> = vec![None];
    let (mut level, mut next) = (vec![(0, start)], Vec::new());
    let way = |came: &[Option<(usize, M::Step)>], mut at: usize, last: &M::Step| {
        let mut way = vec![last.clone()];
        while let Some((before, step)) = &came[at] {
            way.push(step.clone());
            at = *before;
        }
        way.reverse();
        way
    };
    while !level.is_empty() {
        for (at, state) in level.drain(..) {
            for step in model.steps(&state) {
                let taken = model.take(&state, &step);
                if taken.as_ref().is_ok_and(|state| known.contains(state)) {
                    continue;
                }
                let looked = taken.and_then(|state| model.look(&state).map(|()| state));
                match looked {
                    Ok(state) => {
                        known.insert(state.clone());
                        next.push((came.len(), state));
                        came.push(Some((at, step)));
                    }
                    Err(promise) => return Err(Broken { promise, way: way(&came, at, &step) }),
                }
                if came.len() > most {
                    let promise = format!("there are more than {most} states");
                    return Err(Broken { promise, way: Vec::new() });
                }
            }
        }
        std::mem::swap(&mut level, &mut next);
    }
    Ok(known.len())
}

#[test]
fn the_walk_reaches_every_state_and_finds_the_shortest_way_to_a_broken_promise() {
    /// A number that is doubled or grows by one, below 100.
    struct Numbers(u32);
    impl Model for Numbers {
        type State = u32;
        type Step = char;
        fn steps(&self, _: &u32) -> Vec<char> {
            vec!['+', '*']
        }
        fn take(&self, state: &u32, step: &char) -> Result<u32, String> {
            let next = if *step == '+' { state + 1 } else { state * 2 };
            Ok(next % 100)
        }
        fn look(&self, state: &u32) -> Result<(), String> {
            if *state == self.0 { Err("met".to_owned()) } else { Ok(()) }
        }
    }
    assert_eq!(walk(&Numbers(1000), 1, 1000).unwrap(), 100);
    assert_eq!(walk(&Numbers(10), 1, 1000).unwrap_err().way, ['+', '*', '+', '*']);
    assert!(walk(&Numbers(1000), 1, 50).unwrap_err().promise.contains("more than 50"));
}
