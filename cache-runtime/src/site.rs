//! The arguments of an attribute about its function, and which results of the function are stored.

use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::{self, Layers};
use crate::metrics::{Series, SiteSlot};
use crate::tag::TagWriter;

/// The arguments of an attribute, known at compile time.
#[derive(Debug)]
pub struct Site {
    pub(crate) name: &'static str,
    pub(crate) template: &'static str,
    /// Where the attribute is.
    pub(crate) location: &'static Location<'static>,
    pub(crate) role: Role,
    /// The type of the stored value, as the return type is written; empty if the function stores nothing.
    pub(crate) value: &'static str,
    pub(crate) policy: Option<&'static str>,
    pub(crate) ttl: Option<Duration>,
    /// Whether the attribute computes the TTL of each call or of each value.
    pub(crate) has_computed_ttl: bool,
    pub(crate) none_ttl: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) ttl_jitter: Option<u8>,
    /// The tags, as written, separated by `, `: those that its entries bear, or those that it evicts.
    pub(crate) tags: &'static str,
    /// The families of the tags over the returned value.
    pub(crate) tag_families: &'static [&'static str],
    /// How long a value is served from the memory of the process.
    pub(crate) local: Option<Duration>,
    pub(crate) local_outage: LocalOutage,
    /// Whether stale values are refreshed in a background task.
    pub(crate) refreshes_in_background: bool,
    pub(crate) version: u64,
    /// Whether the function uses a cache other than the installed cache.
    pub(crate) has_own_cache: bool,
    /// Arguments in the key that may be any text, if nothing prevents their results from being stored.
    pub(crate) free_text: &'static str,
    /// Placeholders of the key that are integers, separated by `, `.
    pub(crate) numbers: &'static str,
    /// Arguments that the body reads although the key leaves them out, because their names begin with `_`.
    pub(crate) unkeyed: &'static str,
    pub(crate) metrics: SiteSlot,
}

/// What a function does with the entries that its template names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads entries, and stores what it loads.
    Reads,
    /// It stores without reading.
    Puts,
    /// The first `keys` of its targets are keys, the last are its tags, the others are patterns.
    Evicts { keys: usize },
    /// It evicts `all_entries`.
    Clears,
}

/// What the local tier does with its values while Redis is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalOutage {
    /// It serves none.
    Bypass,
    /// It serves them for as long as they are fresh.
    Serve,
}

impl Site {
    /// `name` is the function with its module path. `template` is the key, pattern or target as written. The caller is where the
    /// attribute is.
    #[track_caller]
    pub const fn new(name: &'static str, template: &'static str) -> Self {
        Self {
            name,
            template,
            location: Location::caller(),
            role: Role::Clears,
            value: "",
            policy: None,
            ttl: None,
            has_computed_ttl: false,
            none_ttl: None,
            grace: None,
            ttl_jitter: None,
            tags: "",
            tag_families: &[],
            local: None,
            local_outage: LocalOutage::Bypass,
            refreshes_in_background: false,
            version: 0,
            has_own_cache: false,
            free_text: "",
            numbers: "",
            unkeyed: "",
            metrics: SiteSlot::new(name, template),
        }
    }

    /// `#[cacheable]`
    pub const fn reads(mut self) -> Self {
        self.role = Role::Reads;
        self.metrics.series = Series::Reads;
        self
    }

    /// `#[cache_put]`
    pub const fn puts(mut self) -> Self {
        self.role = Role::Puts;
        self.metrics.series = Series::Puts;
        self
    }

    /// `#[cache_evict]`, if it names its targets: `template` lists them with `, `. The first `keys` of them are keys, the last are those
    /// that [`tags`](Self::tags) lists, and the others are patterns.
    pub const fn evicts(mut self, keys: usize) -> Self {
        self.role = Role::Evicts { keys };
        self
    }

    /// Sets the type of the stored value, as it is written.
    pub const fn value(mut self, value: &'static str) -> Self {
        self.value = value;
        self
    }

    /// Sets the arguments in the key that may be any text, if the attribute has neither `unless` nor `condition`.
    pub const fn free_text(mut self, arguments: &'static str) -> Self {
        self.free_text = arguments;
        self
    }

    /// Sets the placeholders of the key that are integers.
    pub const fn numbers(mut self, placeholders: &'static str) -> Self {
        self.numbers = placeholders;
        self
    }

    /// Sets the arguments that the body reads although the key leaves them out.
    pub const fn unkeyed(mut self, arguments: &'static str) -> Self {
        self.unkeyed = arguments;
        self
    }

    /// `policy = "events"`.
    pub const fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    /// `ttl = 1800` and `ttl = "30m"`.
    pub const fn ttl_millis(mut self, millis: u64) -> Self {
        self.ttl = Some(Duration::from_millis(millis));
        self
    }

    /// `ttl = |value| …`, and `ttl` with an expression over the arguments.
    pub const fn computed_ttl(mut self) -> Self {
        self.has_computed_ttl = true;
        self
    }

    /// `none_ttl = 30` and `none_ttl = "30s"`.
    pub const fn none_ttl_millis(mut self, millis: u64) -> Self {
        self.none_ttl = Some(Duration::from_millis(millis));
        self
    }

    /// `grace = 600` and `grace = "10m"`.
    pub const fn grace_millis(mut self, millis: u64) -> Self {
        self.grace = Some(Duration::from_millis(millis));
        self
    }

    /// `ttl_jitter = 10`.
    pub const fn ttl_jitter(mut self, percent: u8) -> Self {
        self.ttl_jitter = Some(percent);
        self
    }

    /// `tag = …`, for all tags as written, separated by `, `.
    pub const fn tags(mut self, tags: &'static str) -> Self {
        self.tags = tags;
        self
    }

    /// The families of the tags over the returned value: the texts before their first `:`.
    pub const fn tag_families(mut self, families: &'static [&'static str]) -> Self {
        self.tag_families = families;
        self
    }

    /// `local = 5` and `local = "5s"`.
    pub const fn local_millis(mut self, millis: u64) -> Self {
        self.local = Some(Duration::from_millis(millis));
        self
    }

    /// Returns the text that all its keys begin with, without the prefix.
    pub(crate) fn head(&self) -> &'static str {
        let end = self.template.find(['<', '*', '?', '[', '\\', '{', '%']);
        &self.template[..end.unwrap_or(self.template.len())]
    }

    /// `local_outage = "serve"`.
    pub const fn local_outage_serve(mut self) -> Self {
        self.local_outage = LocalOutage::Serve;
        self
    }

    /// `refresh = "background"`.
    pub const fn background(mut self) -> Self {
        self.refreshes_in_background = true;
        self
    }

    /// `version = 2`.
    pub const fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// `cache = …`.
    pub const fn own_cache(mut self) -> Self {
        self.has_own_cache = true;
        self
    }
}

/// The arguments of `#[rate_limit]`, known at compile time.
#[cfg(feature = "limits")]
#[derive(Debug)]
pub struct LimitFacts {
    pub(crate) name: &'static str,
    pub(crate) policies: &'static [&'static str],
    /// Whether the function asks a limiter other than the installed limiter.
    pub(crate) has_own_limiter: bool,
}

/// How long a value is fresh. Created from whole seconds or from a [`Duration`].
///
/// A value with a TTL of zero is not stored. A negative number is a TTL of zero.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::Ttl;
///
/// assert_eq!(Ttl::from(60), Ttl::from(Duration::from_secs(60)));
/// assert_eq!(Ttl::from(90).as_duration(), Duration::from_secs(90));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(Duration);

impl Ttl {
    /// Returns the TTL as a [`Duration`].
    pub fn as_duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<u64> for Ttl {
    /// Seconds.
    fn from(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl From<i32> for Ttl {
    /// Seconds, for numbers without a suffix. A negative number is a TTL of zero.
    fn from(seconds: i32) -> Self {
        Self::from(u64::try_from(seconds).unwrap_or_default())
    }
}

impl From<u32> for Ttl {
    /// Seconds.
    fn from(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds.into()))
    }
}

/// What `ttl = |value| …` may return: any type that is [`Into<Ttl>`](Ttl).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a TTL",
    label = "return seconds as a number, or a `Duration`"
)]
pub trait ValueTtl {
    /// Returns the TTL.
    fn ttl(self) -> Ttl;
}

#[diagnostic::do_not_recommend]
impl<T: Into<Ttl>> ValueTtl for T {
    fn ttl(self) -> Ttl {
        self.into()
    }
}

/// The attribute's decisions about each value.
pub(crate) trait Rules<O: Outcome> {
    /// Returns whether the value that the function returned is excluded from storing.
    fn excludes(&self, returned: &O::Returned) -> bool;

    /// Returns the TTL of the value in it, if the attribute computes the TTL from the value.
    fn ttl(&self, value: &O::Value) -> Option<Ttl>;

    /// Adds the tags that the value names.
    fn tags(&self, value: &O::Value, tags: &mut TagWriter);
}

/// The rules of an attribute that has none of `unless`, `ttl = |value| …` and a tag over the returned value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRules;

/// The rules of an attribute that has at least one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnRules<U, L, G> {
    pub(crate) unless: U,
    pub(crate) ttl: L,
    pub(crate) tags: G,
}

impl<O: Outcome> Rules<O> for NoRules {
    #[inline(always)]
    fn excludes(&self, _: &O::Returned) -> bool {
        false
    }

    #[inline(always)]
    fn ttl(&self, _: &O::Value) -> Option<Ttl> {
        None
    }

    #[inline(always)]
    fn tags(&self, _: &O::Value, _: &mut TagWriter) {}
}

impl<O, U, L, G> Rules<O> for OwnRules<U, L, G>
where
    O: Outcome,
    U: Fn(&O::Returned) -> bool,
    L: Fn(&O::Value) -> Option<Ttl>,
    G: Fn(&O::Value, &mut TagWriter),
{
    fn excludes(&self, returned: &O::Returned) -> bool {
        (self.unless)(returned)
    }

    fn ttl(&self, value: &O::Value) -> Option<Ttl> {
        (self.ttl)(value)
    }

    fn tags(&self, value: &O::Value, tags: &mut TagWriter) {
        (self.tags)(value, tags);
    }
}

/// A value that can be stored: it converts to JSON and back.
///
/// ```
/// use cache_runtime::{Cache, CacheValue};
///
/// async fn remember<T: CacheValue>(cache: &Cache, key: &str, value: &T) -> bool {
///     cache.set(key, value, 60).await
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// assert!(remember(&cache, "stock:7", &12).await);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "this type must be `Serialize` and `DeserializeOwned`",
    note = "derive both: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "`Sensitive` values are never cached: return a type without them"
)]
pub trait CacheValue: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> CacheValue for T {}

/// Checks that the return type can be stored, at a place where nothing else can fail to compile.
pub const fn storable<O: Outcome>(outcome: O) -> O
where
    O::Value: CacheValue,
{
    outcome
}

/// A value that the local tier can keep and give to several callers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the memory of the process",
    label = "`local` needs a type that is `Clone`, `Send`, `Sync` and `'static`",
    note = "derive `Clone`, or return `Arc<{Self}>`, which callers share; or leave `local` out"
)]
pub trait LocalValue: Clone + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> LocalValue for T {}

/// The same as [`storable`] for `local`.
pub const fn locally_storable<O: Outcome>(outcome: O) -> O
where
    O::Value: CacheValue + LocalValue,
{
    outcome
}

/// Converts the result of `ttl = |value| …`.
pub fn ttl_of(ttl: impl ValueTtl) -> Option<Ttl> {
    Some(ttl.ttl())
}

/// How a function's return type splits into the stored value and the rest. [`Returns`] selects it.
///
/// Its methods are a part of their callers: each function in its own right costs every cached type build time.
pub trait Outcome {
    /// The return type as written.
    type Output;
    /// The value that `unless` gets: inside `Ok`, or the whole value if the type is not a `Result`.
    type Returned;
    /// The value that `<return.field>` refers to and that is stored: inside `Ok` and `Some`.
    type Value;

    /// Returns the returned value unless it is an `Err`.
    fn returned(output: &Self::Output) -> Option<&Self::Returned>;

    /// Returns the value to store; `None` for a `None`.
    fn value(returned: &Self::Returned) -> Option<&Self::Value>;

    /// Converts the stored value into the function's return type.
    fn from_value(value: Self::Value) -> Self::Output;

    /// Returns a stored `None` as the function's return type; [`None`] if the type has no `None`. The code of the type may panic.
    #[expect(
        clippy::manual_map,
        reason = "a combinator is compiled again for every type"
    )]
    #[inline(always)]
    fn from_none() -> Option<Self::Output>
    where
        Self::Value: CacheValue,
    {
        match entry::none_of(Self::layers()) {
            Some(none) => Some(Self::from_value(none)),
            None => None,
        }
    }

    /// What stands around the stored value inside [`Value`](Self::Value): where that is a parameter of the function, an `Option` or
    /// a `Result` may stand for it.
    #[inline(always)]
    fn layers() -> Layers {
        Layers::Nothing
    }
}

/// Selects the [`Outcome`] of a function's return type, through aliases.
///
/// Method lookup tries a type before its `Deref` target, so it finds the most specific `__outcome`: `Result<Option<T>,
/// E>` here, `Result<T, E>` and `Option<T>` in the next step, any other type in the last step. A method of a user's trait
/// that is implemented for all types would be found before these steps, hence the unusual name.
#[derive(Debug)]
pub struct Returns<R> {
    next: ReturnsOne<R>,
}

/// The second step of [`Returns`].
#[derive(Debug)]
pub struct ReturnsOne<R> {
    next: ReturnsPlain<R>,
}

/// The last step of [`Returns`].
#[derive(Debug)]
pub struct ReturnsPlain<R>(PhantomData<fn() -> R>);

impl<R> Returns<R> {
    /// Of the type that it is given.
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self {
            next: ReturnsOne {
                next: ReturnsPlain(PhantomData),
            },
        }
    }
}

impl<R> Deref for Returns<R> {
    type Target = ReturnsOne<R>;

    fn deref(&self) -> &Self::Target {
        &self.next
    }
}

impl<R> Deref for ReturnsOne<R> {
    type Target = ReturnsPlain<R>;

    fn deref(&self) -> &Self::Target {
        &self.next
    }
}

impl<T, E> Returns<Result<Option<T>, E>> {
    /// `Ok(Some(value))` is stored, `Ok(None)` under `none_ttl`.
    pub fn __outcome(&self) -> ResultOfOption<T, E> {
        ResultOfOption(PhantomData)
    }
}

impl<T, E> ReturnsOne<Result<T, E>> {
    /// `Ok(value)` is stored.
    pub fn __outcome(&self) -> ResultOf<T, E> {
        ResultOf(PhantomData)
    }
}

impl<T> ReturnsOne<Option<T>> {
    /// `Some(value)` is stored, `None` under `none_ttl`.
    pub fn __outcome(&self) -> OptionOf<T> {
        OptionOf(PhantomData)
    }
}

impl<T> ReturnsPlain<T> {
    /// Every value is stored, unless the type is a parameter.
    pub fn __outcome(&self) -> Plain<T> {
        Plain(PhantomData)
    }
}

/// The [`Outcome`] of `Result<Option<T>, E>`.
#[derive(Debug)]
pub struct ResultOfOption<T, E>(PhantomData<fn() -> (T, E)>);

/// The [`Outcome`] of `Result<T, E>`.
#[derive(Debug)]
pub struct ResultOf<T, E>(PhantomData<fn() -> (T, E)>);

/// The [`Outcome`] of `Result<T, E>` where the caller names the value type.
#[derive(Debug)]
pub(crate) struct Loaded<T, E>(PhantomData<fn() -> (T, E)>);

/// The [`Outcome`] of `Option<T>`.
#[derive(Debug)]
pub struct OptionOf<T>(PhantomData<fn() -> T>);

/// The [`Outcome`] of any other type, and of a type parameter, which uses the outcome of the concrete type.
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

#[expect(
    clippy::manual_ok_err,
    reason = "a combinator is compiled again for every type"
)]
impl<T, E> Outcome for ResultOfOption<T, E> {
    type Output = Result<Option<T>, E>;
    type Returned = Option<T>;
    type Value = T;

    #[inline(always)]
    fn returned(output: &Self::Output) -> Option<&Option<T>> {
        match output {
            Ok(returned) => Some(returned),
            Err(_) => None,
        }
    }

    #[inline(always)]
    fn value(returned: &Option<T>) -> Option<&T> {
        match returned {
            Some(value) => Some(value),
            None => None,
        }
    }

    #[inline(always)]
    fn from_value(value: T) -> Self::Output {
        Ok(Some(value))
    }

    #[inline(always)]
    fn from_none() -> Option<Self::Output> {
        Some(Ok(None))
    }
}

#[expect(
    clippy::manual_ok_err,
    reason = "a combinator is compiled again for every type"
)]
impl<T, E> Outcome for ResultOf<T, E> {
    type Output = Result<T, E>;
    type Returned = T;
    type Value = T;

    #[inline(always)]
    fn returned(output: &Self::Output) -> Option<&T> {
        match output {
            Ok(returned) => Some(returned),
            Err(_) => None,
        }
    }

    #[inline(always)]
    fn value(returned: &T) -> Option<&T> {
        match Self::layers().is_none(returned) {
            true => None,
            false => Some(returned),
        }
    }

    #[inline(always)]
    fn from_value(value: T) -> Self::Output {
        Ok(value)
    }

    #[inline(always)]
    fn layers() -> Layers {
        Layers::of_option::<T>()
    }
}

#[expect(
    clippy::manual_ok_err,
    reason = "a combinator is compiled again for every type"
)]
impl<T, E> Outcome for Loaded<T, E> {
    type Output = Result<T, E>;
    type Returned = T;
    type Value = T;

    #[inline(always)]
    fn returned(output: &Self::Output) -> Option<&T> {
        match output {
            Ok(returned) => Some(returned),
            Err(_) => None,
        }
    }

    #[inline(always)]
    fn value(returned: &T) -> Option<&T> {
        Some(returned)
    }

    #[inline(always)]
    fn from_value(value: T) -> Self::Output {
        Ok(value)
    }
}

impl<T> Outcome for OptionOf<T> {
    type Output = Option<T>;
    type Returned = Option<T>;
    type Value = T;

    #[inline(always)]
    fn returned(output: &Option<T>) -> Option<&Option<T>> {
        Some(output)
    }

    #[inline(always)]
    fn value(returned: &Option<T>) -> Option<&T> {
        match returned {
            Some(value) => Some(value),
            None => None,
        }
    }

    #[inline(always)]
    fn from_value(value: T) -> Option<T> {
        Some(value)
    }

    #[inline(always)]
    fn from_none() -> Option<Option<T>> {
        Some(None)
    }
}

impl<T> Outcome for Plain<T> {
    type Output = T;
    type Returned = T;
    type Value = T;

    #[inline(always)]
    fn returned(output: &T) -> Option<&T> {
        match Self::layers().is_err(output) {
            true => None,
            false => Some(output),
        }
    }

    #[inline(always)]
    fn value(returned: &T) -> Option<&T> {
        match Self::layers().is_none(returned) {
            true => None,
            false => Some(returned),
        }
    }

    #[inline(always)]
    fn from_value(value: T) -> T {
        value
    }

    #[inline(always)]
    fn layers() -> Layers {
        Layers::of::<T>()
    }
}
