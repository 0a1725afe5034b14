//! Calls without an attribute, for tests that make their own plans.

use std::future::Future;
use std::pin::Pin;

use super::{
    Bodied, Bodiless, Cache, Detachable, Evicting, Refresh, Storing, Used, ValueType, evict, read,
    write,
};
use crate::calls::EvictCall;
use crate::plan::{EvictPlan, ReadPlan};
use crate::site::{CacheValue, Outcome, Rules};

impl Cache {
    pub(super) fn read<O: Outcome<Value: CacheValue>>(
        call: Option<(Used, ReadPlan)>,
        rules: impl Rules<O>,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output> {
        let steps = read(call, ValueType::of_outcome::<O>(), Refresh::Caller);
        with(Storing::<O, _, _>::new(steps, rules), body)
    }

    pub(super) fn read_with_background_refresh<O, B, C>(
        call: Option<(Used, ReadPlan)>,
        rules: impl Rules<O> + Send + Sync + 'static,
        body: B,
        carried: impl Fn(B) -> C,
    ) -> impl Future<Output = O::Output>
    where
        O: Outcome<Output: Send, Value: CacheValue> + 'static,
        B: Future<Output = O::Output>,
        C: Future<Output = O::Output> + Send + 'static,
    {
        let steps = read(call, ValueType::of_outcome::<O>(), Refresh::Background);
        Detachable::<O, _, _, _, _>::new(steps, rules, body, carried)
    }

    pub(super) fn write<O: Outcome<Value: CacheValue>>(
        call: Option<(Used, ReadPlan)>,
        rules: impl Rules<O>,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output> {
        let steps = write(call, ValueType::of_outcome::<O>());
        with(Storing::<O, _, _>::new(steps, rules), body)
    }

    /// What the body returns names nothing.
    pub(super) fn evict<O: Outcome>(
        (cache, plan): (Used, EvictPlan),
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output> {
        let named = EvictCall::through(plan.site, None);
        let steps = evict(Some((cache, plan)));
        let more = |_: &O::Value, call: EvictCall| call;
        with(Evicting::<O, _, _>::new(steps, more, named), body)
    }
}

async fn with<C: Bodiless>(
    mut call: C,
    body: Pin<&mut impl Future<Output = C::Output>>,
) -> C::Output {
    let call = &mut call;
    Bodied { call, body }.await
}
