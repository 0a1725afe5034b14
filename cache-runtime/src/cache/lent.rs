//! A value in a thread-local slot during a poll.

use std::cell::RefCell;
use std::mem;
use std::thread::LocalKey;

/// Exchanges a value with the one in the slot and restores it at the end, also after a panic.
#[must_use = "the value goes back when it is dropped"]
pub(super) struct Lent<'a, T: 'static> {
    place: &'static LocalKey<RefCell<T>>,
    value: &'a mut T,
}

impl<'a, T> Lent<'a, T> {
    pub(super) fn new(place: &'static LocalKey<RefCell<T>>, value: &'a mut T) -> Self {
        swap(place, value);
        Self { place, value }
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        swap(self.place, self.value);
    }
}

/// Exchanges a value with the one in the place.
pub(super) fn swap<T>(place: &'static LocalKey<RefCell<T>>, value: &mut T) {
    // A thread that is ending does not poll any more.
    let _ = place.try_with(|own| mem::swap(&mut *own.borrow_mut(), value));
}
