//! The steps of a call. The first step of a read is the lookup, which leaves a hit with its caller at once. Everything else
//! follows a path, which asks its caller.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::call::{CallContext, Facts, ValueType};
use super::caller::{Caller, Driver, Source};
use super::lookup::{Answer, Lookup};
use super::read::Refresh;
use super::write::EvictContext;
use super::{Used, boxed};
use crate::plan::{EvictPlan, ReadPlan};
use crate::spare::Spare;

/// What is left to do for a call.
pub(crate) enum Steps {
    Lookup(Boxed, Refresh),
    Path(Driver),
}

/// The box of a lookup, which another lookup of the thread uses again.
type Boxed = Box<dyn Reusable + Send>;

thread_local! {
    static SPARE: Spare<Boxed> = const { Spare::new() };
}

/// A lookup whose box can hold another lookup.
pub(crate) trait Reusable {
    /// Replaces the lookup.
    fn begin(&mut self, cache: Used, plan: ReadPlan, of: ValueType);

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Looked>;
}

/// A lookup, and the function that makes another one.
struct Reused<F, M> {
    lookup: Pin<Box<F>>,
    make: M,
}

impl<F, M> Reusable for Reused<F, M>
where
    F: Future<Output = Looked>,
    M: Fn(Used, ReadPlan, ValueType) -> F,
{
    fn begin(&mut self, cache: Used, plan: ReadPlan, of: ValueType) {
        self.lookup.set((self.make)(cache, plan, of));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Looked> {
        self.lookup.as_mut().poll(cx)
    }
}

/// A call after its lookup.
pub(crate) struct Looked {
    cache: Used,
    plan: ReadPlan,
    facts: Facts,
    answer: Answer,
}

/// `#[cacheable]`: returns a stored value, or the body's. Nothing is to be done without a cache.
pub(crate) fn read(
    call: Option<(Used, ReadPlan)>,
    of: ValueType,
    refresh: Refresh,
) -> Option<Steps> {
    let (cache, plan) = call?;
    Some(Steps::Lookup(begin_lookup(cache, plan, of), refresh))
}

fn begin_lookup(cache: Used, plan: ReadPlan, of: ValueType) -> Boxed {
    match Spare::take(&SPARE) {
        Some(mut spare) => {
            spare.begin(cache, plan, of);
            spare
        }
        None => Box::new(Reused {
            lookup: boxed(|| look_up(cache, plan, of)),
            make: look_up,
        }),
    }
}

async fn look_up(cache: Used, plan: ReadPlan, of: ValueType) -> Looked {
    let call = CallContext::new(cache.inner(), &plan, of);
    let answer = call.lookup().await;
    let facts = call.into_facts();
    Looked {
        cache,
        plan,
        facts,
        answer,
    }
}

/// `#[cache_put]`: stores the body's value.
pub(crate) fn write(call: Option<(Used, ReadPlan)>, of: ValueType) -> Option<Steps> {
    let (cache, plan) = call?;
    Some(Steps::Path(Driver::new(boxed(|| async move {
        CallContext::new(cache.inner(), &plan, of).write().await
    }))))
}

/// `#[cache_evict]`: runs the body, then removes the entries.
pub(crate) fn evict(call: Option<(Used, EvictPlan)>) -> Option<Steps> {
    let (cache, plan) = call?;
    Some(Steps::Path(Driver::new(boxed(|| async move {
        EvictContext::new(cache.inner(), &plan).evict().await
    }))))
}

/// Runs until it has to wait. Without steps the body runs as if the attribute were absent.
pub(super) fn poll(
    steps: &mut Option<Steps>,
    caller: &mut dyn Caller,
    cx: &mut Context<'_>,
) -> Poll<Source> {
    if matches!(steps, Some(Steps::Lookup(..))) && ready!(poll_lookup(steps, caller, cx)) {
        return Poll::Ready(Source::Entry);
    }
    match steps {
        Some(Steps::Path(driver)) => driver.poll(caller, cx),
        Some(Steps::Lookup(..)) | None => caller.poll_body(cx).map(|_| Source::Body),
    }
}

/// Returns whether the call is a hit. If it is not, its path is the next step. A separate function: its stack space is free
/// again while a body runs.
#[inline(never)]
fn poll_lookup(
    steps: &mut Option<Steps>,
    caller: &mut dyn Caller,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let Some(Steps::Lookup(lookup, refresh)) = steps else {
        return Poll::Ready(false);
    };
    let Looked {
        cache,
        plan,
        facts,
        answer,
    } = ready!(lookup.poll(cx));
    let call = CallContext::again(cache.inner(), &plan, facts);
    let (path, is_hit) = match call.judge(answer, caller) {
        Lookup::Hit => {
            plan.recycle();
            (None, true)
        }
        found => {
            let (facts, refresh) = (call.into_facts(), *refresh);
            let path = boxed(|| async move {
                let call = CallContext::again(cache.inner(), &plan, facts);
                call.read(found, refresh).await
            });
            (Some(Steps::Path(Driver::new(path))), false)
        }
    };
    if let Some(Steps::Lookup(lookup, _)) = mem::replace(steps, path) {
        Spare::keep(&SPARE, lookup);
    }
    Poll::Ready(is_hit)
}
