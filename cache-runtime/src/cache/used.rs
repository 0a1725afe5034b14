//! The cache of a call, as the code of annotated functions holds it.

use std::fmt;
use std::sync::Arc;

use super::{Cache, Inner};

/// The cache of a call. The installed cache is not cloned: every hit on every thread would write to its reference count.
///
/// It does not name the type of a cache. Otherwise the debug information of each crate that has annotated functions would
/// describe all types that a cache consists of.
#[derive(Clone)]
pub(crate) struct Used(Kind);

#[derive(Clone)]
enum Kind {
    /// The process-wide cache.
    Installed(&'static dyn Opaque),
    /// A cache that the attribute names, which the body may move, or that of a [`Cache::run`].
    Named(Arc<dyn Opaque>),
}

/// A cache behind a trait object.
trait Opaque: Send + Sync {
    fn inner(&self) -> &Inner;
}

impl Opaque for Inner {
    fn inner(&self) -> &Inner {
        self
    }
}

impl Used {
    pub(crate) fn installed(cache: &'static Cache) -> Self {
        Self(Kind::Installed(&*cache.inner))
    }

    pub(crate) fn named(cache: &Cache) -> Self {
        let inner = Arc::clone(&cache.inner);
        Self(Kind::Named(inner))
    }

    pub(super) fn inner(&self) -> &Inner {
        match &self.0 {
            Kind::Installed(cache) => cache.inner(),
            Kind::Named(cache) => cache.inner(),
        }
    }

    /// The prefix of its keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.inner().config.prefix
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Used")
            .field("prefix", &self.prefix())
            .finish_non_exhaustive()
    }
}
