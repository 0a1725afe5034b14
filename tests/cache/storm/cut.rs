//! Calls that are dropped before they finish, and how they end.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::whim::{Thrown, Whim};

/// Drops a call before it finishes.
pub(super) struct Cut<F> {
    call: Option<Pin<Box<F>>>,
    polls_left: u32,
    /// If set, the call is dropped when it is woken, so its answer may have arrived. Otherwise it is dropped as soon as it waits.
    when_woken: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Answered,
    Dropped,
    Panicked,
}

impl<F: Future<Output = ()>> Cut<F> {
    pub(super) fn new(call: F, whim: &mut Whim) -> Self {
        let is_patient = whim.below(4) == 0;
        Self {
            call: Some(Box::pin(call)),
            polls_left: if is_patient {
                u32::MAX
            } else {
                whim.below(10) as u32
            },
            when_woken: whim.below(2) == 0,
        }
    }
}

impl<F: Future<Output = ()>> Future for Cut<F> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let end = match self.polls_left.checked_sub(1) {
            None => End::Dropped,
            Some(left) => {
                self.polls_left = left;
                let call = self.call.as_mut().expect("a finished call is not polled");
                match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                    Ok(Poll::Ready(())) => End::Answered,
                    Ok(Poll::Pending) if left == 0 && !self.when_woken => End::Dropped,
                    Ok(Poll::Pending) => return Poll::Pending,
                    Err(payload) if payload.is::<Thrown>() => End::Panicked,
                    Err(payload) => resume_unwind(payload),
                }
            }
        };
        self.call = None;
        Poll::Ready(end)
    }
}

/// The number of calls by how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) answered: u64,
    pub(super) dropped: u64,
    pub(super) panicked: u64,
}

impl Ends {
    pub(super) fn count(&mut self, end: End) {
        *match end {
            End::Answered => &mut self.answered,
            End::Dropped => &mut self.dropped,
            End::Panicked => &mut self.panicked,
        } += 1;
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            dropped: self.dropped + other.dropped,
            panicked: self.panicked + other.panicked,
        }
    }
}
