//! What calls of functions with `local` do with the values in this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::call::CallContext;
use super::call_report;
use super::caller::Caller;
use super::local::{Asking, Doubt, Found, HEAD, Heads, Kept, Local, Question, Runner, Shape, Turn};
use super::lookup::Answer;
use super::pending;
use super::used::Used;
use super::{Backend, Inner, boxed};
use crate::doubt::Reading;
use crate::entry::{self, Meta};
use crate::error::Error;
use crate::key::{self, Key};
use crate::metrics::Event;
use crate::plan::{ReadNames, ReadPlan};
use crate::registry;
use crate::site::{LocalOutage, Site};
use crate::store::Store;
use crate::store::listener::Tracking;
use crate::tag::Tag;

/// Passes a certain value to `take`, for a call that nothing unusual is asked of: no scope, no view, no disabled key and no
/// pending eviction. All else is for [`CallContext::look_locally`]. Returns whether the call is a hit: this is all of one in this
/// process. The code of the value's type may panic.
pub(super) fn serve(
    cache: &Used,
    names: ReadNames<'_>,
    of_type: u64,
    take: &mut dyn FnMut(&Kept) -> bool,
) -> bool {
    let ReadNames { site, key, tags } = names;
    let inner = cache.inner();
    let is_usual = inner.guard.is_connected()
        && inner.journal.depth() == 0
        && !inner.disabled.any()
        && !call_report::is_viewed()
        && !pending::is_scoped();
    if !is_usual {
        return false;
    }
    key::complete(key, &inner.config.prefix);
    for tag in &mut *tags {
        key::complete_record(tag, &inner.config.prefix);
    }
    let now = inner.local.now();
    let is_hit = inner.local.find_certain(
        key,
        tags.iter().map(String::as_str),
        shape(site, of_type),
        now,
        |kept| entry::caught(|| take(kept)),
    );
    if is_hit != Some(Some(true)) {
        return false;
    }
    let metrics = inner.metrics.site(&site.metrics);
    metrics.count_in(Event::HitLocal, inner.local.second(now));
    #[cfg(feature = "admin")]
    metrics.saw_hit(key);
    true
}

impl Inner {
    /// Returns the reading for a read that is about to be sent, if its value would be kept.
    pub(super) fn reading_of(&self, plan: &ReadPlan) -> Option<Reading> {
        let ReadPlan { key, tags, .. } = plan;
        let is_kept = self.local.keeps(key, tags);
        is_kept.then(|| self.local.reading(key, tags))
    }

    /// Starts to listen for changes of what `site` reads, unless that is done.
    fn listen(&self, site: &'static Site, key: &Key, tags: &[Tag]) {
        let Some(Backend::Redis(store)) = &self.backend else {
            return;
        };
        let Local {
            doubts,
            wanted,
            listening,
            first,
            ..
        } = &self.local;
        let prefix = &self.config.prefix;
        let want = |site: &Site| {
            wanted.add([prefix, site.head()].concat());
            if !site.tags.is_empty() {
                wanted.add(Tag::begin(prefix));
            }
        };
        first.call_once(|| {
            registry::sites()
                .filter(|site| site.local.is_some())
                .for_each(want);
        });
        if !self.local.keeps(key, tags) {
            want(site);
        }
        listening.start(|running| {
            let (doubts, wanted) = (Arc::clone(doubts), Arc::clone(wanted));
            let listener = store.listen(&self.config, Tracking { doubts, wanted });
            async move {
                match listener {
                    Ok(listener) => listener.await,
                    Err(error) => warn!(%error, "cannot listen for changes in Redis"),
                }
                running.end_for_good();
            }
        });
    }
}

fn shape(site: &Site, of_type: u64) -> Shape {
    Shape {
        of_type,
        version: site.version,
    }
}

impl CallContext<'_> {
    /// Looks for a value in this process, and asks the store about a doubtful one. Returns [`None`] if the store must be asked
    /// for the value.
    pub(super) async fn look_locally(&self) -> Option<Answer> {
        let is_allowed = self.inner.local.is_on() && !self.is_hidden() && !self.is_off;
        if !is_allowed {
            return None;
        }
        let local = &self.inner.local;
        if !self.inner.guard.is_connected() {
            return self.serve_in_outage(self.find_locally());
        }
        self.inner.listen(self.site, self.key, self.tags);
        let kept = match self.find_locally() {
            Found::Certain(kept) => return Some(Answer::Kept(kept, Event::HitLocal)),
            Found::Doubtful(kept) => kept,
            Found::Nothing => return None,
        };
        let doubt = match local.ask(self.key, &kept) {
            Asking::Waiter(answer) => {
                // As long as the question may take. Without an answer of Redis the other caller fails first, and this one with it.
                let patience = self.inner.config.operation_max();
                local.answer_to_another(&kept, answer, patience).await
            }
            Asking::Asker(asker) => {
                let heads = self
                    .ask("confirm", |store| boxed(|| self.heads(store, asker.keys())))
                    .await;
                asker.judge(heads, self.site.local.unwrap_or_default())
            }
        };
        match doubt {
            Doubt::Confirmed => Some(Answer::Kept(kept, Event::HitLocal)),
            Doubt::Changed => None,
            Doubt::Failed(error) => self
                .serve_in_outage(Found::Doubtful(kept))
                // A call waits for Redis once.
                .or(Some(Answer::Failed(error))),
        }
    }

    /// Returns the first bytes of what the store holds for the keys, together with other callers that ask at the same time.
    async fn heads(&self, store: &dyn Store, keys: &[Key]) -> Result<Heads, Error> {
        let (answer, runner) = match self.inner.local.gather(keys) {
            Turn::Alone(_alone) => return store.peek(keys, HEAD).await,
            Turn::Gathers(answer, runner) => (answer, runner),
        };
        if let (Some(runner), Some(inner)) = (runner, self.inner.this.upgrade()) {
            tokio::spawn(ask_for_all(inner, runner));
        }
        match answer.await {
            Ok(heads) => Ok(heads),
            Err(_) => store.peek(keys, HEAD).await,
        }
    }

    fn find_locally(&self) -> Found {
        let local = &self.inner.local;
        let shape = shape(self.site, self.of.number);
        let tags = self.tags.iter().map(|tag| tag.key().as_str());
        match local.find(self.key.as_str(), tags, shape, local.now()) {
            Found::Certain(kept) | Found::Doubtful(kept) if self.is_hidden_by_a_tag(&kept) => {
                Found::Nothing
            }
            found => found,
        }
    }

    /// Returns whether an eviction by tag waits that hides the value from this call.
    fn is_hidden_by_a_tag(&self, kept: &Kept) -> bool {
        let is_evicted =
            |tag| pending::covers_tag(self.inner, tag) || self.inner.journal.blocks_tag(tag);
        !self.is_plain() && kept.tags().any(is_evicted)
    }

    /// Returns a value that may be served without Redis, and is not known to have changed.
    fn serve_in_outage(&self, found: Found) -> Option<Answer> {
        let (Found::Certain(kept) | Found::Doubtful(kept)) = found else {
            return None;
        };
        let is_served = self.site.local_outage == LocalOutage::Serve
            && kept.is_unchanged(self.inner.local.reading_of(&kept));
        is_served.then_some(Answer::Kept(kept, Event::HitOutage))
    }

    /// Returns the reading for an entry with these tags besides those of the call, whose stamps the store is about to be asked for.
    pub(super) fn reading_with(&self, unknown: &[Tag]) -> Option<Reading> {
        let reading = self.reading?;
        let local = &self.inner.local;
        if !local.keeps(self.key, unknown) {
            // From now on, for functions that declare no tags themselves.
            local.wanted.add(Tag::begin(&self.inner.config.prefix));
            return None;
        }
        Some(local.reading_with(reading, unknown))
    }

    /// Keeps the value that the caller has decoded. `reading` is that of its key and its tags, each taken before the store was asked
    /// for it.
    pub(super) fn keep_locally(
        &self,
        caller: &dyn Caller,
        bytes: &[u8],
        meta: Meta,
        reading: Reading,
    ) {
        let local = &self.inner.local;
        let Some(period) = self.site.local else {
            return;
        };
        let Some(Some(value)) = entry::caught(|| caller.keep()) else {
            return;
        };
        let facts = local.facts(
            (self.key, shape(self.site, self.of.number)),
            meta,
            Duration::from_millis(meta.fresh_until.saturating_sub(self.now())),
            entry::json_bytes(bytes),
            local.tags(&self.inner.config.prefix, bytes),
            (reading, period),
        );
        local.keep(self.key, facts, value);
    }

    /// Leaves a value with the caller, whose type must not take the call down.
    pub(super) fn take_kept(&self, kept: &Kept, caller: &mut dyn Caller) -> bool {
        entry::caught(|| caller.take(kept)).unwrap_or(false)
    }

    pub(super) fn hit_locally(&self, event: Event, kept: &Kept) {
        self.metrics.found(&kept.facts().meta, self.now());
        self.metrics.count_at(event, self.started.into_std());
        self.log_hit(event, self.started.elapsed());
        #[cfg(feature = "admin")]
        self.metrics.saw_hit(self.key.as_str());
    }
}

/// Asks the store for the callers that gather. Each of them has a deadline of its own.
async fn ask_for_all(inner: Arc<Inner>, mut runner: Runner) {
    while let Some(question) = Question::next(&mut runner) {
        let answer = inner.guard.store().peek(question.keys(), HEAD);
        if let Ok(Ok(heads)) = timeout(inner.config.operation_max(), answer).await {
            question.answer(&heads);
        }
    }
}

#[cfg(test)]
mod tests;
