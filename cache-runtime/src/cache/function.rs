//! Annotated functions as callers: all that is compiled for each of them, and for each type that is cached.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::boxed;
use super::caller::{Appraisal, Caller, Path, Source, Typed, Walk, WriteJob, Written};
use crate::entry::{self, Json, Layers, Unreadable};
use crate::site::{CacheValue, Outcome, Rules, Ttl};
use crate::target::Target;

/// What was found and what was returned.
struct Outputs<T> {
    found: Option<T>,
    returned: Option<T>,
}

impl<T> Default for Outputs<T> {
    fn default() -> Self {
        Self {
            found: None,
            returned: None,
        }
    }
}

impl<T> Outputs<T> {
    fn take(&mut self, source: Source) -> Option<T> {
        let (found, returned) = (self.found.take(), self.returned.take());
        match source {
            Source::Entry => found.or(returned),
            Source::Body => returned.or(found),
        }
    }

    /// Runs a body a step further, unless it has returned. As an object: of a body there are as many types as functions.
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
        Poll::Ready(self.is_ok::<O>())
    }

    fn decode<O: Outcome<Output = T, Value: CacheValue>>(
        &mut self,
        json: &Json,
    ) -> Result<(), Unreadable> {
        let value = json.decode::<O::Value>(O::layers())?;
        self.found = Some(O::from_value(value));
        Ok(())
    }

    fn decode_none<O: Outcome<Output = T, Value: CacheValue>>(&mut self) -> bool {
        self.found = O::from_none().or_else(|| entry::none_of(O::layers()).map(O::from_value));
        self.found.is_some()
    }

    fn is_ok<O: Outcome<Output = T>>(&self) -> bool {
        match &self.returned {
            Some(output) => O::returned(output).is_some(),
            None => false,
        }
    }

    /// The entry of the value in what was returned.
    fn write<O: Outcome<Output = T, Value: CacheValue>>(&self, job: &WriteJob) -> Option<Written> {
        let returned = O::returned(self.returned.as_ref()?)?;
        O::value(returned).map(|value| job.write(value))
    }

    fn appraise<O: Outcome<Output = T, Value: CacheValue>>(
        &self,
        unless: &dyn Fn(&O::Returned) -> bool,
        ttl: &dyn Fn(&O::Value) -> Option<Ttl>,
    ) -> Appraisal {
        let Some(returned) = self.returned.as_ref().and_then(O::returned) else {
            return Appraisal::Failed;
        };
        if unless(returned) {
            return Appraisal::Skipped;
        }
        match O::value(returned) {
            Some(value) if !O::layers().is_ok_none(value) => Appraisal::Value(ttl(value)),
            Some(_) | None => Appraisal::None,
        }
    }
}

/// A function with `#[cacheable]` or `#[cache_put]`.
pub(super) struct Storing<'a, O: Outcome, U, L, B> {
    rules: Rules<U, L>,
    body: Pin<&'a mut B>,
    outputs: Outputs<O::Output>,
}

impl<'a, O: Outcome, U, L, B> Storing<'a, O, U, L, B> {
    pub(super) fn new(rules: Rules<U, L>, body: Pin<&'a mut B>) -> Self {
        Self {
            rules,
            body,
            outputs: Outputs::default(),
        }
    }
}

impl<O, U, L, B> Caller for Storing<'_, O, U, L, B>
where
    O: Outcome<Value: CacheValue>,
    U: Fn(&O::Returned) -> bool,
    L: Fn(&O::Value) -> Option<Ttl>,
    B: Future<Output = O::Output>,
{
    fn decode(&mut self, json: &Json) -> Result<(), Unreadable> {
        self.outputs.decode::<O>(json)
    }

    fn decode_none(&mut self) -> bool {
        self.outputs.decode_none::<O>()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.outputs.poll::<O>(self.body.as_mut(), cx)
    }

    fn appraise(&self) -> Appraisal {
        let Rules { unless, ttl } = &self.rules;
        self.outputs.appraise::<O>(unless, ttl)
    }

    fn write(&self, job: &WriteJob) -> Option<Written> {
        self.outputs.write::<O>(job)
    }
}

impl<O, U, L, B> Typed for Storing<'_, O, U, L, B>
where
    Self: Caller,
    O: Outcome,
{
    type Output = O::Output;

    fn take(&mut self, source: Source) -> Option<O::Output> {
        self.outputs.take(source)
    }
}

/// A function with `#[cacheable(…, refresh = "background")]`, whose body may be `carried` into another task.
pub(super) struct Detachable<O: Outcome, U, L, B, C> {
    rules: Option<Rules<U, L>>,
    body: Body<B>,
    carried: C,
    outputs: Outputs<O::Output>,
}

/// A body that may not have to run here.
enum Body<B> {
    Whole(B),
    Begun(Pin<Box<B>>),
    Gone,
}

impl<O: Outcome, U, L, B, C> Detachable<O, U, L, B, C> {
    pub(super) fn new(rules: Rules<U, L>, body: B, carried: C) -> Self {
        Self {
            rules: Some(rules),
            body: Body::Whole(body),
            carried,
            outputs: Outputs::default(),
        }
    }
}

impl<O: Outcome, U, L, B: Future, C> Detachable<O, U, L, B, C> {
    /// Apart, so that the body is not on the stack while it runs.
    #[inline(never)]
    fn begin_body(&mut self) {
        self.body = match mem::replace(&mut self.body, Body::Gone) {
            Body::Whole(body) => Body::Begun(boxed(|| body)),
            other => other,
        };
    }
}

impl<O, U, L, B, C, F> Caller for Detachable<O, U, L, B, C>
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

    fn detach(&mut self, path: Path<'static>) {
        let body = mem::replace(&mut self.body, Body::Gone);
        let (Body::Whole(body), Some(rules)) = (body, self.rules.take()) else {
            return;
        };
        let body = (self.carried)(body);
        tokio::spawn(async move {
            let body = pin!(body);
            let mut caller = Storing::<O, _, _, _>::new(rules, body);
            let mut walk = Walk::new(path);
            poll_fn(|cx| walk.poll(&mut caller, cx)).await;
        });
    }
}

impl<O, U, L, B, C> Typed for Detachable<O, U, L, B, C>
where
    Self: Caller,
    O: Outcome,
{
    type Output = O::Output;

    fn take(&mut self, source: Source) -> Option<O::Output> {
        self.outputs.take(source)
    }
}

/// A function with `#[cache_evict]`.
pub(super) struct Evicting<'a, O: Outcome, M, B> {
    /// The targets that the value names.
    named: Option<M>,
    body: Pin<&'a mut B>,
    outputs: Outputs<O::Output>,
}

impl<'a, O: Outcome, M, B> Evicting<'a, O, M, B> {
    pub(super) fn new(named: M, body: Pin<&'a mut B>) -> Self {
        Self {
            named: Some(named),
            body,
            outputs: Outputs::default(),
        }
    }
}

impl<O, M, B> Caller for Evicting<'_, O, M, B>
where
    O: Outcome,
    M: FnOnce(&O::Value) -> Vec<Target>,
    B: Future<Output = O::Output>,
{
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.outputs.poll::<O>(self.body.as_mut(), cx)
    }

    fn named(&mut self) -> Vec<Target> {
        let returned = self.outputs.returned.as_ref().and_then(O::returned);
        match (returned.and_then(O::value), self.named.take()) {
            (Some(value), Some(named)) => named(value),
            _ => Vec::new(),
        }
    }
}

impl<O, M, B> Typed for Evicting<'_, O, M, B>
where
    Self: Caller,
    O: Outcome,
{
    type Output = O::Output;

    fn take(&mut self, source: Source) -> Option<O::Output> {
        self.outputs.take(source)
    }
}

/// The values that [`Cache::get`](super::Cache::get) and its relatives decode, in the order of their keys.
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
