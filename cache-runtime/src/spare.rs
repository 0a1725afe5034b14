//! What a thread keeps to use it again, so that a hit does not allocate it.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Calls that are under way on one thread at a time. More than these allocate.
const MOST: usize = 32;

/// The spare values of a thread.
pub(crate) struct Spare<T>(RefCell<Vec<T>>);

impl<T: 'static> Spare<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Returns a value that was used before, as it was left.
    pub(crate) fn take(place: &'static LocalKey<Self>) -> Option<T> {
        // A thread that is ending keeps nothing.
        place
            .try_with(|spare| spare.0.borrow_mut().pop())
            .ok()
            .flatten()
    }

    /// Keeps a value for the next call.
    pub(crate) fn keep(place: &'static LocalKey<Self>, value: T) {
        let _ = place.try_with(|spare| {
            let mut spare = spare.0.borrow_mut();
            if spare.len() < MOST {
                spare.push(value);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static SPARE: Spare<String> = const { Spare::new() };
    }

    #[test]
    fn what_is_kept_is_taken_again_up_to_a_number() {
        assert_eq!(Spare::take(&SPARE), None);
        for _ in 0..=MOST {
            Spare::keep(&SPARE, "a".to_owned());
        }

        for _ in 0..MOST {
            assert_eq!(Spare::take(&SPARE).as_deref(), Some("a"));
        }
        assert_eq!(Spare::take(&SPARE), None);
    }
}
