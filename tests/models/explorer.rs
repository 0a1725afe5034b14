//! Visits every state that a model can reach, by every interleaving of its actors' steps, and keeps the shortest way to the
//! first wrong state.
//!
//! The search is breadth first: all states after one step, then all states after two steps, until there is no new state.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Debug, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Actors and their shared state. A step of an actor is atomic: one command to Redis, one script, one read of the database, or
/// one commit.
pub(crate) trait Model {
    type State: Copy + Debug + Eq + Hash;

    fn start(&self) -> Self::State;

    /// Adds every step that an actor can take next.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// Returns what is wrong in this state, if anything.
    fn wrong(&self, state: &Self::State) -> Option<Wrong>;

    /// Returns what is wrong in this state if no actor has anything left to do.
    fn wrong_at_rest(&self, state: &Self::State) -> Option<Wrong>;
}

/// The errors of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Redis holds a value that is older than an acknowledged eviction.
    StaleEntry,
    /// A call returned a value that is older than an eviction that was acknowledged before the call began.
    StaleAnswer,
    /// A process serves a value without a question that was evicted longer ago than the bound.
    TooOld,
    /// All actors have finished, and Redis holds another value than the database.
    StaleAtRest,
    /// An actor waits forever.
    Stuck,
    /// More loads of a key run than may.
    TooManyLoads,
}

/// The actor that takes a step. The clock and the network may take their steps at any time or never: a state in which only
/// they have steps is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Reader(u8),
    Writer(u8),
    Recovery,
    Clock,
    Network,
}

/// The steps that lead out of one state.
#[derive(Debug)]
pub(crate) struct Steps<S>(Vec<(Step, S)>);

#[derive(Clone, Copy, Debug)]
struct Step {
    who: Who,
    what: &'static str,
}

/// The result of a search.
#[derive(Debug)]
pub(crate) struct Explored {
    states: usize,
    /// The number of steps by name.
    steps: BTreeMap<&'static str, usize>,
    violation: Option<Violation>,
}

#[derive(Debug)]
struct Violation {
    wrong: Wrong,
    trace: Vec<Step>,
    state: String,
}

impl<S> Steps<S> {
    pub(crate) fn add(&mut self, who: Who, what: &'static str, next: S) {
        self.0.push((Step { who, what }, next));
    }
}

pub(crate) fn explore<M: Model>(model: &M) -> Explored {
    let mut seen: HashSet<M::State, BuildHasherDefault<Fold>> = HashSet::default();
    seen.insert(model.start());
    // The states in the order in which they were found, each with its previous state and the step from there.
    let mut found = vec![(model.start(), None)];
    let mut explored = Explored {
        states: 0,
        steps: BTreeMap::new(),
        violation: None,
    };

    let mut next = 0;
    while next < found.len() {
        let (state, _) = found[next];
        let mut steps = Steps(Vec::new());
        model.steps(&state, &mut steps);

        let is_at_rest = steps.0.iter().all(|(step, _)| step.who.is_outside());
        let wrong = model
            .wrong(&state)
            .or_else(|| is_at_rest.then(|| model.wrong_at_rest(&state)).flatten());
        if let Some(wrong) = wrong {
            explored.violation = Some(Violation {
                wrong,
                trace: trace(&found, next),
                state: format!("{state:?}"),
            });
            break;
        }

        for (step, state) in steps.0 {
            *explored.steps.entry(step.what).or_default() += 1;
            if seen.insert(state) {
                found.push((state, Some((next, step))));
            }
        }
        next += 1;
    }
    explored.states = found.len();
    explored
}

/// Multiplies and rotates, as rustc's own hasher does: there are many small states, and none is hostile.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(discriminant.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

/// Returns the steps from the start to a state.
fn trace<S>(found: &[(S, Option<(usize, Step)>)], to: usize) -> Vec<Step> {
    let mut trace = Vec::new();
    let mut at = to;
    while let Some((before, step)) = found[at].1 {
        trace.push(step);
        at = before;
    }
    trace.reverse();
    trace
}

impl Explored {
    /// Asserts that no state is wrong, that there were enough states, and that every step of `reached` was taken. A model in
    /// which nothing happens proves nothing.
    #[track_caller]
    #[expect(
        clippy::print_stdout,
        reason = "cargo shows it on request, or when the test fails"
    )]
    pub(crate) fn assert_holds(&self, at_least: usize, reached: &[&str]) {
        println!("holds\n{self}");
        if let Some(violation) = &self.violation {
            panic!("{violation}");
        }
        assert!(self.states >= at_least, "only {} states", self.states);
        for step in reached {
            assert!(
                self.steps.contains_key(step),
                "never reached: {step}\n{self}"
            );
        }
    }

    /// Asserts that the first error, after the fewest steps, is `wrong`.
    #[track_caller]
    #[expect(
        clippy::print_stdout,
        reason = "cargo shows it on request, or when the test fails"
    )]
    pub(crate) fn assert_breaks(&self, wrong: Wrong) {
        println!("{self}");
        let Some(violation) = &self.violation else {
            panic!("no error was found\n{self}");
        };
        println!("{violation}");
        assert_eq!(violation.wrong, wrong, "{violation}");
    }
}

impl Who {
    fn is_outside(self) -> bool {
        matches!(self, Self::Clock | Self::Network)
    }
}

impl Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} states", self.states)?;
        for (step, times) in &self.steps {
            writeln!(f, "{times:>10} × {step}")?;
        }
        Ok(())
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} after {} steps:", self.wrong, self.trace.len())?;
        for Step { who, what } in &self.trace {
            match who {
                Who::Reader(index) => writeln!(f, "    reader {index}: {what}")?,
                Who::Writer(index) => writeln!(f, "    writer {index}: {what}")?,
                Who::Recovery => writeln!(f, "    recovery: {what}")?,
                Who::Clock => writeln!(f, "    (clock) {what}")?,
                Who::Network => writeln!(f, "    (network) {what}")?,
            }
        }
        write!(f, "    => {}", self.state)
    }
}

/// Tests of the explorer: it must find an error that exists in a single interleaving, by the shortest way.
mod tests {
    use super::*;

    /// Two actors that read, add one, and write, without a lock.
    struct Counter {
        is_atomic: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct State {
        sum: u8,
        /// What each actor has read, and whether it has finished.
        read: [Option<u8>; 2],
        done: [bool; 2],
    }

    impl Model for Counter {
        type State = State;

        fn start(&self) -> State {
            State {
                sum: 0,
                read: [None; 2],
                done: [false; 2],
            }
        }

        fn steps(&self, state: &State, steps: &mut Steps<State>) {
            for (me, index) in (0..).zip(0..2) {
                let mut next = *state;
                let who = Who::Writer(me);
                match state.read[index] {
                    _ if state.done[index] => {}
                    _ if self.is_atomic => {
                        next.sum += 1;
                        next.done[index] = true;
                        steps.add(who, "adds", next);
                    }
                    None => {
                        next.read[index] = Some(state.sum);
                        steps.add(who, "reads", next);
                    }
                    Some(read) => {
                        next.sum = read + 1;
                        next.done[index] = true;
                        steps.add(who, "writes", next);
                    }
                }
            }
        }

        fn wrong(&self, _: &State) -> Option<Wrong> {
            None
        }

        fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
            (state.sum != 2).then_some(Wrong::StaleAtRest)
        }
    }

    #[test]
    fn a_lost_update_is_found_by_the_shortest_way() {
        let explored = explore(&Counter { is_atomic: false });

        explored.assert_breaks(Wrong::StaleAtRest);
        let violation = explored.violation.unwrap();
        let steps: Vec<_> = violation.trace.iter().map(|step| step.what).collect();
        assert_eq!(steps, ["reads", "reads", "writes", "writes"]);
    }

    #[test]
    fn every_state_is_visited_once() {
        let explored = explore(&Counter { is_atomic: true });

        explored.assert_holds(4, &["adds"]);
        assert_eq!(explored.states, 4);
    }
}
