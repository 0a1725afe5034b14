//! Warming again and again, on one instance at a time.

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

/// More often is a loop and no schedule; more rarely is never.
const PERIODS: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(365 * 24 * 60 * 60),
);

/// The first round comes soon, but the instances that start together do not all ask at the same moment.
const MAX_FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `job` every `period`, on one instance among all that share the Redis of `cache` and give the same `name`, until the
/// [`Schedule`] is dropped.
///
/// The first round comes within a tenth of the period, and no later than five seconds. From then on each instance looks once in
/// a period, and up to a tenth of it later at random. Whoever looks first in a round runs the job, and keeps the others from it
/// until the period is over. If it dies meanwhile, another runs it at its next look. A round in which Redis is away is
/// skipped; without a Redis there is one instance, which runs each. A job that panics ends its round and not the schedule.
///
/// A period is at least a second. Outside a tokio runtime nothing runs, and a warning says so.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::{Cache, cacheable, warm};
///
/// #[cacheable(key = "events:page:<page>", ttl = "5m", cache = cache)]
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

/// A job that is run again and again. Dropped, it ends, together with the job where that is under way.
#[must_use = "the schedule ends when it is dropped"]
pub struct Schedule {
    task: Option<JoinHandle<()>>,
}

impl Schedule {
    /// Ends it, as dropping does.
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

    /// In a task of its own: what happens to the job shall not happen to the schedule.
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

    /// Once for each change.
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

/// A pause of up to so long.
fn up_to(longest: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    longest.mul_f64(share)
}
