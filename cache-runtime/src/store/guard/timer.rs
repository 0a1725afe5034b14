//! Timers that a thread uses again.
//!
//! To register a timer with tokio and to remove it, a thread takes the lock of all timers twice. A timer that stays registered is
//! set to a later time without the lock, so most operations take none.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::is_paused;
use crate::spare::Spare;

thread_local! {
    static SPARE: Spare<Registered> = const { Spare::new() };
}

/// A timer that its runtime may fire once more when nobody waits for it. The task that waited last is then woken for nothing.
struct Registered {
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

/// The timer of one operation.
pub(super) struct Timer(Option<Registered>);

impl Timer {
    /// Must be called inside a runtime, like every timer of tokio.
    pub(super) fn until(deadline: Instant) -> Self {
        let runtime = Handle::current().id();
        // A timer of another runtime may never fire.
        let spare = Spare::take(&SPARE).filter(|spare| spare.runtime == runtime);
        let mut timer = Self(Some(spare.unwrap_or_else(|| Registered {
            runtime,
            sleep: Box::pin(sleep_until(deadline)),
        })));
        timer.reset(deadline);
        timer
    }

    pub(super) fn reset(&mut self, deadline: Instant) {
        if let Some(Registered { sleep, .. }) = &mut self.0
            && sleep.deadline() != deadline
        {
            sleep.as_mut().reset(deadline);
        }
    }

    /// Waits for `work` until the deadline. Returns [`None`] if it is over.
    pub(super) async fn wait_for<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            match &mut self.0 {
                Some(Registered { sleep, .. }) => sleep.as_mut().poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // A paused clock jumps to the next registered timer.
        if let Some(timer) = self.0.take()
            && !is_paused()
        {
            Spare::keep(&SPARE, timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns whether a timer was kept, and puts it back.
    fn is_kept() -> bool {
        let spare = Spare::take(&SPARE);
        let is_kept = spare.is_some();
        if let Some(spare) = spare {
            Spare::keep(&SPARE, spare);
        }
        is_kept
    }

    async fn use_until(deadline: Instant) -> Option<()> {
        Timer::until(deadline).wait_for(pin!(pending())).await
    }

    #[tokio::test]
    async fn a_timer_that_is_used_again_fires_at_its_new_time() {
        let soon = || Instant::now() + Duration::from_millis(1);
        let mut first = Timer::until(Instant::now() + HOUR);
        assert_eq!(first.wait_for(pin!(async { 7 })).await, Some(7));
        drop(first);
        assert!(is_kept());
        // Earlier than before, then later than before although it has fired.
        assert_eq!(use_until(soon()).await, None);
        assert_eq!(use_until(soon()).await, None);
        assert!(is_kept());
    }

    #[test]
    fn a_timer_is_not_used_in_another_runtime() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime")
        };
        let ended = runtime();
        ended.block_on(async { drop(Timer::until(Instant::now() + HOUR)) });
        assert!(is_kept());
        drop(ended);
        runtime().block_on(async {
            assert_eq!(use_until(Instant::now()).await, None);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_of_a_paused_clock_is_not_kept() {
        assert_eq!(use_until(Instant::now() + HOUR).await, None);
        assert!(!is_kept());
    }
}
