//! A background task that runs at most once at a time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

/// The slot of a background task.
#[derive(Debug, Default)]
pub(crate) struct Singleton {
    is_running: Arc<AtomicBool>,
}

/// The permission to run. The task moves it into its future and keeps it for as long as no other task should start. It is
/// dropped with the future, so it is also returned when the task's runtime shuts down.
#[derive(Debug)]
#[must_use = "another task can start when it is dropped"]
pub(crate) struct Running {
    is_running: Option<Arc<AtomicBool>>,
}

impl Singleton {
    /// Starts the task, unless it already runs or the caller is outside of a runtime.
    pub(crate) fn start<F>(&self, task: impl FnOnce(Running) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running {
            is_running: Some(Arc::clone(&self.is_running)),
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(task(running));
        }
    }
}

impl Running {
    /// Ends the task without a successor: no other task starts.
    pub(crate) fn end_for_good(mut self) {
        self.is_running = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(is_running) = &self.is_running {
            // A swap, not a store: the next step must see what a caller did before it found the task running.
            is_running.swap(false, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    use super::*;

    fn runtime() -> Runtime {
        let runtime = Builder::new_current_thread().build();
        runtime.expect("a runtime")
    }

    /// Starts a task that counts itself and never ends. Returns how many tasks began.
    async fn begun(singleton: &Singleton, begun: &Arc<AtomicU32>) -> u32 {
        let count = Arc::clone(begun);
        singleton.start(|running| async move {
            count.fetch_add(1, Ordering::Relaxed);
            let _running = running;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        begun.load(Ordering::Relaxed)
    }

    #[test]
    fn one_task_runs_at_a_time_and_can_be_restarted_after_its_runtime() {
        let (singleton, count) = (Singleton::default(), Arc::default());

        let first = runtime();
        assert_eq!(first.block_on(begun(&singleton, &count)), 1);
        assert_eq!(runtime().block_on(begun(&singleton, &count)), 1);
        drop(first);

        assert_eq!(runtime().block_on(begun(&singleton, &count)), 2);
    }

    #[test]
    fn a_start_outside_of_a_runtime_does_not_prevent_a_later_one() {
        let (singleton, count) = (Singleton::default(), Arc::default());

        singleton.start(|_running| async { panic!("no runtime") });

        assert_eq!(runtime().block_on(begun(&singleton, &count)), 1);
    }

    #[tokio::test]
    async fn a_task_can_be_restarted_unless_it_ended_for_good() {
        let (singleton, count) = (Singleton::default(), Arc::default());

        singleton.start(|running| async { drop(running) });
        yield_now().await;
        singleton.start(|running| async { running.end_for_good() });
        yield_now().await;

        assert_eq!(begun(&singleton, &count).await, 0);
    }
}
