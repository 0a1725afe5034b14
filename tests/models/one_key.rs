//! Readers and writers of one key, each in its own process. The first four models are built from it.

use crate::explorer::{Model, Steps, Who, Wrong};
use crate::reader::{Reader, Rules};
use crate::row::{Call, Clock, Row};
use crate::writer::{Task, Writer};

/// The most readers, and the most writers.
const CALLS: Call = 3;

#[derive(Clone, Debug)]
pub(crate) struct OneKey {
    pub(crate) start: Row,
    pub(crate) readers: usize,
    pub(crate) rules: Rules,
    pub(crate) writers: Vec<Task>,
    /// A writer begins when the previous ones have finished.
    pub(crate) one_after_another: bool,
    pub(crate) clock: Clock,
    /// Fences outlive every body; otherwise they can expire at any time.
    pub(crate) fences_outlive_bodies: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    row: Row,
    readers: [Reader; CALLS as usize],
    writers: [Writer; CALLS as usize],
}

impl Model for OneKey {
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            row: self.start,
            readers: [Reader::Done; CALLS as usize],
            writers: [Writer::Done; CALLS as usize],
        };
        state.readers[..self.readers].fill(Reader::Start);
        state.writers[..self.writers.len()].fill(Writer::Start);
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (me, reader) in (0..).zip(state.readers) {
            reader.steps(me, &state.row, self.rules, |what, reader, row| {
                let mut next = State { row, ..*state };
                next.readers[usize::from(me)] = reader;
                steps.add(Who::Reader(me), what, next);
            });
        }
        for (index, task) in (0..).zip(&self.writers) {
            let writer = state.writers[usize::from(index)];
            if self.one_after_another && !state.are_through(index) {
                continue;
            }
            // Readers and writers store under different stamps.
            let me = index + CALLS;
            writer.steps(me, *task, &state.row, |what, writer, row| {
                let mut next = State { row, ..*state };
                next.writers[usize::from(index)] = writer;
                steps.add(Who::Writer(index), what, next);
            });
        }
        let clock = Clock {
            ends_fences: self.clock.ends_fences
                && !(self.fences_outlive_bodies && state.is_anybody_writing()),
            ..self.clock
        };
        clock.steps(&state.row, |what, row| {
            steps.add(Who::Clock, what, State { row, ..*state });
        });
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        state.row.breaks_its_promise().then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_readers_done = state.readers.iter().all(|reader| *reader == Reader::Done);
        if !are_readers_done || !state.are_through(CALLS) {
            return Some(Wrong::Stuck);
        }
        state.row.is_outdated().then_some(Wrong::StaleAtRest)
    }
}

impl State {
    /// Returns whether the writers before this one have finished.
    fn are_through(&self, index: Call) -> bool {
        self.writers[..usize::from(index)]
            .iter()
            .all(|writer| matches!(writer, Writer::Done | Writer::Dead))
    }

    fn is_anybody_writing(&self) -> bool {
        self.writers
            .iter()
            .any(|writer| matches!(writer, Writer::Writing(_)))
    }
}
