//! Repeated warming, on one instance at a time.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use crate::cache::{Cache, Duty};
use crate::error::Error;
use crate::run::in_current_run;

/// A shorter period is a loop, not a schedule. A longer period practically never runs.
const PERIODS: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(365 * 24 * 60 * 60),
);

/// The first round comes soon, but instances that start together do not all ask at the same moment.
const MAX_FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `job` every `period`, on one instance of all that share the Redis of `cache` and use the same `name`, until the
/// [`Schedule`] is dropped.
///
/// - The first round comes within a tenth of the period and within 5 s.
/// - After that, each instance checks once per period, plus a random delay of up to a tenth of the period.
/// - The first instance that checks in a round runs the job, and the others do not run it until the period is over. If
///   that instance dies, another instance runs the job at its next check.
/// - A round is skipped while Redis is unavailable. Without Redis, this instance runs every round.
/// - A job that panics ends its round but not the schedule.
/// - A round does not renew a fresh entry. To keep entries warm, choose a `ttl` below the period and a `grace` above 1.1 times the
///   period, as in the example: each round then finds the entries stale and refreshes them.
///
/// A period is at least 1 s. Outside a tokio runtime the job does not run, and a warning is logged.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::{Cache, cacheable, warm};
///
/// #[cacheable(key = "events:page:<page>", ttl = "3m", grace = "5m", cache = cache)]
/// async fn page(cache: &Cache, page: u32) -> Result<Vec<String>, std::io::Error> {
///     Ok(vec![format!("the first event of page {page}")]) // or ask a database
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let schedule = warm::every(Duration::from_secs(240), &cache, "lists", {
///     let cache = cache.clone();
///     move || {
///         let cache = cache.clone();
///         async move {
///             let summary = cache.warm(1..=3, |number| page(&cache, number)).run().await;
///             println!("{summary}");
///         }
///     }
/// });
/// // As long as the service runs. Then:
/// schedule.stop();
/// # }
/// ```
pub fn every<F, J>(period: Duration, cache: &Cache, name: &str, job: F) -> Schedule
where
    F: Fn() -> J + Send + Sync + 'static,
    J: Future<Output = ()> + Send + 'static,
{
    let (shortest, longest) = PERIODS;
    let rounds = Rounds {
        name: name.to_owned(),
        duty: Duty::new(cache, name),
        period: period.clamp(shortest, longest),
        job: Arc::new(job),
        is_away: false,
    };
    let task = match Handle::try_current() {
        Ok(runtime) => Some(runtime.spawn(in_current_run(rounds.run()))),
        Err(_) => {
            warn!(
                name,
                "a schedule needs a tokio runtime: nothing will be warmed"
            );
            None
        }
    };
    Schedule { task }
}

/// A repeated job. Dropping it ends the schedule and cancels the job if it is running.
///
/// See [`every`] for an example.
#[must_use = "the schedule ends when it is dropped"]
pub struct Schedule {
    task: Option<JoinHandle<()>>,
}

impl Schedule {
    /// Ends the schedule, as dropping does.
    pub fn stop(self) {}
}

impl Drop for Schedule {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
    }
}

struct Rounds<F> {
    name: String,
    duty: Duty,
    period: Duration,
    job: Arc<F>,
    is_away: bool,
}

impl<F, J> Rounds<F>
where
    F: Fn() -> J + Send + Sync + 'static,
    J: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self) {
        let jitter = self.period / 10;
        sleep(up_to(jitter.min(MAX_FIRST_PAUSE))).await;
        loop {
            let next = Instant::now() + self.period;
            let taken = self.duty.take().await;
            self.say_if_away(&taken);
            if taken.unwrap_or(false) {
                self.run_job().await;
                let rest = next.saturating_duration_since(Instant::now());
                self.duty.leave(rest).await;
            }
            sleep_until(next.max(Instant::now()) + up_to(jitter)).await;
        }
    }

    /// The job runs in its own task, so that a panic does not end the schedule.
    async fn run_job(&self) {
        let job = Arc::clone(&self.job);
        let mut running = JoinSet::new();
        running.spawn(in_current_run(async move { job().await }));
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = self.duty.keep() => None,
        };
        if let Some(Err(error)) = ended {
            error!(name = self.name, %error, "a scheduled job failed; it runs again after its period");
        }
    }

    /// Logs once for each change.
    fn say_if_away(&mut self, taken: &Result<bool, Error>) {
        match taken {
            Ok(_) if self.is_away => {
                debug!(
                    name = self.name,
                    "Redis is available again; scheduled rounds resume"
                );
            }
            Err(error) if !self.is_away => {
                debug!(name = self.name, %error, "scheduled rounds are skipped");
            }
            _ => {}
        }
        self.is_away = taken.is_err();
    }
}

/// Returns a random pause of up to this length.
fn up_to(longest: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    longest.mul_f64(share)
}
