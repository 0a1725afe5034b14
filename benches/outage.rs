//! What callers notice of an outage. 20 callers with a body of 100 ms use a Redis that is killed, that stops answering, that
//! returns, and that is absent when the service starts. The bench fails if a limit is missed.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, cacheable};
use tests::figures::{Event, Figures};
use tokio::task::JoinSet;
use tokio::time::sleep;

const CALLERS: u64 = 20;
const BODY: Duration = Duration::from_millis(100);
/// The longest time of a call that loads and waits for no other, with room for the timer and the scheduler.
const UNTROUBLED: Duration = Duration::from_millis(110);
/// A call that took less than this did not run its body.
const SERVED: Duration = Duration::from_millis(50);
const AT_ONCE: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(5);

#[cacheable(key = "bench:<id>", ttl = 3600, cache = cache)]
async fn event(cache: &Cache, id: u64) -> Event {
    sleep(BODY).await;
    Event::sample(id)
}

#[cacheable(key = "quick:<id>", ttl = 3600, cache = cache)]
async fn quick(cache: &Cache, id: u64) -> Event {
    Event::sample(id)
}

#[derive(Clone, Copy)]
struct Call {
    started: Instant,
    took: Duration,
    right: bool,
}

/// Runs only the body, repeatedly: a delay here is caused by the machine.
async fn bare(stop: Arc<AtomicBool>) -> Vec<Call> {
    let mut calls = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        sleep(BODY).await;
        let took = started.elapsed();
        calls.push(Call {
            started,
            took,
            right: true,
        });
    }
    calls
}

/// Callers that run until `end` collects their results.
struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Call>>,
    control: JoinSet<Vec<Call>>,
}

impl Load {
    /// Nine of ten calls are for one of the caller's own ten keys. One of ten is for a new key.
    fn begin(cache: &Cache) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let call = |caller| {
            let (cache, stop) = (cache.clone(), Arc::clone(&stop));
            async move {
                let mut calls = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let seen = if number % 10 == 9 {
                        number
                    } else {
                        number % 10
                    };
                    let id = caller * 1_000_000 + seen;
                    let started = Instant::now();
                    let value = event(&cache, id).await;
                    let took = started.elapsed();
                    calls.push(Call {
                        started,
                        took,
                        right: value == Event::sample(id),
                    });
                    sleep(Duration::from_millis(5)).await;
                }
                calls
            }
        };
        let callers = (0..CALLERS).map(call).collect();
        let control = (0..CALLERS).map(|_| bare(Arc::clone(&stop))).collect();
        Self {
            stop,
            callers,
            control,
        }
    }

    async fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let control = self.control.join_all().await.into_iter().flatten();
        let mut seen = Seen {
            calls: Vec::new(),
            control: control.collect(),
            panics: 0,
        };
        while let Some(ended) = self.callers.join_next().await {
            match ended {
                Ok(calls) => seen.calls.extend(calls),
                Err(_) => seen.panics += 1,
            }
        }
        seen
    }
}

struct Seen {
    calls: Vec<Call>,
    control: Vec<Call>,
    panics: u32,
}

impl Seen {
    /// Returns the calls that were running at `from` or began later.
    fn since(&self, from: Instant) -> impl Iterator<Item = &Call> {
        self.calls
            .iter()
            .filter(move |call| call.started + call.took >= from)
    }

    /// Returns when the first call that began after `back` was served from the cache.
    fn caching_again(&self, back: Instant) -> Option<Duration> {
        let served = self
            .calls
            .iter()
            .filter(|call| call.started >= back && call.took < SERVED);
        served.map(|call| call.started + call.took - back).min()
    }
}

/// Makes Redis fail and return under load, and checks what the callers saw.
async fn outage(
    name: &str,
    figures: &mut Figures,
    most_paid: usize,
    cache: Cache,
    fail: impl FnOnce() -> Result<()>,
    repair: impl FnOnce() -> Result<()>,
) -> Result<()> {
    figures.heading(format_args!("{name}:"));
    let command_timeout = cache.config().command_timeout;
    let load = Load::begin(&cache);
    // Long enough for every caller to load its ten keys and get hits.
    sleep(Duration::from_secs(3)).await;
    let failed = Instant::now();
    tokio::task::block_in_place(fail)?;
    sleep(Duration::from_secs(4)).await;
    let back = Instant::now();
    tokio::task::block_in_place(repair)?;
    sleep(RECOVERY + Duration::from_secs(2)).await;
    let seen = load.end().await;

    let before = seen.calls.iter().filter(|call| call.started < failed);
    let served = before.filter(|call| call.took < SERVED).count();
    anyhow::ensure!(
        served > 100,
        "only {served} calls were hits before the outage"
    );
    let during: Vec<&Call> = seen.since(failed).collect();
    let worst = during
        .iter()
        .map(|call| call.took)
        .max()
        .unwrap_or_default();
    let bound = UNTROUBLED + command_timeout;
    let limit =
        format!("at most {bound:?}: the body, one `command_timeout` and 10 ms for the scheduler");
    figures.note("calls since the failure", during.len());
    figures.check("longest call", format!("{worst:?}"), &limit, worst <= bound);

    // Timers are never early, but the timers of the body and of the timeout are each rounded to 1 ms.
    let whole = BODY + command_timeout - Duration::from_millis(2);
    let over = |bound: Duration| during.iter().filter(|call| call.took >= bound).count();
    let paid = over(whole);
    figures.check(
        "calls that waited for the whole timeout",
        paid,
        &format!("at most {most_paid}"),
        paid <= most_paid,
    );
    figures.note(
        "calls that waited for part of the timeout, more than 10 ms",
        over(UNTROUBLED) - paid,
    );
    figures.note(
        "calls that waited for half of the timeout or more",
        over(BODY + command_timeout / 2) - paid,
    );

    let late = during
        .iter()
        .filter(|call| call.started >= failed + AT_ONCE && call.took > UNTROUBLED)
        .count();
    let what = format!("calls over {UNTROUBLED:?} after the first second, including recovery");
    figures.check(&what, late, "none", late == 0);

    let machine = |call: &&Call| call.started >= failed && call.took > UNTROUBLED;
    let machine = seen.control.iter().filter(machine).count();
    figures.note("bare bodies that took as long in this time", machine);

    let wrong = seen.calls.iter().filter(|call| !call.right).count();
    let measured = format!("{wrong} and {}", seen.panics);
    figures.check(
        "wrong values and panics",
        measured,
        "none",
        wrong == 0 && seen.panics == 0,
    );

    let again = seen.caching_again(back);
    let measured = again.map_or("never".into(), |again| format!("{again:?}"));
    figures.check(
        "time until caching resumed",
        measured,
        "at most 5 s",
        again.is_some_and(|again| again <= RECOVERY),
    );
    cache.shutdown().await;
    Ok(())
}

async fn started_absent(figures: &mut Figures) -> Result<()> {
    figures.heading("started without Redis:");
    let mut server = RedisServer::start()?;
    server.kill();
    let start = Instant::now();
    let cache = Cache::connect(server.config()).await?;
    figures.note("connecting took", format!("{:?}", start.elapsed()));

    // The very first call pays for cold memory, so the bare call runs first.
    let bare = timed(async { Event::sample(0) }).await;
    let first = timed(quick(&cache, 1)).await;
    let more = first.saturating_sub(bare);
    figures.check(
        "additional time of the first call",
        format!("{more:?}"),
        "at most 1 ms",
        more <= Duration::from_millis(1),
    );

    let appeared = Instant::now();
    tokio::task::block_in_place(|| server.restart())?;
    while cache.stats().fallback.current_seconds.is_some() && appeared.elapsed() < 2 * RECOVERY {
        sleep(Duration::from_millis(1)).await;
    }
    let connected = appeared.elapsed();
    figures.check(
        "connected after",
        format!("{connected:?}"),
        "at most 5 s",
        connected <= RECOVERY,
    );
    cache.shutdown().await;
    Ok(())
}

async fn timed<T>(call: impl Future<Output = T>) -> Duration {
    let start = Instant::now();
    std::hint::black_box(call.await);
    start.elapsed()
}

async fn run() -> Result<ExitCode> {
    let mut figures = Figures::default();

    let server = std::cell::RefCell::new(RedisServer::start()?);
    let config = server.borrow().config();
    let cache = Cache::connect(config).await?;
    let kill = || {
        server.borrow_mut().kill();
        Ok(())
    };
    let restart = || Ok(server.borrow_mut().restart()?);
    outage("killed", &mut figures, 0, cache, kill, restart).await?;

    let server = RedisServer::start()?;
    let proxy = FaultProxy::start(&server)?;
    let cache = Cache::connect(proxy.config()).await?;
    let stall = || {
        proxy.stall();
        Ok(())
    };
    let pass = || {
        proxy.pass();
        Ok(())
    };
    outage("black-holed", &mut figures, 10, cache, stall, pass).await?;

    started_absent(&mut figures).await?;
    Ok(figures.finish())
}

fn main() -> Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}
