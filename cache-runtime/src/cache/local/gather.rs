//! Questions about doubtful values that are asked at the same time share a round trip.
//!
//! After a reconnect every value is doubtful. While [`ALONE`] callers ask, each in a round trip of its own, further callers gather.
//! A task asks for all of them, and for tags that many values have once. It is a task, because a caller may stop being polled.
//!
//! A question never fails its callers. If the store does not answer it, each of them asks alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::key::Key;
use crate::store::guard::in_runtime;
use crate::sync::Mutex;

/// With fewer callers that ask alone, callers would only wait for each other.
const ALONE: usize = 4;

/// The most questions of tasks that are under way at the same time.
const TASKS: usize = 2;

/// About how many keys a question has, so that other commands do not wait behind it for long.
const KEYS: usize = 256;

/// The first bytes of entries and of the records of tags, in the order in which they were asked for.
pub(in crate::cache) type Heads = Vec<Option<Vec<u8>>>;

/// The callers that ask.
#[derive(Debug, Default)]
pub(super) struct Gathering(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    alone: usize,
    tasks: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    keys: Vec<Key>,
    heads: oneshot::Sender<Heads>,
}

/// How a caller asks.
pub(in crate::cache) enum Turn {
    Alone(Alone),
    /// A task asks. The caller starts it, if there is one to start.
    Gathers(oneshot::Receiver<Heads>, Option<Runner>),
}

/// A caller that asks alone, until this is dropped.
pub(in crate::cache) struct Alone(Arc<Gathering>);

/// Asks until no caller waits.
pub(in crate::cache) struct Runner {
    gathering: Arc<Gathering>,
    is_over: bool,
}

/// The keys that are asked for in one round trip, each of them once.
#[derive(Default)]
pub(in crate::cache) struct Question {
    keys: Vec<Key>,
    places: HashMap<Key, usize>,
    /// The callers, with the places of their keys.
    callers: Vec<(Vec<usize>, oneshot::Sender<Heads>)>,
}

impl Gathering {
    /// Returns how a caller asks for the heads of these keys.
    pub(super) fn join(self: &Arc<Self>, keys: &[Key]) -> Turn {
        let mut state = self.0.lock();
        if state.alone < ALONE || !in_runtime() {
            state.alone += 1;
            return Turn::Alone(Alone(Arc::clone(self)));
        }
        let (heads, answer) = oneshot::channel();
        let keys = keys.to_vec();
        state.waiting.push_back(Waiting { keys, heads });
        let begins = state.tasks < TASKS;
        state.tasks += usize::from(begins);
        let runner = begins.then(|| Runner {
            gathering: Arc::clone(self),
            is_over: false,
        });
        Turn::Gathers(answer, runner)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.0.lock().alone -= 1;
    }
}

impl Runner {
    /// Returns the next question.
    pub(in crate::cache) fn next(&mut self) -> Option<Question> {
        let mut state = self.gathering.0.lock();
        let mut question = Question::default();
        while question.keys.len() < KEYS
            && let Some(waiting) = state.waiting.pop_front()
        {
            // Skips the callers that were cancelled.
            if !waiting.heads.is_closed() {
                question.add(waiting);
            }
        }
        if question.callers.is_empty() {
            self.is_over = true;
            state.tasks -= 1;
            return None;
        }
        Some(question)
    }
}

impl Drop for Runner {
    /// The runtime of the task may have ended. Waiting callers of other runtimes then ask alone.
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.gathering.0.lock();
            state.waiting.clear();
            state.tasks -= 1;
        }
    }
}

impl Question {
    fn add(&mut self, Waiting { keys, heads }: Waiting) {
        let place = |key: Key| {
            *self.places.entry(key).or_insert_with_key(|key| {
                self.keys.push(key.clone());
                self.keys.len() - 1
            })
        };
        let places = keys.into_iter().map(place).collect();
        self.callers.push((places, heads));
    }

    pub(in crate::cache) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Answers its callers.
    pub(in crate::cache) fn answer(self, heads: &[Option<Vec<u8>>]) {
        for (places, caller) in self.callers {
            let own = places.into_iter().map(|at| heads.get(at)?.clone());
            // An error means that the caller was cancelled.
            let _ = caller.send(own.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::parse("dev_", name).expect("a valid key")
    }

    fn alone(gathering: &Arc<Gathering>) -> Alone {
        match gathering.join(&[key("alone")]) {
            Turn::Alone(alone) => alone,
            Turn::Gathers(..) => panic!("it should ask alone"),
        }
    }

    fn gathers(
        gathering: &Arc<Gathering>,
        keys: &[&str],
    ) -> (oneshot::Receiver<Heads>, Option<Runner>) {
        let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
        match gathering.join(&keys) {
            Turn::Gathers(answer, runner) => (answer, runner),
            Turn::Alone(_) => panic!("it should gather"),
        }
    }

    fn head(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn callers_gather_while_others_ask_and_each_gets_its_own_answer() {
        let gathering = Arc::<Gathering>::default();
        let crowd: Vec<_> = (0..ALONE).map(|_| alone(&gathering)).collect();
        let (one, runner) = gathers(&gathering, &["user:1", "team"]);
        let (other, _second) = gathers(&gathering, &["user:2", "team"]);
        let (cancelled, third) = gathers(&gathering, &["user:3"]);
        assert!(third.is_none(), "two tasks are enough");
        drop(cancelled);

        let mut runner = runner.expect("a task");
        let question = runner.next().expect("two callers wait");
        assert_eq!(question.keys(), [key("user:1"), key("team"), key("user:2")]);
        question.answer(&[head("one"), head("team"), None]);

        assert_eq!(one.await, Ok(vec![head("one"), head("team")]));
        assert_eq!(other.await, Ok(vec![None, head("team")]));
        assert!(runner.next().is_none());
        drop(crowd);
        alone(&gathering);
    }

    #[tokio::test]
    async fn callers_ask_alone_if_their_question_is_not_answered_or_their_task_ends() {
        let gathering = Arc::<Gathering>::default();
        let _crowd: Vec<_> = (0..ALONE).map(|_| alone(&gathering)).collect();
        let (unanswered, runner) = gathers(&gathering, &["user:1"]);
        let mut runner = runner.expect("a task");
        drop(runner.next());
        let (left, _second) = gathers(&gathering, &["user:2"]);

        drop(runner);

        assert!(unanswered.await.is_err());
        assert!(left.await.is_err());
        let (_, again) = gathers(&gathering, &["user:3"]);
        assert!(again.is_some(), "another task may begin");
    }
}
