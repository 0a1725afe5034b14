//! What the annotated functions of a program cache, and what looks like a mistake in them.
//!
//! Everything here is known before the first call, so a test can check it. [`Cache::catalog`](crate::Cache::catalog) returns the
//! catalog with the configuration of a cache, and [`Catalog::new`] does the same without a cache.
//! `docs/book/src/reference/observability.md` in the repository lists the codes of the findings.
//!
//! ```standalone_crate
//! use cache_runtime::{Cache, assert_catalog_clean, cache_evict, cacheable};
//!
//! #[cacheable(key = "article:<id>", ttl = "30m")]
//! async fn article(id: i64) -> String { format!("article {id}") }
//!
//! #[cache_evict(key = "article:<id>")]
//! async fn rename(id: i64) {}
//!
//! # async fn test() {
//! let catalog = Cache::memory().catalog();
//!
//! println!("{catalog}"); // a table: keys, times, and which function evicts which
//! assert_catalog_clean!(catalog);
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test());
//! ```

mod finding;
mod lint;
mod policies;
mod table;
mod template;

use std::fmt::{self, Write as _};
use std::iter;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::template::Template;
use crate::config::Config;
use crate::registry;
use crate::site::{LocalOutage, Role, Site};

pub use self::finding::{Code, Finding};

/// The annotated functions of the program and its libraries, and the findings about them.
///
/// [`Display`](fmt::Display) writes a table for people. Functions that store are first, then those that evict.
///
/// ```
/// use cache_runtime::Config;
/// use cache_runtime::catalog::{Attribute, Catalog};
///
/// let catalog = Catalog::new(&Config::default());
/// for function in catalog.functions.iter().filter(|function| function.attribute != Attribute::CacheEvict) {
///     println!("{} stores {}", function.name, function.template);
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Catalog {
    /// By the place in the source text.
    pub functions: Vec<Function>,
    /// By code.
    pub findings: Vec<Finding>,
}

/// An annotated function. A function with several attributes is in the catalog once for each of them.
///
/// ```standalone_crate
/// use cache_runtime::catalog::{Catalog, TargetKind, TtlFrom};
/// use cache_runtime::{Config, cache_evict, cacheable};
///
/// #[cacheable(key = "article:<id>")]
/// async fn article(id: i64) -> String {
///     format!("article {id}")
/// }
///
/// #[cache_evict(pattern = "article:*")]
/// async fn import() {}
///
/// let catalog = Catalog::new(&Config::default());
/// let article = catalog.functions.iter().find(|function| function.template == "article:<id>").expect("annotated");
///
/// let stores = article.stores.as_ref().expect("it stores values");
/// assert_eq!((stores.ttl_from, stores.ttl_seconds), (TtlFrom::Default, Some(3600.0)));
///
/// let eviction = &article.evicted_by[0];
/// assert_eq!((eviction.target.template, eviction.target.kind), ("article:*", TargetKind::Pattern));
/// assert!(eviction.target.kind.scans());
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Function {
    /// The function with its module path.
    pub name: &'static str,
    /// The file with the attribute, as the compiler was given it.
    pub file: &'static str,
    /// The line of the attribute.
    pub line: u32,
    /// Which attribute it is.
    pub attribute: Attribute,
    /// All targets as one text, as the metrics and [`SiteStats`](crate::SiteStats) name them. It is empty for `all_entries`.
    pub template: &'static str,
    /// The key of a function that stores, and the tags of its entries; what a function evicts.
    pub targets: Vec<Target>,
    /// Whether it has `cache = …`, so that it does not use the installed cache.
    pub has_own_cache: bool,
    /// How it stores; `None` for `#[cache_evict]`.
    pub stores: Option<Stores>,
    /// What can evict its entries.
    pub evicted_by: Vec<Eviction>,
    /// The functions whose entries it can evict.
    pub evicts: Vec<&'static str>,
}

/// An attribute that uses the cache.
///
/// See [`Catalog`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attribute {
    /// `#[cacheable]`
    Cacheable,
    /// `#[cache_put]`
    CachePut,
    /// `#[cache_evict]`
    CacheEvict,
}

/// A key, a tag, or what an eviction removes.
///
/// See [`Function`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Target {
    /// As it is written, such as `event:<id>`.
    pub template: &'static str,
    /// What it names.
    pub kind: TargetKind,
}

/// What a target names.
///
/// See [`Function`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetKind {
    /// One entry.
    Key,
    /// All entries that match.
    Pattern,
    /// All entries with the tag.
    Tag,
    /// `all_entries`
    All,
}

/// How a function stores values.
///
/// See [`Function`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stores {
    /// The type of the value, as the return type is written, without `Result`, `Option` and paths.
    pub value: &'static str,
    /// How long a value is fresh; `None` if it is known only during a call.
    pub ttl_seconds: Option<f64>,
    /// Where the TTL comes from.
    pub ttl_from: TtlFrom,
    /// How long a `None` is stored; `None` if it is not stored.
    pub none_ttl_seconds: Option<f64>,
    /// How long a value may be served after its TTL.
    pub grace_seconds: Option<f64>,
    /// By how many percent a TTL is shortened at most; `None` if another cache decides.
    pub ttl_jitter: Option<u8>,
    /// Whether stale values are refreshed in a background task.
    pub refreshes_in_background: bool,
    /// For how long the memory of the process serves a value; `None` without `local`.
    pub local_seconds: Option<f64>,
    /// Whether it also serves them while Redis is unavailable.
    pub serves_local_in_outage: bool,
    /// `policy = …`
    pub policy: Option<&'static str>,
    /// `version = …`; 0 if it has none.
    pub version: u64,
}

/// Where a TTL comes from.
///
/// See [`Function`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TtlFrom {
    /// A number or a text in the attribute.
    Attribute,
    /// The configured policy that the attribute names.
    Policy,
    /// `default_ttl` of the configuration.
    Default,
    /// An expression or a closure in the attribute.
    Computed,
    /// The configuration of the cache that `cache = …` names.
    OwnCache,
}

/// A function that can evict the entries of another function.
///
/// See [`Function`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Eviction {
    /// The function with its module path.
    pub function: &'static str,
    /// The target that matches.
    pub target: Target,
}

impl Catalog {
    /// Returns the catalog of the program as it is under this configuration. A cache is not needed.
    ///
    /// Functions with `cache = …` use another configuration, so those of their times that are not in the attribute are left out.
    pub fn new(config: &Config) -> Self {
        Self::of(config, registry::sites())
    }

    fn of(config: &Config, sites: impl Iterator<Item = &'static Site>) -> Self {
        let mut known: Vec<Known> = sites.map(Known::new).collect();
        known.sort_by_key(|known| {
            let at = known.site.location;
            (at.file(), at.line(), known.site.name)
        });
        let functions: Vec<Function> = known
            .iter()
            .map(|function| function.describe(config, &known))
            .collect();
        let mut findings = lint::findings(&known, &functions);
        findings.extend(policies::findings(
            config,
            known.iter().map(|known| known.site),
        ));
        findings.sort();
        // A macro may make the same function several times.
        findings.dedup();
        Self {
            functions,
            findings,
        }
    }

    /// Returns the findings that nothing in `accepted` names, and what in it names no finding.
    #[doc(hidden)]
    pub fn problems(&self, accepted: &[&str]) -> String {
        let is_accepted = |finding: &&Finding| !accepted.iter().any(|text| finding.is_named(text));
        let mut problems = String::new();
        for finding in self.findings.iter().filter(is_accepted) {
            let _ = writeln!(problems, "{finding}");
        }
        for text in accepted {
            if !self.findings.iter().any(|finding| finding.is_named(text)) {
                let _ = writeln!(
                    problems,
                    "`{text}` is allowed but not found; remove it from `allow`"
                );
            }
        }
        problems
    }
}

/// Asserts that a [`Catalog`] has no findings. The message of the failure lists each finding with advice.
///
/// `allow` accepts findings that are intended: the code, and the functions if only theirs are accepted. An accepted finding that is
/// no longer found fails, too.
///
/// ```standalone_crate
/// # use cache_runtime::{Config, assert_catalog_clean, cacheable};
/// use cache_runtime::catalog::Catalog;
///
/// #[cacheable(key = "countries", ttl = "24h")]
/// async fn countries() -> Vec<String> { Vec::new() }
///
/// let catalog = Catalog::new(&Config::default());
/// // The list changes only with a release.
/// assert_catalog_clean!(catalog, allow = ["never-evicted countries"]);
/// ```
///
/// Without a catalog it checks that of the default configuration, which has no policies: `assert_catalog_clean!()`.
///
/// A program contains only the crates that it names. A test in `tests/` that uses nothing of the crate `shop` needs `use shop as _;`.
#[macro_export]
macro_rules! assert_catalog_clean {
    ($(allow = [$($accepted:expr),* $(,)?] $(,)?)?) => {
        $crate::assert_catalog_clean!(
            $crate::catalog::Catalog::new(&$crate::Config::default()),
            allow = [$($($accepted),*)?],
        )
    };
    ($catalog:expr $(, allow = [$($accepted:expr),* $(,)?])? $(,)?) => {{
        let problems = $crate::catalog::Catalog::problems(&$catalog, &[$($($accepted),*)?]);
        ::core::assert!(problems.is_empty(), "the catalog has findings:\n{problems}");
    }};
}

/// The functions of the program, to find out which of them evict the entries of which.
pub(crate) struct Evictors(Vec<Known>);

impl Evictors {
    pub(crate) fn known() -> Self {
        Self(registry::sites().map(Known::new).collect())
    }

    /// Returns what can evict the entries of a function, in any cache.
    pub(crate) fn of(&self, site: &'static Site) -> Vec<Eviction> {
        Known::new(site).evicted_by(&self.0)
    }

    /// Returns whether a function evicts the entries of this one by name, or puts new ones. `all_entries` names nothing: it says little
    /// about when the data of one key changes.
    pub(crate) fn is_renewed(&self, site: &'static Site) -> bool {
        Known::new(site).is_renewed(&self.0, |kind| kind != TargetKind::All)
    }
}

/// Returns what a function evicts.
pub(crate) fn targets(site: &'static Site) -> Vec<Target> {
    Known::new(site)
        .evicted()
        .map(|(target, _)| target)
        .collect()
}

/// Logs the findings.
pub(crate) fn report(config: &Config) {
    for finding in Catalog::new(config).findings {
        finding.log();
    }
}

impl Target {
    fn new(template: &Template, kind: TargetKind) -> Self {
        let template = template.text;
        Self { template, kind }
    }
}

impl TargetKind {
    /// Returns whether Redis has to walk its keys to find the entries, which takes longer the more keys there are.
    pub fn scans(self) -> bool {
        match self {
            Self::Key | Self::Tag => false,
            Self::Pattern | Self::All => true,
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cacheable => "cacheable",
            Self::CachePut => "cache_put",
            Self::CacheEvict => "cache_evict",
        })
    }
}

/// A site and its templates.
struct Known {
    site: &'static Site,
    /// One for each key and pattern.
    templates: Vec<Template>,
    tags: Vec<Template>,
}

impl Known {
    fn new(site: &'static Site) -> Self {
        // A template cannot contain white space.
        let split = |texts: &'static str| -> Vec<Template> {
            let texts = texts.split(", ").filter(|text| !text.is_empty());
            texts
                .map(|text| Template::new(text, site.numbers))
                .collect()
        };
        let tags = split(site.tags);
        let templates = match site.role {
            Role::Clears => Vec::new(),
            Role::Reads | Role::Puts => split(site.template),
            Role::Evicts { .. } => {
                let mut templates = split(site.template);
                templates.truncate(templates.len().saturating_sub(tags.len()));
                templates
            }
        };
        Self {
            site,
            templates,
            tags,
        }
    }

    /// Returns the template of the key that it stores under.
    fn key(&self) -> Option<&Template> {
        match self.site.role {
            Role::Reads | Role::Puts => self.templates.first(),
            Role::Evicts { .. } | Role::Clears => None,
        }
    }

    /// Returns the tags of what it stores.
    fn stored_tags(&self) -> &[Template] {
        match self.key() {
            Some(_) => &self.tags,
            None => &[],
        }
    }

    /// Returns what it evicts, with the template.
    fn evicted(&self) -> impl Iterator<Item = (Target, Option<&Template>)> {
        let (keys, clears) = match self.site.role {
            Role::Evicts { keys } => (Some(keys), None),
            Role::Clears => {
                let all = Target {
                    template: self.site.template,
                    kind: TargetKind::All,
                };
                (None, Some(all))
            }
            Role::Reads | Role::Puts => (None, None),
        };
        let named = keys.into_iter().flat_map(move |keys| {
            let names = self.templates.iter().enumerate();
            let names = names.map(move |(at, template)| {
                let kind = match at < keys {
                    true => TargetKind::Key,
                    false => TargetKind::Pattern,
                };
                (template, kind)
            });
            let tags = self.tags.iter().map(|tag| (tag, TargetKind::Tag));
            names
                .chain(tags)
                .map(|(template, kind)| (Target::new(template, kind), Some(template)))
        });
        named.chain(clears.map(|all| (all, None)))
    }

    /// Returns the first target that can name an entry of another function. Functions with their own caches may share a cache, so
    /// all are compared.
    fn evicts(&self, other: &Self) -> Option<Target> {
        let key = other.key()?;
        self.evicted()
            .find(|(target, template)| match template {
                Some(tag) if target.kind == TargetKind::Tag => {
                    other.tags.iter().any(|other| tag.overlaps(other))
                }
                Some(template) => template.overlaps(key),
                None => true,
            })
            .map(|(target, _)| target)
    }

    fn evicted_by(&self, others: &[Self]) -> Vec<Eviction> {
        others
            .iter()
            .filter_map(|other| {
                Some(Eviction {
                    function: other.site.name,
                    target: other.evicts(self)?,
                })
            })
            .collect()
    }

    /// Returns whether a function evicts the entries of this one by a target of a kind that counts, or puts new ones.
    fn is_renewed(&self, others: &[Self], counts: impl Fn(TargetKind) -> bool) -> bool {
        let Some(key) = self.key() else {
            return false;
        };
        let is_put = |other: &Self| {
            other.site.role == Role::Puts && other.key().is_some_and(|put| put.overlaps(key))
        };
        let evicted = self.evicted_by(others);
        evicted.iter().any(|by| counts(by.target.kind)) || others.iter().any(is_put)
    }

    fn describe(&self, config: &Config, others: &[Self]) -> Function {
        let site = self.site;
        let (attribute, stores) = match site.role {
            Role::Reads => (Attribute::Cacheable, Some(stores(site, config))),
            Role::Puts => (Attribute::CachePut, Some(stores(site, config))),
            Role::Evicts { .. } | Role::Clears => (Attribute::CacheEvict, None),
        };
        let targets = match self.key() {
            Some(key) => {
                let tags = self.tags.iter();
                let tags = tags.map(|tag| Target::new(tag, TargetKind::Tag));
                iter::once(Target::new(key, TargetKind::Key))
                    .chain(tags)
                    .collect()
            }
            None => self.evicted().map(|(target, _)| target).collect(),
        };
        let mut evicts: Vec<&str> = others
            .iter()
            .filter(|other| self.evicts(other).is_some())
            .map(|other| other.site.name)
            .collect();
        evicts.dedup();
        Function {
            name: site.name,
            file: site.location.file(),
            line: site.location.line(),
            attribute,
            template: site.template,
            targets,
            has_own_cache: site.has_own_cache,
            stores,
            evicted_by: self.evicted_by(others),
            evicts,
        }
    }
}

/// The same order as in a call: the attribute, the policy, the default.
fn stores(site: &'static Site, config: &Config) -> Stores {
    let own = site.has_own_cache;
    let policy = site
        .policy
        .filter(|_| !own)
        .and_then(|name| config.policy_of(name));
    let of_policy = policy.and_then(|policy| policy.ttl);
    let (ttl, ttl_from) = match (site.ttl, of_policy) {
        _ if site.has_computed_ttl => (None, TtlFrom::Computed),
        (Some(ttl), _) => (Some(ttl), TtlFrom::Attribute),
        (None, Some(ttl)) => (Some(ttl), TtlFrom::Policy),
        (None, None) if own => (None, TtlFrom::OwnCache),
        (None, None) => (Some(config.default_ttl), TtlFrom::Default),
    };
    let none_ttl = site.none_ttl.or(policy.and_then(|policy| policy.none_ttl));
    let grace = site.grace.or(policy.and_then(|policy| policy.grace));
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    Stores {
        value: site.value,
        ttl_seconds: seconds(ttl),
        ttl_from,
        none_ttl_seconds: seconds(none_ttl),
        grace_seconds: seconds(grace),
        ttl_jitter: site.ttl_jitter.or((!own).then_some(config.ttl_jitter)),
        refreshes_in_background: site.refreshes_in_background,
        local_seconds: seconds(site.local),
        serves_local_in_outage: site.local_outage == LocalOutage::Serve,
        policy: site.policy,
        version: site.version,
    }
}

#[cfg(test)]
mod tests;
