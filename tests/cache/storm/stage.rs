//! Whether the clock runs, and whether callers call.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What the callers and the clock of a storm obey.
#[derive(Default)]
pub(super) struct Stage {
    is_over: AtomicBool,
    is_still: AtomicBool,
    /// Each call reads.
    calls: RwLock<()>,
}

impl Stage {
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Stops the clock, so that no old entry disappears by expiry.
    pub(super) fn stop_clock(&self) {
        self.is_still.store(true, Ordering::SeqCst);
    }

    pub(super) fn run_clock(&self) {
        self.is_still.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_still(&self) -> bool {
        self.is_still.load(Ordering::SeqCst)
    }

    /// Waits until callers may call.
    pub(super) async fn call(&self) -> RwLockReadGuard<'_, ()> {
        self.calls.read().await
    }

    /// Waits until no call runs. No call begins before this is dropped.
    pub(super) async fn rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.calls.write().await
    }
}
