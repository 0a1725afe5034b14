//! Annotated functions as callers: the code that is compiled for each function and for each cached type.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::boxed;
use super::caller::{Appraisal, Caller, Path, Source, Walk, WriteJob, Written};
use super::steps::{self, Steps};
use crate::entry::{self, Json, Layers, Unreadable};
use crate::site::{CacheValue, Outcome, Rules, Ttl};
use crate::target::Target;

/// The value that was found or returned.
struct Outputs<T> {
    found: Option<T>,
    returned: Option<T>,
}

#[expect(
    clippy::manual_map,
    reason = "a combinator is compiled again for every type"
)]
impl<T> Outputs<T> {
    fn new() -> Self {
        Self {
            found: None,
            returned: None,
        }
    }

    /// The answer of the call. A caller keeps what it decoded and what its body returned.
    fn answer(&mut self, source: Source) -> Poll<T> {
        let Self { found, returned } = self;
        let (first, second) = match source {
            Source::Entry => (found, returned),
            Source::Body => (returned, found),
        };
        match first.take() {
            Some(output) => Poll::Ready(output),
            None => match second.take() {
                Some(output) => Poll::Ready(output),
                None => Poll::Pending,
            },
        }
    }

    /// Polls a body unless it has returned. Takes a trait object, because each function has its own body type.
    fn poll<O: Outcome<Output = T>>(
        &mut self,
        body: Pin<&mut dyn Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        if self.returned.is_none() {
            match body.poll(cx) {
                Poll::Ready(output) => self.returned = Some(output),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(self.returned::<O>().is_some())
    }

    fn decode<O: Outcome<Output = T, Value: CacheValue>>(
        &mut self,
        json: &Json,
    ) -> Result<(), Unreadable> {
        match json.decode::<O::Value>(O::layers()) {
            Ok(value) => {
                self.found = Some(O::from_value(value));
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }

    fn decode_none<O: Outcome<Output = T, Value: CacheValue>>(&mut self) -> bool {
        self.found = match O::from_none() {
            Some(none) => Some(none),
            None => match entry::none_of(O::layers()) {
                Some(none) => Some(O::from_value(none)),
                None => None,
            },
        };
        self.found.is_some()
    }

    /// Returns what the body returned, unless it is an `Err`.
    fn returned<O: Outcome<Output = T>>(&self) -> Option<&O::Returned> {
        match &self.returned {
            Some(output) => O::returned(output),
            None => None,
        }
    }

    /// Returns the entry of the value in the result.
    fn write<O: Outcome<Output = T, Value: CacheValue>>(&self, job: &WriteJob) -> Option<Written> {
        match self.returned::<O>() {
            Some(returned) => match O::value(returned) {
                Some(value) => Some(job.write(value)),
                None => None,
            },
            None => None,
        }
    }

    fn appraise<O: Outcome<Output = T, Value: CacheValue>>(
        &self,
        unless: &dyn Fn(&O::Returned) -> bool,
        ttl: &dyn Fn(&O::Value) -> Option<Ttl>,
    ) -> Appraisal {
        let Some(returned) = self.returned::<O>() else {
            return Appraisal::Failed;
        };
        let value = O::value(returned).filter(|value| !O::layers().is_ok_none(*value));
        match value {
            value if unless(returned) => Appraisal::Skipped {
                is_none: value.is_none(),
            },
            Some(value) => Appraisal::Value(ttl(value)),
            None => Appraisal::None,
        }
    }
}

/// A call of a function, and its body. Code that does not depend on the body is compiled once for all functions with the
/// same return type.
#[must_use = "futures do nothing unless they are polled"]
pub(crate) struct Bodied<'a, C, B> {
    pub(crate) steps: Option<Steps>,
    pub(crate) caller: C,
    pub(crate) body: Pin<&'a mut B>,
}

/// The body is behind a pointer.
impl<C, B> Unpin for Bodied<'_, C, B> {}

impl<C, B> Future for Bodied<'_, C, B>
where
    C: Bodiless,
    B: Future<Output = C::Output>,
{
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let Self {
            steps,
            caller,
            body,
        } = self.get_mut();
        caller.poll_call(steps, body.as_mut(), cx)
    }
}

/// A function without its body.
pub(crate) trait Bodiless {
    type Output;

    /// Runs a step of the call.
    fn poll_call(
        &mut self,
        steps: &mut Option<Steps>,
        body: Pin<&mut dyn Future<Output = Self::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<Self::Output>;
}

/// A function, and its body while it is polled.
struct Polled<'a, C, T> {
    caller: &'a mut C,
    body: Pin<&'a mut dyn Future<Output = T>>,
}

/// A function with `#[cacheable]` or `#[cache_put]`.
pub(crate) struct Storing<O: Outcome, U, L> {
    rules: Rules<U, L>,
    outputs: Outputs<O::Output>,
}

impl<O: Outcome, U, L> Storing<O, U, L> {
    pub(crate) fn new(rules: Rules<U, L>) -> Self {
        Self {
            rules,
            outputs: Outputs::new(),
        }
    }
}

impl<O, U, L> Caller for Polled<'_, Storing<O, U, L>, O::Output>
where
    O: Outcome<Value: CacheValue>,
    U: Fn(&O::Returned) -> bool,
    L: Fn(&O::Value) -> Option<Ttl>,
{
    fn decode(&mut self, json: &Json) -> Result<(), Unreadable> {
        self.caller.outputs.decode::<O>(json)
    }

    fn decode_none(&mut self) -> bool {
        self.caller.outputs.decode_none::<O>()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.caller.outputs.poll::<O>(self.body.as_mut(), cx)
    }

    fn appraise(&self) -> Appraisal {
        let Rules { unless, ttl } = &self.caller.rules;
        self.caller.outputs.appraise::<O>(unless, ttl)
    }

    fn write(&self, job: &WriteJob) -> Option<Written> {
        self.caller.outputs.write::<O>(job)
    }
}

impl<O, U, L> Bodiless for Storing<O, U, L>
where
    O: Outcome<Value: CacheValue>,
    U: Fn(&O::Returned) -> bool,
    L: Fn(&O::Value) -> Option<Ttl>,
{
    type Output = O::Output;

    fn poll_call(
        &mut self,
        steps: &mut Option<Steps>,
        body: Pin<&mut dyn Future<Output = O::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<O::Output> {
        let mut polled = Polled { caller: self, body };
        match steps::poll(steps, &mut polled, cx) {
            Poll::Ready(source) => self.outputs.answer(source),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A function with `#[cacheable(…, refresh = "background")]`, whose body may be `carried` into another task.
#[must_use = "futures do nothing unless they are polled"]
pub(crate) struct Detachable<O: Outcome, U, L, B, C> {
    steps: Option<Steps>,
    detached: Detached<O, U, L, B, C>,
}

/// The same without its steps.
struct Detached<O: Outcome, U, L, B, C> {
    rules: Option<Rules<U, L>>,
    body: Body<B>,
    carried: C,
    outputs: Outputs<O::Output>,
}

/// A body that may run elsewhere.
enum Body<B> {
    Whole(B),
    Begun(Pin<Box<B>>),
    Gone,
}

impl<O: Outcome, U, L, B, C> Detachable<O, U, L, B, C> {
    pub(crate) fn new(steps: Option<Steps>, rules: Rules<U, L>, body: B, carried: C) -> Self {
        let detached = Detached {
            rules: Some(rules),
            body: Body::Whole(body),
            carried,
            outputs: Outputs::new(),
        };
        Self { steps, detached }
    }
}

impl<O: Outcome, U, L, B: Future, C> Detached<O, U, L, B, C> {
    /// A separate function, so that the body is not on the stack while it runs.
    #[inline(never)]
    fn begin_body(&mut self) {
        self.body = match mem::replace(&mut self.body, Body::Gone) {
            Body::Whole(body) => Body::Begun(boxed(|| body)),
            other => other,
        };
    }
}

impl<O, U, L, B, C, F> Caller for Detached<O, U, L, B, C>
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
    U: Fn(&O::Returned) -> bool + Send + Sync + 'static,
    L: Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
    B: Future<Output = O::Output>,
    C: Fn(B) -> F,
    F: Future<Output = O::Output> + Send + 'static,
{
    fn decode(&mut self, json: &Json) -> Result<(), Unreadable> {
        self.outputs.decode::<O>(json)
    }

    fn decode_none(&mut self) -> bool {
        self.outputs.decode_none::<O>()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Body::Whole(_) = self.body {
            self.begin_body();
        }
        let Body::Begun(body) = &mut self.body else {
            return Poll::Pending;
        };
        self.outputs.poll::<O>(body.as_mut(), cx)
    }

    fn appraise(&self) -> Appraisal {
        match &self.rules {
            Some(Rules { unless, ttl }) => self.outputs.appraise::<O>(unless, ttl),
            None => Appraisal::Failed,
        }
    }

    fn write(&self, job: &WriteJob) -> Option<Written> {
        self.outputs.write::<O>(job)
    }

    fn detach(&mut self, path: Path) {
        let body = mem::replace(&mut self.body, Body::Gone);
        let (Body::Whole(body), Some(rules)) = (body, self.rules.take()) else {
            return;
        };
        let body = (self.carried)(body);
        tokio::spawn(async move {
            let mut body = pin!(body);
            let mut caller = Storing::<O, _, _>::new(rules);
            let mut walk = Walk::new(path);
            // No caller waits for an answer, and there is none if the body was stopped.
            poll_fn(|cx| {
                let mut polled = Polled {
                    caller: &mut caller,
                    body: body.as_mut(),
                };
                walk.poll(&mut polled, cx)
            })
            .await;
        });
    }
}

/// A body that has begun is behind a pointer.
impl<O: Outcome, U, L, B, C> Unpin for Detachable<O, U, L, B, C> {}

impl<O, U, L, B, C> Future for Detachable<O, U, L, B, C>
where
    Detached<O, U, L, B, C>: Caller,
    O: Outcome,
{
    type Output = O::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        let Self { steps, detached } = self.get_mut();
        match steps::poll(steps, detached, cx) {
            Poll::Ready(source) => detached.outputs.answer(source),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A function with `#[cache_evict]`.
pub(crate) struct Evicting<O: Outcome, M, N> {
    /// Adds the targets that the value names to a call without targets.
    more: M,
    named: Option<N>,
    outputs: Outputs<O::Output>,
}

impl<O: Outcome, M, N> Evicting<O, M, N> {
    pub(crate) fn new(more: M, named: N) -> Self {
        Self {
            more,
            named: Some(named),
            outputs: Outputs::new(),
        }
    }
}

impl<O, M, N> Caller for Polled<'_, Evicting<O, M, N>, O::Output>
where
    O: Outcome,
    M: Fn(&O::Value, N) -> N,
    N: Into<Vec<Target>>,
{
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.caller.outputs.poll::<O>(self.body.as_mut(), cx)
    }

    fn named(&mut self) -> Vec<Target> {
        let Evicting {
            more,
            named,
            outputs,
        } = &mut *self.caller;
        let value = outputs.returned::<O>().and_then(O::value);
        match (value, named.take()) {
            (Some(value), Some(named)) => more(value, named).into(),
            _ => Vec::new(),
        }
    }
}

impl<O, M, N> Bodiless for Evicting<O, M, N>
where
    O: Outcome,
    M: Fn(&O::Value, N) -> N,
    N: Into<Vec<Target>>,
{
    type Output = O::Output;

    fn poll_call(
        &mut self,
        steps: &mut Option<Steps>,
        body: Pin<&mut dyn Future<Output = O::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<O::Output> {
        let mut polled = Polled { caller: self, body };
        match steps::poll(steps, &mut polled, cx) {
            Poll::Ready(source) => self.outputs.answer(source),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The values that [`Cache::get`](super::Cache::get) and similar methods decode, in the order of their keys.
pub(super) struct Values<T>(pub(super) Vec<Option<T>>);

impl<T: CacheValue> Caller for Values<T> {
    fn decode(&mut self, json: &Json) -> Result<(), Unreadable> {
        let value = json.decode(Layers::Nothing)?;
        self.0.push(Some(value));
        Ok(())
    }

    fn decode_none(&mut self) -> bool {
        self.0.push(None);
        true
    }
}
