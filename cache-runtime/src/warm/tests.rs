use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::sleep;

use super::*;

const PERIOD: Duration = Duration::from_secs(100);

/// The times at which a job ran, since the start.
#[derive(Clone)]
struct Runs {
    start: Instant,
    at: Arc<Mutex<Vec<Duration>>>,
}

impl Runs {
    fn begin() -> Self {
        Self {
            start: Instant::now(),
            at: Arc::default(),
        }
    }

    fn add(&self) {
        self.at.lock().unwrap().push(self.start.elapsed());
    }

    /// Advances the time.
    async fn after(&self, time: Duration) -> Vec<Duration> {
        sleep(time).await;
        self.at.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_round_starts_soon_and_later_rounds_have_jitter() {
    let (cache, runs) = (Cache::memory(), Runs::begin());
    let job = runs.clone();

    let _schedule = every(PERIOD, &cache, "lists", move || {
        job.add();
        ready(())
    });
    let at = runs.after(PERIOD * 50).await;

    assert!(at[0] <= Duration::from_secs(5), "{at:?}");
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 40);
    for gap in &gaps {
        let range = PERIOD..=PERIOD * 11 / 10 + Duration::from_millis(2);
        assert!(range.contains(gap), "{gap:?}");
    }
    let longest = gaps.iter().max().unwrap();
    assert!(*longest > PERIOD * 21 / 20, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_job_does_not_overlap_itself() {
    let (cache, runs) = (Cache::memory(), Runs::begin());
    let job = runs.clone();

    let _schedule = every(PERIOD, &cache, "lists", move || {
        job.add();
        sleep(PERIOD * 3)
    });
    let at = runs.after(PERIOD * 30).await;

    assert!(at.len() > 5);
    for pair in at.windows(2) {
        assert!(pair[1] - pair[0] >= PERIOD * 3, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_round_but_not_the_schedule() {
    let (cache, runs) = (Cache::memory(), Runs::begin());
    let job = runs.clone();

    let _schedule = every(PERIOD, &cache, "lists", move || {
        job.add();
        assert!(
            job.at.lock().unwrap_or_else(|lock| lock.into_inner()).len() != 1,
            "the first run panics"
        );
        let job = job.clone();
        async move { assert!(job.at.lock().unwrap().len() != 2, "the second run panics") }
    });
    let at = runs.start + PERIOD * 4;
    tokio::time::sleep_until(at).await;

    let ran = runs
        .at
        .lock()
        .unwrap_or_else(|lock| lock.into_inner())
        .len();
    assert!(ran >= 3, "{ran}");
}

#[tokio::test(start_paused = true)]
async fn stopping_a_schedule_cancels_its_running_job() {
    let (cache, job) = (Cache::memory(), Arc::new(()));
    let under_way = Arc::clone(&job);
    let schedule = every(PERIOD, &cache, "lists", move || {
        let under_way = Arc::clone(&under_way);
        async move {
            let _under_way = under_way;
            pending::<()>().await;
        }
    });
    sleep(Duration::from_secs(6)).await;
    assert_eq!(Arc::strong_count(&job), 3, "the job runs");

    schedule.stop();

    sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&job), 1);
}

#[tokio::test(start_paused = true)]
async fn a_zero_period_becomes_1_s() {
    let (cache, runs) = (Cache::memory(), Runs::begin());
    let job = runs.clone();

    let _schedule = every(Duration::ZERO, &cache, "lists", move || {
        job.add();
        ready(())
    });
    let at = runs.after(Duration::from_secs(11)).await;

    assert!((10..=11).contains(&at.len()), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn no_period_causes_a_panic() {
    let (cache, runs) = (Cache::memory(), Runs::begin());
    let job = runs.clone();

    let _schedule = every(Duration::MAX, &cache, "lists", move || {
        job.add();
        ready(())
    });
    let at = runs.after(PERIOD).await;

    assert_eq!(at.len(), 1);
}

#[test]
fn scheduling_outside_a_runtime_does_nothing() {
    let schedule = every(PERIOD, &Cache::memory(), "lists", || ready(()));

    schedule.stop();
}

#[tokio::test]
async fn a_run_of_ready_calls_yields_to_other_tasks() {
    let cache = Cache::memory();
    let run = cache
        .warm(0..10_000, |_| ready(Ok::<_, Infallible>(())))
        .run();

    tokio::select! {
        biased;
        _ = run => panic!("10,000 items were processed without yielding"),
        () = ready(()) => {}
    }
}

#[tokio::test]
async fn a_concurrency_of_0_means_one_call_at_a_time() {
    let (cache, under_way) = (Cache::memory(), AtomicUsize::new(0));

    let summary = cache
        .warm(0..3, async |_| {
            assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(())
        })
        .concurrency(0)
        .run()
        .await;

    assert_eq!(summary.fresh, 3);
}

#[tokio::test(start_paused = true)]
async fn a_summary_is_one_line() {
    let summary = Cache::memory()
        .warm([true, false], async |is_ok| {
            sleep(Duration::from_millis(1200)).await;
            if is_ok { Ok(()) } else { Err("no") }
        })
        .run()
        .await;

    assert_eq!(summary.to_string(), "0 loaded, 1 fresh, 1 failed in 1.2s");
    assert_eq!(summary.errors[0].to_string(), "item 1: no");
}

#[test]
fn a_repeated_cause_is_printed_once() {
    let cause = io::Error::other("the disk is full");
    let told = crate::Error::new(crate::ErrorKind::Command, "not stored").because(cause);
    assert_eq!(with_causes(&told), "not stored: the disk is full");

    let cause = io::Error::other("the disk is full");
    let repeated =
        crate::Error::new(crate::ErrorKind::Command, "oh: the disk is full").because(cause);
    assert_eq!(with_causes(&repeated), "oh: the disk is full");
}
