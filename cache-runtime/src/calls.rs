//! The calls of annotated functions, built step by step from their attributes.

use std::sync::Once;

use tracing::warn;

use crate::cache::{self, Cache, Refresh, Steps, Used, ValueType};
use crate::key::{self, Key, KeyWriter, Pattern, PatternWriter};
use crate::plan::{EvictPlan, ReadNames, ReadPlan};
use crate::site::{CacheValue, LocalValue, Outcome, Site, Ttl};
use crate::tag::Tag;
use crate::target::Target;

/// A call of a function with `#[cacheable]` or `#[cache_put]`: the cache, and the request to it.
///
/// It holds no cache if none is installed or if `condition` is false. Then no argument is evaluated and the body runs as
/// if the attribute were absent.
#[derive(Debug)]
pub struct ReadCall {
    cache: Option<Used>,
    site: &'static Site,
    ttl: Option<Ttl>,
    /// The name of the key, as far as it is written.
    name: Option<String>,
    /// The names of the tags. The last of them may not be complete.
    tags: Vec<String>,
}

/// The same for a call of a function with `#[cache_evict]`.
#[derive(Debug)]
pub struct EvictCall {
    cache: Option<Used>,
    plan: EvictPlan,
}

impl ReadCall {
    /// Creates a call of the function that `site` describes.
    pub fn new(site: &'static Site) -> Self {
        Self::through(site, current())
    }

    /// `cache = …`
    pub fn by(site: &'static Site, cache: &Cache) -> Self {
        Self::through(site, Some(Used::named(cache)))
    }

    fn through(site: &'static Site, cache: Option<Used>) -> Self {
        Self {
            cache,
            site,
            ttl: None,
            name: None,
            tags: Vec::new(),
        }
    }

    /// `condition = …`
    #[must_use]
    pub fn when(mut self, condition: impl FnOnce() -> bool) -> Self {
        self.cache = self.cache.filter(|_| condition());
        self
    }

    /// `ttl = …`, if it is an expression.
    #[must_use]
    pub fn ttl<T: Into<Ttl>>(mut self, ttl: impl FnOnce() -> T) -> Self {
        if self.cache.is_some() {
            self.ttl = Some(ttl().into());
        }
        self
    }

    /// `key = …`: returns the writer of the key, if there is a cache. The key begins with this text of the template.
    pub fn key(&mut self, text: &str) -> Option<KeyWriter<'_>> {
        let mut name = Key::begin(self.cache.as_ref()?.prefix());
        name.push_str(text);
        Some(KeyWriter::new(self.name.insert(name)))
    }

    /// `tag = …` over arguments: returns the writer of another tag, if there is a cache. The tag begins with this text of the template.
    pub fn tag(&mut self, text: &str) -> Option<KeyWriter<'_>> {
        let mut name = Tag::begin(self.cache.as_ref()?.prefix());
        name.push_str(text);
        self.tags.push(name);
        self.tags.last_mut().map(KeyWriter::new)
    }

    /// Returns the value of a call of a function with `local` if this process has it, or else the steps of the call. Such a hit is
    /// found before there is a request to the cache.
    #[inline(always)]
    pub(crate) fn find_locally<O>(mut self, refresh: Refresh) -> (Option<Steps>, Option<O::Output>)
    where
        O: Outcome<Value: CacheValue + LocalValue>,
    {
        if let Some((cache, names)) = self.names()
            && let Some(output) = cache::find_locally::<O>(cache, names)
        {
            self.recycle();
            return (None, Some(output));
        }
        let of = ValueType::of_outcome::<O>();
        (cache::read(self.into_parts(), of, refresh), None)
    }

    /// Returns the cache, if there is a cache, and the names.
    fn names(&mut self) -> Option<(&Used, ReadNames<'_>)> {
        let Self {
            cache,
            site,
            ttl: _,
            name,
            tags,
        } = self;
        let names = ReadNames {
            site,
            key: name.as_mut()?,
            tags,
        };
        Some((cache.as_ref()?, names))
    }

    /// Keeps the buffers of its names for other calls of this thread.
    fn recycle(self) {
        if let Some(name) = self.name {
            key::recycle(name);
        }
        for tag in self.tags {
            key::recycle(tag);
        }
    }

    /// Returns the cache, if there is a cache, and the request to it.
    pub(crate) fn into_parts(self) -> Option<(Used, ReadPlan)> {
        let Self {
            cache,
            site,
            ttl,
            name,
            tags,
        } = self;
        let cache = cache?;
        let key = Key::end(name?, cache.prefix());
        let tags = tags.into_iter();
        let tags = tags.map(|tag| Tag::end(tag, cache.prefix())).collect();
        let plan = ReadPlan {
            site,
            key,
            ttl,
            tags,
        };
        Some((cache, plan))
    }
}

impl EvictCall {
    /// Creates a call of the function that `site` describes.
    pub fn new(site: &'static Site) -> Self {
        Self::through(site, current())
    }

    /// `cache = …`
    pub fn by(site: &'static Site, cache: &Cache) -> Self {
        Self::through(site, Some(Used::named(cache)))
    }

    pub(crate) fn through(site: &'static Site, cache: Option<Used>) -> Self {
        Self {
            cache,
            plan: EvictPlan::new(site),
        }
    }

    /// `condition = …`
    #[must_use]
    pub fn when(mut self, condition: impl FnOnce() -> bool) -> Self {
        self.cache = self.cache.filter(|_| condition());
        self
    }

    /// `key = …`
    #[must_use]
    pub fn key(mut self, write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            let key = Key::render(cache.prefix(), write);
            self.plan.targets.push(Target::Key(key));
        }
        self
    }

    /// `pattern = …`
    #[must_use]
    pub fn pattern(mut self, write: &mut dyn FnMut(&mut PatternWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            let pattern = Pattern::render(cache.prefix(), write);
            self.plan.targets.push(Target::Pattern(pattern));
        }
        self
    }

    /// `tag = …`
    #[must_use]
    pub fn tag(mut self, write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            let tag = Tag::render(cache.prefix(), write);
            self.plan.targets.push(Target::Tag(tag));
        }
        self
    }

    /// `all_entries`
    #[must_use]
    pub fn all_entries(mut self) -> Self {
        self.plan.targets.push(Target::All);
        self
    }

    /// `before`
    #[must_use]
    pub fn before(mut self) -> Self {
        self.plan.before = true;
        self
    }

    /// `fence`
    #[must_use]
    pub fn fence(mut self) -> Self {
        self.plan.fence = true;
        self
    }

    /// `always`
    #[must_use]
    pub fn always(mut self) -> Self {
        self.plan.always = true;
        self
    }

    /// Returns the cache, if there is a cache, and a request without targets.
    pub(crate) fn split(self) -> (Self, Option<(Used, EvictPlan)>) {
        let Self { cache, plan } = self;
        let named = Self::through(plan.site, cache.clone());
        (named, cache.map(|cache| (cache, plan)))
    }
}

impl From<EvictCall> for Vec<Target> {
    fn from(call: EvictCall) -> Self {
        call.plan.targets
    }
}

/// Returns the cache of the [`Cache::run`] around the call, or else the process-wide cache. Without either the body runs,
/// and the first call logs a warning.
fn current() -> Option<Used> {
    static WARNING: Once = Once::new();
    if let Some(cache) = Cache::of_run() {
        return Some(Used::named(&cache));
    }
    let installed = Cache::installed();
    if installed.is_none() {
        WARNING.call_once(|| {
            warn!(
                "no cache is installed, so annotated functions run uncached; call `cache.install()`, or in a test `cache.run(…)`"
            );
        });
    }
    installed.map(Used::installed)
}
