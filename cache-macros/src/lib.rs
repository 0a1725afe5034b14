//! The attribute macros of `cache-runtime`, which re-exports them: depend on that crate.
//!
//! What an attribute does is written at [`macro@cacheable`], [`macro@cache_put`], [`macro@cache_evict`] and
//! [`macro@rate_limit`].
//!
//! This crate reads what stands in the parentheses, says everything that is wrong with it, and turns the function into one
//! call of the runtime. It decides nothing about caching, and nothing about limits.

mod args;
mod borrowed;
mod coverage;
mod expand;
mod free_text;
mod function;
mod report;
mod target;
mod template;
mod unfit;
mod written;

use proc_macro::TokenStream;
use written::Attribute;

/// Reads through the cache: answers with what is stored under the key, or runs the body and stores what it returns.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Event { id: i64 }
/// # pub struct DbError;
/// # pub struct Events;
/// use cache_runtime::cacheable;
///
/// impl Events {
///     #[cacheable(key = "event:<id>", ttl = 1800)]
///     pub async fn event(&self, id: i64) -> Result<Option<Event>, DbError> {
///         // Reads the database.
/// #       Ok(Some(Event { id }))
///     }
/// }
/// ```
///
/// A function so annotated returns what its body would have returned. That the cache is slow, full or away is never an error
/// of yours and never a panic: the body runs. Without an installed cache the body runs always, and one warning says so.
///
/// Of callers that miss the same key at the same time, in all processes, one runs the body; the others wait for its value.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `key = "event:<id>"` | the entry; see [Keys](#keys) |
/// | `ignore = [db, now]` | arguments that the result does not depend on, which the key leaves out; see [Arguments outside the key](#arguments-outside-the-key) |
/// | `any_type` | every type and constant that a generic function is called with shares the entry; see [Generic functions](#generic-functions) |
/// | `ttl = 1800` | how long the value is fresh: seconds, a text such as `"30m"` that is checked while compiling, or any expression that is `Into<Ttl>`, over the arguments. Left out: the cache's default |
/// | `ttl = \|event\| event.ttl()` | the same, decided by each value: the closure has a reference to what is stored, inside `Ok` and `Some` |
/// | `ttl_jitter = 10` | shortens each time to live at random by up to so many percent, 50 at most, so that what is stored together does not expire together. Left out: the cache's |
/// | `grace = "10m"` | how long after its ttl a value may still be served while it is refreshed, or when that fails: seconds or a text; see [Grace](#grace). Left out: not at all |
/// | `refresh = "background"` | a stale value is refreshed in a task of its own, and nobody waits; see [Grace](#grace) |
/// | `none_ttl = 30` | remembers `None` too, for that long: seconds or a text. Left out: a `None` is not stored. On a function that returns no `Option` it means nothing |
/// | `policy = "events"` | takes `ttl`, `grace` and `none_ttl` from the configuration's policy of that name, so that they can be changed without a build. An argument beside it wins over the policy, in the environment too: write no `ttl` here if `CACHE_POLICY_EVENTS_TTL` is to decide. Names that the configuration lacks are reported when the cache is installed |
/// | `condition = id > 0` | over the arguments, before anything else. False: as if the attribute were not there |
/// | `unless = \|event\| event.draft` | over a reference to what the function returned, inside `Ok` where it is a `Result`. True: not stored |
/// | `version = 2` | says that what the value means has changed though its type has not: entries of other versions are not found |
/// | `cache = self.cache` | the `Cache` to use instead of the installed one |
/// | `crate = my_crate::cache` | where `cache_runtime` lives, if it is renamed or re-exported |
///
/// # Keys
///
/// | in a key | stands for |
/// |---|---|
/// | `<id>` or `{id}` | the argument `id`, also where a pattern such as `Path(id): Path<i64>` binds it |
/// | `<page.number>`, `<range.0>` | a field |
/// | `<self.tenant>` | a field of the receiver |
/// | `<name.len()>` | what a method without arguments returns |
/// | `<T>`, `<Self>` | the name of a type: its path, such as `my_crate.Event`; see [Generic functions](#generic-functions) |
/// | `<N>`, `<T::NAME>`, `<T::name()>` | a const parameter, a constant of a type, what a function of a type returns |
/// | `<<`, `{{` | the plain characters |
///
/// What stands in a placeholder must be a `KeyPart`: integers, `bool`, `char`, strings, `uuid::Uuid` with the feature `uuid`,
/// references and `Option`s of these, and types of your own that say how they are written. Another crate's type comes in through
/// a method, such as `<date.to_string()>`. Values are escaped: whatever they contain, two different lists of them never make the
/// same key. So there must be something between two placeholders, and it must begin with a character that is neither a letter
/// nor a digit.
///
/// A key belongs to one type: functions that share a key and return different types replace each other's entries and never hit.
///
/// The names that begin with `session:`, `sessions:`, `ratelimit:` and `cache:` are reserved.
///
/// # Arguments outside the key
///
/// Calls with equal keys share one entry, so an argument that is missing from the key is a compile error. `key = "list:<kind>"` on
/// `async fn list(kind: &str, page: u32)` would serve page 1 for page 2. An argument may be left out if
///
/// - it is `self`: name the fields that matter, such as `<self.tenant>`
/// - it is in `ignore = [db, now]`: the result does not depend on it
/// - its name begins with `_`
/// - the attribute takes its cache from it, as in `cache = app.cache`: another cache holds other entries.
///
/// | what is written | what is an argument |
/// |---|---|
/// | `Path(id): Path<i64>`, `Query { page, .. }: Query`, `(a, b): (u8, u8)` | each name that the pattern binds: `id`, `page`, `a` and `b` |
/// | `<query.page>`, `<ids.len()>` in the key | the whole of `query` and `ids`. Whether one field is enough is not checked: write `Query { page, kind }: Query` in the signature to have each field checked |
/// | `condition`, `ttl`, `unless` | nothing: they do not tell entries apart. What only they use goes into the key or into `ignore` |
///
/// Keys of `#[cache_put]` and `#[cache_evict]` may leave arguments out.
///
/// # Generic functions
///
/// `ids::<User>(1)` and `ids::<Order>(1)` have the same arguments and share one entry unless the key names the type. So it is a compile
/// error if the key leaves out
///
/// - a const parameter
/// - a type parameter, unless it occurs only in arguments that the key leaves out too, as the `E` of an ignored `db: E`. An
///   argument in the key does not stand for its type: `Id<User>` and `Id<Order>` may have the same text. `PhantomData<T>` is not left
///   out by ignoring it.
///
/// | in a key | stands for |
/// |---|---|
/// | `<T>` | the path of the type, with a `.` for each `::` |
/// | `<T::NAME>`, `<T::name()>` | a name that the type chooses itself, such as the constant of a trait |
/// | `<N>` | the constant |
///
/// With `any_type` the key may leave them out: the value is the same for each of them.
///
/// `<T>` is the same in every build, process and service that has the type at that path, as long as the compiler spells it so
/// ([`std::any::type_name`] does not promise it). It changes if the type moves. Two types that have one path share a name: those of
/// two versions of a crate, and those that are declared in different blocks of one function. `<T::NAME>` has none of these limits.
///
/// An attribute on a method does not see the parameters of its `impl`: it demands none of them, but can name them, and rustc says
/// whether they exist. There `<SIZE>` and `<N>` are taken for constants, and `<T>` and `<Row>` for types. `<Self>` names the type
/// with all its parameters. Write it on a default method of a trait.
///
/// # Keys that a client chooses
///
/// `key = "events:location:<location>"` with a `location` from a query string stores an entry for every text that a client thinks of,
/// and 2,000 requests for pages that do not exist store 2,000 empty pages. Bound it in one of three ways:
///
/// - do not store results that are not worth an entry: `unless = |page| page.events.is_empty()`
/// - return `None` for what does not exist. It is not stored, unless `none_ttl` asks for it
/// - check the argument against what exists, such as the last page or the list of locations, before the call or in `condition`.
///
/// The cache warns, when it is installed, of each function whose key contains an argument that is declared as a text (`&str`, `String`,
/// `Option` and `Cow` of these, `impl AsRef<str>`, `Path(name): Path<String>`), with neither `unless` nor `condition`, and whose
/// `None` is not left out by its return type. It sees the signature only: fields of structs, types of your own, and numbers such as
/// a page are yours to bound.
///
/// # What is stored
///
/// | return type | stored |
/// |---|---|
/// | `T`, `Arc<T>` | always |
/// | `Option<T>` | `Some`; `None` under `none_ttl` |
/// | `Result<T, E>` | `Ok` |
/// | `Result<Option<T>, E>` | `Ok(Some(_))`; `Ok(None)` under `none_ttl` |
///
/// The type decides, not its name: an alias such as `ApiResult<T>` or `anyhow::Result<T>` means what it stands for. `T` must be
/// `Serialize + DeserializeOwned`. Nothing is asked of `E`, and an `Err` is never stored: each caller that gets one got it from
/// its own body.
///
/// Only the outermost `Result` counts, and the `Option` directly in it. What is inside is the value, whatever it is: `Ok(Err(_))`
/// is stored for the ttl, and so is `Some(None)`. Where the return type is a parameter or an associated type, the same holds for
/// the type that stands for it in a call.
///
/// A value that does not come back from JSON as it was would make a hit return something else, so it is not stored
/// (`refused_lossy` in the statistics, and one warning per function). That is looked at for the first value of a function and for
/// one in a thousand after it; the `Deserialize` of the type then runs once more. It sees what is written and read under
/// different names, what is left out when it is read, and variants of an `untagged` enum that are taken for each other. It cannot
/// see what is never written: a field with `#[serde(skip)]` or `skip_serializing` comes back as its default. Keep such fields out
/// of cached types. Nor does it see a list that comes back in another order, since a set may do that.
///
/// # Grace
///
/// Fresh values are served as they are. With `grace` an entry lives on for that long after its ttl; it is stale then, and never
/// one that was evicted. Who calls meanwhile gets this:
///
/// | | while the load runs | the load succeeds | the load returns `Err` |
/// |---|---|---|---|
/// | default | one caller of all processes runs its body and waits; all others are served the stale value | that caller gets the new value, and it is stored | all are served the stale value; nobody tries again for a tenth of the grace, at most 30 s |
/// | `refresh = "background"` | one task runs the body; all are served the stale value | the new value is stored | the same |
///
/// Where there is no entry, a caller runs its body and gets what it returns, an `Err` too.
///
/// A task of its own needs a body that owns all that it uses: `self: Arc<Self>` or `self`, and arguments without borrows, all
/// `Send + 'static`. So do the closures of `unless` and `ttl`, which are made `move`: they can name arguments that are `Copy`, or
/// that the body does not use. At most `max_refreshes` (64) of a cache's tasks run at a time; beyond that a caller refreshes as
/// it would by default. A task that runs longer than `load_deadline` (30 s) is cancelled, and counts as failed.
///
/// # Functions
///
/// Any `async fn` with a body: free functions, methods with every kind of receiver, generic functions, trait methods, also under
/// `#[async_trait]`. The signature stays as it is. The future is `Send` if the body's is and what the function returns is: it is held
/// while it is stored. `Box<dyn Error>` is not `Send`; use `Box<dyn Error + Send + Sync>`.
///
/// A function that calls itself puts that call in a box, as every recursive `async fn` does:
///
/// ```
/// # pub struct DbError;
/// # pub struct Folders { cache: cache_runtime::Cache }
/// # impl Folders {
/// #     async fn children(&self, _folder: i64) -> Result<Vec<i64>, DbError> { Ok(Vec::new()) }
/// # }
/// use cache_runtime::cacheable;
///
/// impl Folders {
///     #[cacheable(key = "folder:<folder>:size", ttl = "10m", cache = self.cache)]
///     pub async fn size(&self, folder: i64) -> Result<u64, DbError> {
///         let mut size = 1;
///         for child in self.children(folder).await? {
///             size += Box::pin(self.size(child)).await?;
///         }
///         Ok(size)
///     }
/// }
/// ```
///
/// Each level of such calls takes about 5 KiB of the stack in a debug build and 1 KiB in a release build, beyond what the
/// function itself needs. A thread with 2 MiB has room for some hundred of them, or more than a thousand.
///
/// Several of these attributes may stand on one function, beside any others. As with all attributes the uppermost is applied
/// first, so the lowest is the outermost: a `#[cache_evict]` below a `#[cacheable]` evicts on every call, above it only when the
/// body runs.
///
/// # Cancellation
///
/// A caller that goes away, or whose body panics, stores nothing and strands nobody: one of those who wait runs its own body at
/// once.
#[proc_macro_attribute]
pub fn cacheable(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::Cacheable, arguments.into(), item.into()).into()
}

/// Always runs the body, and stores what it returns.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Profile { id: i64 }
/// # pub struct DbError;
/// use cache_runtime::cache_put;
///
/// #[cache_put(key = "user:profile:<profile.id>", ttl = "30m")]
/// pub async fn save(profile: Profile) -> Result<Profile, DbError> {
///     // Writes the database.
/// #   Ok(profile)
/// }
/// ```
///
/// Arguments, keys and what is stored are as with [`cacheable`](macro@cacheable), without `refresh` and `ignore`: the key may leave
/// arguments out. `grace` is how long after its
/// ttl the value may still be served, by functions that read the same key with `grace`. What is not stored, because the body returned
/// an `Err` or a `None`, or because of `unless`, is evicted: the body may have changed what the entry was made of.
///
/// # Two at the same time
///
/// Before its body runs, a put sets a fence in place of the entry; while a fence stands, readers run their bodies and store
/// nothing. After its body it stores the value only if its own fence still stands, alone and unchanged. So of two overlapping
/// puts neither can leave the older value behind: both end as an eviction. A process that dies in between costs a few seconds
/// of uncached reads, and never a stale value.
///
/// The fence needs the key before the body, so a key cannot name what the body returns.
///
/// # Cancellation
///
/// A body that is cancelled or panics may have written or not: the entry is evicted.
#[proc_macro_attribute]
pub fn cache_put(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::CachePut, arguments.into(), item.into()).into()
}

/// Runs the body, then removes entries.
///
/// ```
/// # pub struct Event { id: i64, location: String }
/// # pub struct Change;
/// # pub struct DbError;
/// use cache_runtime::cache_evict;
///
/// #[cache_evict(
///     key = ["event:<id>", "analytics:<id>"],
///     pattern = ["events:published:*", "events:location:<return.location>:*"],
/// )]
/// pub async fn update(id: i64, change: Change) -> Result<Event, DbError> {
///     // Writes the database, and has committed when it returns.
/// #   Ok(Event { id, location: String::new() })
/// }
/// ```
///
/// Once the function has returned, no value that was loaded before is served again by this process, nor by any other that
/// reaches the same Redis. An eviction during an outage is kept and applied before caching resumes.
///
/// The cache warns, when it is installed, of each target that no `#[cacheable]` and no `#[cache_put]` of the program can have stored,
/// with the nearest template that one has.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `key = "event:<id>"` | an entry, or a list of them: `key = ["event:<id>", "user:<user>"]`; see [keys](macro@cacheable#keys) |
/// | `pattern = "events:*"` | every entry that matches, or a list: `*` is any run of characters, `?` is one. A value in a placeholder is never a wildcard |
/// | `all_entries` | everything under the cache's prefix |
/// | `before` | removes before the body as well as after it |
/// | `fence` | holds every `key` while the body runs; see [A process that dies](#a-process-that-dies) |
/// | `always` | removes also when the body returned an `Err` |
/// | `condition = id > 0` | over the arguments, before anything else. False: as if the attribute were not there |
/// | `cache = self.cache` | the `Cache` to use instead of the installed one |
/// | `crate = my_crate::cache` | where `cache_runtime` lives, if it is renamed or re-exported |
///
/// `<return>`, `<return.field>` and `<return.method()>` stand for what the body returned, inside `Ok` and `Some`; after a `None`
/// the targets that need it are left out. Arguments that stand beside `<return…>` in one template are kept for it by
/// `ToOwned`, because the body may consume them.
///
/// # When it removes
///
/// When the body returned anything but an `Err` (of a parameter too, where a `Result` stands for it): a request that fails must not
/// be able to empty the cache. With `always`, in
/// every case.
///
/// # A process that dies
///
/// Between the database's commit and the eviction a process can die, and its old entries live on up to their ttl. With `fence`
/// each `key` is emptied and held before the body: meanwhile readers run their bodies and store nothing. Such a death then costs
/// `fence_ttl` (5 s) of uncached reads. It takes one operation more, and the values are gone also when the body fails. Keys
/// that only a pattern or `<return…>` names are not known by then, so they cannot be held.
///
/// # Cancellation
///
/// A web framework drops a handler when its client goes away, perhaps between the database's commit and the eviction. So when a
/// body that has started is cancelled or panics, its eviction is issued all the same, in a task of its own.
#[proc_macro_attribute]
pub fn cache_evict(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::CacheEvict, arguments.into(), item.into()).into()
}

/// Asks a rate limiter before the body runs; a call that is over a limit returns an error of the function's own type instead.
///
/// ```
/// # pub struct Payment { cents: u32 }
/// # pub struct Receipt;
/// use cache_runtime::limit::Limited;
/// use cache_runtime::rate_limit;
///
/// pub enum PaymentError {
///     TooMany(Limited),
///     Declined,
/// }
///
/// impl From<Limited> for PaymentError {
///     fn from(limited: Limited) -> Self {
///         Self::TooMany(limited)
///     }
/// }
///
/// #[rate_limit(policy = "payment", key = "<user_id>")]
/// pub async fn pay(user_id: i64, payment: Payment) -> Result<Receipt, PaymentError> {
///     // Talks to the bank.
/// #   if payment.cents == 0 { return Err(PaymentError::Declined) }
/// #   Ok(Receipt)
/// }
/// ```
///
/// How many calls are allowed is said by the policy, `Policy::new("payment").limit(5).per("1m")`, with which a `RateLimiter` is made
/// and installed. A call that is allowed counts when it begins, whatever its body returns.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `policy = "payment"` | the policy that is asked, or a list: `policy = ["payment", "api"]`. Those of a list are decided together: a call is counted by all of them or by none |
/// | `key = "<user_id>"` | the client whose calls are counted; see [The client](#the-client) |
/// | `cost = 5` | how many units a call takes: a number, or any expression over the arguments that is a `u32`. One that costs nothing is allowed, unless the client is blocked. Left out: 1 |
/// | `limiter = self.limiter` | the `RateLimiter` to ask instead of the installed one |
/// | `crate = my_crate::cache` | where `cache_runtime` lives, if it is renamed or re-exported |
///
/// # The client
///
/// A key is written as [those of the caching attributes](macro@cacheable#keys) are, with the same placeholders: `<user_id>`,
/// `<self.tenant>:<user.id>`. It may begin with any word. `key = "all"`, or any other text without a placeholder, is everybody
/// together.
///
/// The client is `Identity::key` of that text: `limiter.reset("payment", &Identity::key(42))` forgets what the user 42 has used.
/// Characters of a value that mean something in a key are escaped in it, as they are in names of entries. Functions that name the same
/// policy and the same client count together; begin the key with a word of its own, such as `"refund:<user_id>"`, where they
/// should not.
///
/// Take the key from what is verified, such as the user of a session: whoever can choose it freely is a new client each time.
///
/// # Functions
///
/// Any `async fn` with a body that returns a `Result` whose error is `From<cache_runtime::limit::Limited>`: free functions, methods
/// with every kind of receiver, generic functions, trait methods, also under `#[async_trait]`. The type decides, not its name: an
/// alias such as `ApiResult<T>` means what it stands for. The signature and the body stay as they are. The key and the cost are
/// taken from the arguments before the body runs, so it may move them; the future is `Send` if the body's is.
///
/// # Beside other attributes
///
/// As with all attributes the uppermost is applied first, so the lowest is the outermost and comes first in a call:
///
/// | `#[rate_limit]` stands | what counts |
/// |---|---|
/// | below a `#[cacheable]` | every call; one over the limit is refused even if its value is stored |
/// | above a `#[cacheable]` | only calls that run the body; hits are free, and so are those who wait for another caller's load. A refusal is an `Err` of the load: it is not stored, and with `grace` the stale value is served in its place |
/// | below a `#[cache_put]` or `#[cache_evict]` | every call; one that is refused touches no entry |
/// | above a `#[cache_put]` or `#[cache_evict]` | every call; one that is refused is a body that returned an `Err`: a put evicts then, an eviction evicts nothing, but for `always`, `before` and `fence` |
/// | above or below another `#[rate_limit]` | the lower is asked first, and counts also what the upper refuses; a list of policies in one attribute does not |
///
/// So write it lowest, unless only loads are to be limited.
///
/// # Without a limiter, and in an outage
///
/// Where no limiter is installed the body runs always, and one warning says so. A policy that the limiter does not know is said once
/// for each function, as an error in the log, and the body runs; those that the installed limiter lacks are known when it is
/// installed.
///
/// While Redis is away each policy does what it says: unless told otherwise the process decides by what it knows, and calls are
/// still limited. No call waits longer than `command_timeout` for a decision.
#[proc_macro_attribute]
pub fn rate_limit(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::RateLimit, arguments.into(), item.into()).into()
}
