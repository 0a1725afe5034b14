//! Annotated functions as callers: the code that is compiled for each function and for each cached type.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::call::ValueType;
use super::caller::{Appraisal, Caller, Driver, Path, Source, WriteJob, Written};
use super::local::{Kept, KeptValue};
use super::steps::{self, Steps};
use super::used::Used;
use super::{boxed, locally};
use crate::entry::{Json, Layers, Unreadable};
use crate::plan::ReadNames;
use crate::site::{CacheValue, LocalValue, Outcome, Rules};
use crate::tag::TagWriter;
use crate::target::Target;

/// The value that was found or returned.
///
/// Its methods are a part of their callers: each function in its own right costs every cached type build time. For the same
/// reason they call no combinators, which are compiled again for every type.
struct Outputs<T> {
    found: Option<T>,
    returned: Option<T>,
}

#[expect(
    clippy::manual_map,
    clippy::mem_replace_option_with_none,
    clippy::redundant_pattern_matching,
    reason = "a combinator is compiled again for every type"
)]
impl<T> Outputs<T> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            found: None,
            returned: None,
        }
    }

    /// The answer of the call. A caller keeps what it decoded and what its body returned.
    #[inline(always)]
    fn answer(&mut self, source: Source) -> Poll<T> {
        let Self { found, returned } = self;
        let (first, second) = match source {
            Source::Entry => (found, returned),
            Source::Body => (returned, found),
        };
        let output = match first {
            Some(_) => first,
            None => second,
        };
        match mem::replace(output, None) {
            Some(output) => Poll::Ready(output),
            None => Poll::Pending,
        }
    }

    /// Polls a body unless it has returned. Takes a trait object, because each function has its own body type.
    #[inline(always)]
    fn poll<O: Outcome<Output = T>>(
        &mut self,
        body: Pin<&mut dyn Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        if let None = self.returned {
            match body.poll(cx) {
                Poll::Ready(output) => self.returned = Some(output),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(matches!(self.returned::<O>(), Some(_)))
    }

    #[inline(always)]
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

    #[inline(always)]
    fn decode_none<O: Outcome<Output = T, Value: CacheValue>>(&mut self) -> bool {
        self.found = O::from_none();
        matches!(self.found, Some(_))
    }

    /// Returns what the body returned, unless it is an `Err`.
    #[inline(always)]
    fn returned<O: Outcome<Output = T>>(&self) -> Option<&O::Returned> {
        match &self.returned {
            Some(output) => O::returned(output),
            None => None,
        }
    }

    /// Returns the entry of the value in the result.
    #[inline(always)]
    fn write<O: Outcome<Output = T, Value: CacheValue>>(&self, job: &WriteJob) -> Option<Written> {
        match self.returned::<O>() {
            Some(returned) => match O::value(returned) {
                Some(value) => Some(job.write(value)),
                None => None,
            },
            None => None,
        }
    }

    #[inline(always)]
    fn appraise<O: Outcome<Output = T, Value: CacheValue>>(
        &self,
        rules: &impl Rules<O>,
    ) -> Appraisal {
        let Some(returned) = self.returned::<O>() else {
            return Appraisal::Failed;
        };
        let value = match O::value(returned) {
            Some(value) if O::layers().is_ok_none(value) => None,
            value => value,
        };
        match value {
            _ if rules.excludes(returned) => Appraisal::Skipped {
                is_none: matches!(value, None),
            },
            Some(value) => Appraisal::Value(rules.ttl(value)),
            None => Appraisal::None,
        }
    }

    #[inline(always)]
    fn tags<O: Outcome<Output = T, Value: CacheValue>>(
        &self,
        rules: &impl Rules<O>,
        tags: &mut TagWriter,
    ) {
        if let Some(returned) = self.returned::<O>()
            && let Some(value) = O::value(returned)
        {
            rules.tags(value, tags);
        }
    }
}

/// Whether the values of a function are also kept in this process.
pub(crate) trait Keeping<O: Outcome> {
    /// Returns the value that was found, to be kept.
    fn keep(found: Option<&O::Output>) -> Option<KeptValue>;

    /// Returns a value that is kept, if it is of this type.
    fn take(kept: &Kept) -> Option<O::Output>;
}

/// They are not.
#[derive(Debug)]
pub(crate) struct NotKept;

impl<O: Outcome> Keeping<O> for NotKept {
    #[inline(always)]
    fn keep(_: Option<&O::Output>) -> Option<KeptValue> {
        None
    }

    #[inline(always)]
    fn take(_: &Kept) -> Option<O::Output> {
        None
    }
}

/// They are: `local`.
#[derive(Debug)]
pub(crate) struct KeptLocally;

impl<O: Outcome<Value: CacheValue + LocalValue>> Keeping<O> for KeptLocally {
    #[inline(always)]
    fn keep(found: Option<&O::Output>) -> Option<KeptValue> {
        let value: Option<O::Value> = match found.and_then(O::returned) {
            Some(returned) => O::value(returned).cloned(),
            None => return None,
        };
        Some(Box::new(value))
    }

    #[inline(always)]
    fn take(kept: &Kept) -> Option<O::Output> {
        match kept.value::<Option<O::Value>>() {
            Some(Some(value)) => Some(O::from_value(value.clone())),
            Some(None) => O::from_none(),
            None => None,
        }
    }
}

/// Returns the value of a call of a function with `local`, if this process has it and nothing unusual is asked of the call.
#[inline(always)]
pub(crate) fn find_locally<O: Outcome<Value: CacheValue + LocalValue>>(
    cache: &Used,
    names: ReadNames<'_>,
) -> Option<O::Output> {
    let mut found = None;
    let mut take = |kept: &Kept| {
        found = <KeptLocally as Keeping<O>>::take(kept);
        found.is_some()
    };
    match locally::serve(cache, names, ValueType::number_of::<O::Value>(), &mut take) {
        true => found,
        false => None,
    }
}

/// A call of a function, and its body. Only this is compiled for each function. Everything else is compiled once for all
/// functions with the same return type.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Bodied<'a, C, B> {
    /// The call without its body.
    pub call: &'a mut C,
    /// The body.
    pub body: Pin<&'a mut B>,
}

impl<C, B> Future for Bodied<'_, C, B>
where
    C: Bodiless,
    B: Future<Output = C::Output>,
{
    type Output = C::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let Self { call, body } = self.get_mut();
        call.poll_with(body.as_mut(), cx)
    }
}

/// A call of a function without its body.
pub trait Bodiless {
    /// The return type of the function.
    type Output;

    /// Runs the call until it has to wait.
    fn poll_with(
        &mut self,
        body: Pin<&mut dyn Future<Output = Self::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<Self::Output>;
}

/// A call of a function with `#[cacheable]` or `#[cache_put]`.
pub(crate) struct Storing<O: Outcome, R, K> {
    steps: Option<Steps>,
    rules: R,
    outputs: Outputs<O::Output>,
    keeping: PhantomData<fn() -> K>,
}

/// The same without its steps, while the body is polled.
struct Polled<'a, O: Outcome, R, K> {
    rules: &'a R,
    outputs: &'a mut Outputs<O::Output>,
    body: Pin<&'a mut dyn Future<Output = O::Output>>,
    keeping: PhantomData<fn() -> K>,
}

impl<O: Outcome, R> Storing<O, R, NotKept> {
    #[inline(always)]
    pub(crate) fn new(steps: Option<Steps>, rules: R) -> Self {
        Self {
            steps,
            rules,
            outputs: Outputs::new(),
            keeping: PhantomData,
        }
    }
}

impl<O: Outcome<Value: CacheValue + LocalValue>, R> Storing<O, R, KeptLocally> {
    /// The same for a function with `local`.
    #[inline(always)]
    pub(crate) fn local(steps: Option<Steps>, found: Option<O::Output>, rules: R) -> Self {
        Self {
            steps,
            rules,
            outputs: Outputs {
                found,
                returned: None,
            },
            keeping: PhantomData,
        }
    }
}

impl<O, R, K> Caller for Polled<'_, O, R, K>
where
    O: Outcome<Value: CacheValue>,
    R: Rules<O>,
    K: Keeping<O>,
{
    fn keep(&self) -> Option<KeptValue> {
        K::keep(self.outputs.found.as_ref())
    }

    fn take(&mut self, kept: &Kept) -> bool {
        self.outputs.found = K::take(kept);
        self.outputs.found.is_some()
    }

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
        self.outputs.appraise::<O>(self.rules)
    }

    fn tags(&self, tags: &mut TagWriter) {
        self.outputs.tags::<O>(self.rules, tags);
    }

    fn write(&self, job: &WriteJob) -> Option<Written> {
        self.outputs.write::<O>(job)
    }
}

impl<O, R, K> Bodiless for Storing<O, R, K>
where
    O: Outcome<Value: CacheValue>,
    R: Rules<O>,
    K: Keeping<O>,
{
    type Output = O::Output;

    fn poll_with(
        &mut self,
        body: Pin<&mut dyn Future<Output = O::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<O::Output> {
        let Self {
            steps,
            rules,
            outputs,
            keeping,
        } = self;
        // A value that this process had: there was nothing to do.
        if let (None, Some(_)) = (&*steps, &outputs.found) {
            return outputs.answer(Source::Entry);
        }
        let mut polled = Polled::<O, R, K> {
            rules,
            outputs,
            body,
            keeping: *keeping,
        };
        match steps::poll(steps, &mut polled, cx) {
            Poll::Ready(source) => outputs.answer(source),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A function with `#[cacheable(…, refresh = "background")]`, whose body may be `carried` into another task.
#[must_use = "futures do nothing unless they are polled"]
pub(crate) struct Detachable<O: Outcome, R, B, C, K> {
    steps: Option<Steps>,
    detached: Detached<O, R, B, C, K>,
}

/// The same without its steps.
struct Detached<O: Outcome, R, B, C, K> {
    rules: Option<R>,
    body: Body<B>,
    carried: C,
    outputs: Outputs<O::Output>,
    keeping: PhantomData<fn() -> K>,
}

/// A body that may run elsewhere.
enum Body<B> {
    Whole(B),
    Begun(Pin<Box<B>>),
    Gone,
}

impl<O: Outcome, R, B, C> Detachable<O, R, B, C, NotKept> {
    pub(crate) fn new(steps: Option<Steps>, rules: R, body: B, carried: C) -> Self {
        Self {
            steps,
            detached: Detached::new(rules, body, carried, None),
        }
    }
}

impl<O: Outcome<Value: CacheValue + LocalValue>, R, B, C> Detachable<O, R, B, C, KeptLocally> {
    /// The same for a function with `local`.
    pub(crate) fn local(
        steps: Option<Steps>,
        found: Option<O::Output>,
        rules: R,
        body: B,
        carried: C,
    ) -> Self {
        Self {
            steps,
            detached: Detached::new(rules, body, carried, found),
        }
    }
}

impl<O: Outcome, R, B, C, K> Detached<O, R, B, C, K> {
    fn new(rules: R, body: B, carried: C, found: Option<O::Output>) -> Self {
        Self {
            rules: Some(rules),
            body: Body::Whole(body),
            carried,
            outputs: Outputs {
                found,
                returned: None,
            },
            keeping: PhantomData,
        }
    }
}

impl<O: Outcome, R, B: Future, C, K> Detached<O, R, B, C, K> {
    /// A separate function, so that the body is not on the stack while it runs.
    #[inline(never)]
    fn begin_body(&mut self) {
        self.body = match mem::replace(&mut self.body, Body::Gone) {
            Body::Whole(body) => Body::Begun(boxed(|| body)),
            other => other,
        };
    }
}

impl<O, R, B, C, F, K> Caller for Detached<O, R, B, C, K>
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
    R: Rules<O> + Send + Sync + 'static,
    B: Future<Output = O::Output>,
    C: Fn(B) -> F,
    F: Future<Output = O::Output> + Send + 'static,
    K: Keeping<O>,
{
    fn keep(&self) -> Option<KeptValue> {
        K::keep(self.outputs.found.as_ref())
    }

    fn take(&mut self, kept: &Kept) -> bool {
        self.outputs.found = K::take(kept);
        self.outputs.found.is_some()
    }

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
            Some(rules) => self.outputs.appraise::<O>(rules),
            None => Appraisal::Failed,
        }
    }

    fn tags(&self, tags: &mut TagWriter) {
        if let Some(rules) = &self.rules {
            self.outputs.tags::<O>(rules, tags);
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
            let mut outputs = Outputs::new();
            let mut driver = Driver::new(path);
            // No caller waits for an answer, and there is none if the body was stopped.
            poll_fn(|cx| {
                let mut polled = Polled::<O, R, NotKept> {
                    rules: &rules,
                    outputs: &mut outputs,
                    body: body.as_mut(),
                    keeping: PhantomData,
                };
                driver.poll(&mut polled, cx)
            })
            .await;
        });
    }
}

/// A body that has begun is behind a pointer.
impl<O: Outcome, R, B, C, K> Unpin for Detachable<O, R, B, C, K> {}

impl<O, R, B, C, K> Future for Detachable<O, R, B, C, K>
where
    Detached<O, R, B, C, K>: Caller,
    O: Outcome,
{
    type Output = O::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        let Self { steps, detached } = self.get_mut();
        if let (None, Some(_)) = (&*steps, &detached.outputs.found) {
            return detached.outputs.answer(Source::Entry);
        }
        match steps::poll(steps, detached, cx) {
            Poll::Ready(source) => detached.outputs.answer(source),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A call of a function with `#[cache_evict]`.
pub(crate) struct Evicting<O: Outcome, M, N> {
    steps: Option<Steps>,
    /// Adds the targets that the value names to a call without targets.
    more: M,
    named: Option<N>,
    outputs: Outputs<O::Output>,
}

/// The same without its steps, while the body is polled.
struct PolledEviction<'a, O: Outcome, M, N> {
    more: &'a M,
    named: &'a mut Option<N>,
    outputs: &'a mut Outputs<O::Output>,
    body: Pin<&'a mut dyn Future<Output = O::Output>>,
}

impl<O: Outcome, M, N> Evicting<O, M, N> {
    #[inline(always)]
    pub(crate) fn new(steps: Option<Steps>, more: M, named: N) -> Self {
        Self {
            steps,
            more,
            named: Some(named),
            outputs: Outputs::new(),
        }
    }
}

impl<O, M, N> Caller for PolledEviction<'_, O, M, N>
where
    O: Outcome,
    M: Fn(&O::Value, N) -> N,
    N: Into<Vec<Target>>,
{
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.outputs.poll::<O>(self.body.as_mut(), cx)
    }

    fn named(&mut self) -> Vec<Target> {
        let value = self.outputs.returned::<O>().and_then(O::value);
        match (value, self.named.take()) {
            (Some(value), Some(named)) => (self.more)(value, named).into(),
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

    fn poll_with(
        &mut self,
        body: Pin<&mut dyn Future<Output = O::Output>>,
        cx: &mut Context<'_>,
    ) -> Poll<O::Output> {
        let Self {
            steps,
            more,
            named,
            outputs,
        } = self;
        let mut polled = PolledEviction::<O, M, N> {
            more,
            named,
            outputs,
            body,
        };
        match steps::poll(steps, &mut polled, cx) {
            Poll::Ready(source) => outputs.answer(source),
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
