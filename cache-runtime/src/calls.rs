//! What an annotated function asks of the cache, step by step as its attribute is written.

use crate::cache::Used;
use crate::key::{Key, KeyWriter, Pattern, PatternWriter};
use crate::plan::{EvictPlan, ReadPlan};
use crate::site::{Site, Ttl};
use crate::target::Target;

/// One call of a function with `#[cacheable]` or `#[cache_put]`: the cache, and what is asked of it.
///
/// It holds no cache when none is installed or when `condition` is false; then no argument is evaluated and the body runs
/// as if the attribute were not there.
#[derive(Debug)]
pub struct ReadCall {
    cache: Option<Used>,
    site: &'static Site,
    ttl: Option<Ttl>,
    key: Option<Key>,
}

/// One call of a function with `#[cache_evict]`, in the same way.
#[derive(Debug)]
pub struct EvictCall {
    cache: Option<Used>,
    plan: EvictPlan,
}

impl ReadCall {
    /// A call of the function that `site` describes.
    pub fn new(site: &'static Site, cache: Option<Used>) -> Self {
        Self {
            cache,
            site,
            ttl: None,
            key: None,
        }
    }

    /// `condition = …`
    #[must_use]
    pub fn when(mut self, condition: impl FnOnce() -> bool) -> Self {
        self.cache = self.cache.filter(|_| condition());
        self
    }

    /// `ttl = …`, where it is an expression.
    #[must_use]
    pub fn ttl<T: Into<Ttl>>(mut self, ttl: impl FnOnce() -> T) -> Self {
        if self.cache.is_some() {
            self.ttl = Some(ttl().into());
        }
        self
    }

    /// `key = …`
    #[must_use]
    pub fn key(mut self, write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            self.key = Some(Key::render(cache.prefix(), write));
        }
        self
    }

    /// What is asked of which cache, if there is one.
    pub(crate) fn into_parts(self) -> Option<(Used, ReadPlan)> {
        let Self {
            cache,
            site,
            ttl,
            key,
        } = self;
        Some((
            cache?,
            ReadPlan {
                site,
                key: key?,
                ttl,
            },
        ))
    }
}

impl EvictCall {
    /// A call of the function that `site` describes.
    pub fn new(site: &'static Site, cache: Option<Used>) -> Self {
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

    /// A call that names nothing yet, and what is asked of which cache, if there is one.
    pub(crate) fn split(self) -> (Self, Option<(Used, EvictPlan)>) {
        let Self { cache, plan } = self;
        let named = Self::new(plan.site, cache.clone());
        (named, cache.map(|cache| (cache, plan)))
    }
}

impl From<EvictCall> for Vec<Target> {
    fn from(call: EvictCall) -> Self {
        call.plan.targets
    }
}
