//! The loads that a task is in the middle of. A task must not wait for itself.

use std::cell::RefCell;
use std::sync::Arc;

use super::Inner;
use super::lent::Lent;
use crate::key::Key;

thread_local! {
    /// The innermost load of the task that is being polled.
    static LOADING: RefCell<Option<Arc<Chain>>> = const { RefCell::new(None) };
}

/// A load and the loads that it runs inside of.
pub(super) struct Chain {
    cache: usize,
    /// The hash of the key. If two keys ever have the same hash, a load is not shared; nothing worse happens.
    key: u64,
    outer: Option<Arc<Self>>,
}

impl Chain {
    /// Returns whether this task is already loading `key`.
    pub(super) fn is_loading(inner: &Inner, key: &Key) -> bool {
        LOADING.with_borrow(|chain| chain.as_ref().is_some_and(|chain| chain.holds(inner, key)))
    }

    /// Returns whether this task is loading anything.
    pub(super) fn is_nested() -> bool {
        LOADING.with_borrow(Option::is_some)
    }

    /// Returns the load of `key`, inside of the loads under way.
    pub(super) fn around(inner: &Inner, key: &Key) -> Arc<Self> {
        Arc::new(Self {
            cache: address(inner),
            key: key.hash(),
            outer: LOADING.with_borrow(Clone::clone),
        })
    }

    fn holds(&self, inner: &Inner, key: &Key) -> bool {
        let mut link = Some(self);
        while let Some(Self {
            cache,
            key: loading,
            outer,
        }) = link
        {
            if *cache == address(inner) && *loading == key.hash() {
                return true;
            }
            link = outer.as_deref();
        }
        false
    }
}

/// Makes the task run inside of the innermost of these loads, until the result is dropped.
pub(super) fn enter(chain: &mut Option<Arc<Chain>>) -> Lent<'_, Option<Arc<Chain>>> {
    Lent::new(&LOADING, chain)
}

/// A number that identifies a cache while it exists.
fn address(inner: &Inner) -> usize {
    std::ptr::from_ref(inner).addr()
}
