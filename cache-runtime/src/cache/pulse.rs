//! Whether a leader makes progress: a future that was woken but is not polled keeps all waiters waiting.
//!
//! A task can hold a future without polling it. `select!` does so with a branch that it keeps for later, and a stream of
//! buffered futures does so while the body of the loop runs. If the body of that loop waits for the load that such a future
//! leads, it waits for itself.

use std::sync::{Arc, MutexGuard};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::sync::Mutex;

/// A leader that was woken and is not polled within this time is stuck. If the runtime lags, the limit grows by twice the
/// lag: the leader's task may not have had its turn yet.
const PATIENCE: Duration = Duration::from_millis(50);

/// When waiters begin to check how far the runtime lags.
const SUSPICION: Duration = Duration::from_millis(30);

/// The state of a leader. It is also the leader's waker, between the task and what the leader waits for.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The task that the leader is a part of.
    task: Option<Waker>,
    is_being_polled: bool,
    /// When it was first woken after its last poll.
    woken: Option<Instant>,
    /// The longest time that a waiter waited for its own turn.
    lag: Duration,
}

impl Pulse {
    /// Starts with a new leader that is about to be polled.
    pub(super) fn restart(&self) {
        *self.state() = State::default();
    }

    /// Returns whether the leader was woken and is not polled.
    pub(super) fn is_stuck(&self) -> bool {
        let state = self.state();
        let patience = PATIENCE + 2 * state.lag;
        state
            .unpolled_since()
            .is_some_and(|woken| woken.elapsed() >= patience)
    }

    /// Returns when the leader is stuck. Does not return while the leader is polled after each wake.
    pub(super) async fn stuck(&self) {
        let mut looked_at = None;
        loop {
            let (woken, patience) = {
                let state = self.state();
                (state.unpolled_since(), PATIENCE + 2 * state.lag)
            };
            let until = match woken {
                None => Instant::now() + PATIENCE,
                Some(woken) if looked_at != Some(woken) => woken + SUSPICION,
                Some(woken) => woken + patience,
            };
            let due = until.max(Instant::now());
            sleep_until(until).await;
            self.saw_lag(due.elapsed());
            if woken.is_some() && looked_at != woken {
                looked_at = woken;
                let due = Instant::now();
                yield_now().await;
                self.saw_lag(due.elapsed());
            } else if self.is_stuck() {
                return;
            }
        }
    }

    /// Returns how far the runtime lags, as far as the waiters know.
    pub(super) fn lag(&self) -> Duration {
        self.state().lag
    }

    pub(super) fn saw_lag(&self, lag: Duration) {
        let mut state = self.state();
        state.lag = state.lag.max(lag);
    }

    fn begin_poll(&self, task: &Waker) {
        let mut state = self.state();
        state.woken = None;
        state.is_being_polled = true;
        match &mut state.task {
            Some(known) => known.clone_from(task),
            None => state.task = Some(task.clone()),
        }
    }

    fn end_poll(&self) {
        let mut state = self.state();
        state.is_being_polled = false;
        if state.woken.is_some() {
            // A long poll is not a sign of being stuck.
            state.woken = Some(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn unpolled_since(&self) -> Option<Instant> {
        self.woken.filter(|_| !self.is_being_polled)
    }
}

impl Wake for Pulse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state();
        state.woken.get_or_insert_with(Instant::now);
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Polls a leader and records its pulse.
pub(super) struct Watch {
    pulse: Arc<Pulse>,
    waker: Waker,
}

impl Watch {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        Self {
            waker: Arc::clone(&pulse).into(),
            pulse,
        }
    }

    /// Records that the leader is about to be polled by `task`. Returns the waker to poll it with.
    pub(super) fn begin(&self, task: &Waker) -> &Waker {
        self.pulse.begin_poll(task);
        &self.waker
    }

    /// Records that the leader was polled.
    pub(super) fn end(&self) {
        self.pulse.end_poll();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn advance(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    /// A leader that is polled once and waits.
    fn waiting(pulse: &Arc<Pulse>, task: &Arc<Task>) -> (Watch, Waker) {
        let mut watched = Watch::new(Arc::clone(pulse));
        poll(&mut watched, task);
        let waker = watched.waker.clone();
        (watched, waker)
    }

    fn poll(watched: &mut Watch, task: &Arc<Task>) {
        watched.begin(&Arc::clone(task).into());
        watched.end();
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_leader_is_never_stuck() {
        let (pulse, task) = (Arc::default(), Arc::default());
        let (_watched, _) = waiting(&pulse, &task);

        advance(10_000).await;

        assert!(!pulse.is_stuck());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_woken_and_not_polled_is_stuck_after_50_ms() {
        let (pulse, task) = (Arc::default(), Arc::<Task>::default());
        let (mut watched, waker) = waiting(&pulse, &task);
        advance(10_000).await;

        waker.wake_by_ref();
        advance(30).await;
        waker.wake_by_ref();
        advance(19).await;
        assert!(!pulse.is_stuck());
        advance(1).await;
        assert!(pulse.is_stuck());
        assert_eq!(
            task.0.load(Ordering::SeqCst),
            2,
            "each wake reaches the task"
        );

        poll(&mut watched, &task);
        assert!(!pulse.is_stuck());
        advance(10_000).await;
        assert!(!pulse.is_stuck());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_poll_is_not_stuck_even_if_it_is_woken_during_it() {
        let pulse: Arc<Pulse> = Arc::default();
        let waker = Waker::from(Arc::clone(&pulse));

        pulse.begin_poll(Waker::noop());
        thread::spawn(move || waker.wake()).join().unwrap();
        advance(10_000).await;
        assert!(!pulse.is_stuck());

        pulse.end_poll();
        advance(49).await;
        assert!(!pulse.is_stuck());
        advance(1).await;
        assert!(pulse.is_stuck());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_has_more_time_if_the_runtime_lags() {
        let (pulse, task) = (Arc::<Pulse>::default(), Arc::default());
        let (_watched, waker) = waiting(&pulse, &task);
        pulse.saw_lag(Duration::from_millis(100));
        pulse.saw_lag(Duration::ZERO);

        waker.wake();
        advance(249).await;
        assert!(!pulse.is_stuck());
        advance(1).await;
        assert!(pulse.is_stuck());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_notices_a_stuck_leader_in_time() {
        let (pulse, task) = (Arc::<Pulse>::default(), Arc::default());
        let (_watched, waker) = waiting(&pulse, &task);
        let began = Instant::now();

        let stuck = tokio::join!(pulse.stuck(), async {
            tokio::time::sleep(Duration::from_millis(1_007)).await;
            waker.wake();
        });

        assert_eq!(stuck, ((), ()));
        assert_eq!(began.elapsed(), Duration::from_millis(1_057));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_leader_starts_with_a_new_limit() {
        let (pulse, task) = (Arc::default(), Arc::default());
        let (_watched, waker) = waiting(&pulse, &task);
        waker.wake();
        advance(100).await;

        pulse.restart();

        assert!(!pulse.is_stuck());
    }
}
