//! Jobs that a person can start: each of them runs once at a time, and the last outcome is kept.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::error::with_causes;
use crate::run::in_current_run;
use crate::sync::Mutex;
use crate::warm::Summary;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

type Outcome = Result<Summary, String>;
type Run = dyn Fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

pub(super) struct Job {
    pub(super) name: String,
    run: Box<Run>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when it runs.
    since: Option<Instant>,
    last: Option<(Instant, Outcome)>,
}

impl Job {
    pub(super) fn new<F, J, E>(name: &str, job: F) -> Self
    where
        F: Fn() -> J + Send + Sync + 'static,
        J: Future<Output = Result<Summary, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = move || -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
            let job = job();
            Box::pin(async move { job.await.map_err(|error| with_causes(&*error.into())) })
        };
        Self {
            name: name.to_owned(),
            run: Box::new(run),
            state: Mutex::default(),
        }
    }

    /// Starts the job in a task of its own. Returns whether it was started: it is not while it runs.
    pub(super) fn start(self: &Arc<Self>) -> bool {
        {
            let mut state = self.state.lock();
            if state.since.is_some() {
                return false;
            }
            state.since = Some(Instant::now());
        }
        let running = Running {
            job: Arc::clone(self),
            outcome: Err("the job panicked, or its runtime ended".to_owned()),
        };
        tokio::spawn(in_current_run(async move {
            let run = (running.job.run)();
            running.end(run.await);
        }));
        true
    }

    pub(super) fn report(&self) -> Value {
        let state = self.state.lock();
        let last = state.last.as_ref().map(|(at, outcome)| {
            let ago = at.elapsed().as_secs_f64();
            match outcome {
                Ok(summary) => json!({
                    "ended_seconds_ago": ago,
                    "took_seconds": summary.took.as_secs_f64(),
                    "loaded": summary.loaded,
                    "fresh": summary.fresh,
                    "failed": summary.failed,
                    "error": summary.errors.first().map(|failure| failure.error.clone()),
                }),
                Err(error) => json!({ "ended_seconds_ago": ago, "error": error }),
            }
        });
        let running = state.since.map(|since| since.elapsed().as_secs_f64());
        json!({ "name": self.name, "running_seconds": running, "last": last })
    }
}

/// Records the outcome at the end, also if the job panics.
struct Running {
    job: Arc<Job>,
    outcome: Outcome,
}

impl Running {
    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(String::new()));
        let mut state = self.job.state.lock();
        state.since = None;
        state.last = Some((Instant::now(), outcome));
    }
}
