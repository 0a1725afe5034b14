//! The macros of `cache-runtime`. That crate re-exports them; depend on it instead of this one.
//!
//! Each macro is documented on its own page: [`macro@cacheable`], [`macro@cache_put`], [`macro@cache_evict`], [`macro@rate_limit`],
//! [`macro@key`] and the derive [`macro@KeyPart`].
//!
//! This crate parses the arguments of the attributes, reports every mistake in them, and turns the function into one call of
//! the runtime. It decides nothing about caching or limits.

mod args;
mod borrowed;
mod coverage;
mod declared;
mod expand;
mod function;
mod key;
mod key_part;
mod report;
mod target;
mod template;
mod unsupported;
mod written;

use proc_macro::TokenStream;
use template::Kind;
use written::Attribute;

/// Reads through the cache: returns the value stored under the key, or runs the body and stores its result.
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
/// An annotated function returns what its body would return. A slow, full or unavailable cache never causes an error or a
/// panic: the body runs instead. Without an installed cache the body always runs, and one warning is logged.
///
/// If several callers miss the same key at the same time, one caller runs the body. The others wait for its value. This also
/// applies to callers in different processes.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `key = "event:<id>"` | The key of the entry; see [Keys](#keys) |
/// | `ignore = [db, now]` | Arguments that do not affect the result and that may be missing from the key; see [Arguments outside the key](#arguments-outside-the-key) |
/// | `any_type` | All type and const arguments of a generic function share the entry; see [Generic functions](#generic-functions) |
/// | `ttl = 1800` | How long the value is fresh: seconds, a text such as `"30m"` that is checked at compile time, or any expression over the arguments that is `Into<Ttl>`. Default: the cache's default TTL |
/// | `ttl = \|event\| event.ttl()` | The same, computed from each value. The closure gets a reference to the stored value, inside `Ok` and `Some` |
/// | `ttl_jitter = 10` | Shortens each TTL by a random 0 to 10 %, so that values stored together do not expire together. The maximum is 50. Default: the cache's jitter |
/// | `grace = "10m"` | How long after its TTL a value may be served while it is refreshed or after the refresh failed: seconds or a text; see [Grace](#grace). Default: not served |
/// | `refresh = "background"` | Refreshes a stale value in a separate task, so that no caller waits; see [Grace](#grace) |
/// | `none_ttl = 30` | Also stores `None`, for this TTL: seconds or a text. Default: `None` is not stored. It has no effect on a function that does not return an `Option` |
/// | `policy = "events"` | Takes `ttl`, `grace`, `none_ttl` and the limit of loads from the policy of this name in the configuration, so that they can change without a build. An argument of the attribute overrides the policy, even if the environment sets the policy: do not write `ttl` here if `CACHE_POLICY_EVENTS_TTL` should decide. When the cache is installed, it reports names that are missing from the configuration |
/// | `tag = "organizer:<id>"` | A name that groups entries, or a list of names, so that one `#[cache_evict(tag = …)]` removes all entries with it; see [Tags](#tags) |
/// | `local = "5s"` | Also keeps values in the memory of the process, and asks Redis again after this time: seconds or a text, at least 1 ms; see [Values in the process](#values-in-the-process). Default: no value is kept |
/// | `local_outage = "serve"` | While Redis is unavailable, values in the process are served until their TTL ends. Default: `"bypass"`, which serves none |
/// | `condition = id > 0` | An expression over the arguments, evaluated first. If it is false, the call behaves as if it had no attribute |
/// | `unless = \|event\| event.draft` | A closure over a reference to the returned value, inside `Ok` for a `Result`. If it returns true, the value is not stored |
/// | `version = 2` | The version of the value. Change it if the meaning of the value changes but its type does not. Entries of other versions are not read |
/// | `cache = self.cache` | The `Cache` to use instead of the installed one |
/// | `crate = my_crate::cache` | The path of `cache_runtime`, if it is renamed or re-exported |
///
/// # Keys
///
/// | in a key | stands for |
/// |---|---|
/// | `<id>` or `{id}` | The argument `id`, even if a pattern such as `Path(id): Path<i64>` binds it |
/// | `<page.number>`, `<range.0>` | A field |
/// | `<self.tenant>` | A field of the receiver |
/// | `<name.len()>` | The result of a method without arguments |
/// | `<T>`, `<Self>` | The name of a type: its path, such as `my_crate.Event`; see [Generic functions](#generic-functions) |
/// | `<N>`, `<T::NAME>`, `<T::name()>` | A const parameter, an associated constant, the result of an associated function |
/// | `<<`, `{{` | The characters `<` and `{` |
///
/// The value of a placeholder must be a `KeyPart`:
///
/// - integers, `NonZero` integers, `bool`, `char` and strings
/// - IP addresses and `SystemTime`
/// - with the feature of the same name, `uuid::Uuid`, the dates and times of `chrono`, and those of `time`
/// - references and `Option`s of these
/// - tuples of 2 to 4 of these, and slices, arrays and `Vec`s of them
/// - your own types that derive or implement `KeyPart`; see [`derive(KeyPart)`](macro@KeyPart).
///
/// Convert a type of another crate with a method, such as `<url.as_str()>`.
///
/// Values are escaped, so two different lists of values never produce the same key. To ensure this, two placeholders need text
/// between them. This text must begin with a character that is not a letter or a digit.
///
/// A key belongs to one type. Functions that share a key but return different types replace each other's entries and never hit.
///
/// Names that begin with `session:`, `sessions:`, `ratelimit:` or `cache:` are reserved.
///
/// # Arguments outside the key
///
/// Calls with equal keys share one entry, so an argument that is missing from the key is a compile error. For example,
/// `key = "list:<kind>"` on `async fn list(kind: &str, page: u32)` would return page 1 to a caller of page 2. The key may leave
/// out an argument if
///
/// - it is `self`: name the fields that matter, such as `<self.tenant>`
/// - it is in `ignore = [db, now]`: the result does not depend on it
/// - its name begins with `_`
/// - the attribute takes its cache from it, as in `cache = app.cache`, because each cache has its own entries.
///
/// | in the source | counts as |
/// |---|---|
/// | `Path(id): Path<i64>`, `Query { page, .. }: Query`, `(a, b): (u8, u8)` | Each name that the pattern binds: `id`, `page`, `a` and `b` |
/// | `<query.page>`, `<ids.len()>` in the key | The whole of `query` and `ids`. The macro does not check whether one field is enough. If you write `Query { page, kind }: Query` in the signature, it checks each field |
/// | `condition`, `ttl`, `unless` | Nothing, because they do not distinguish entries. If only they use an argument, put it in the key or in `ignore` |
///
/// Keys of `#[cache_put]` and `#[cache_evict]` may leave arguments out.
///
/// # Generic functions
///
/// `ids::<User>(1)` and `ids::<Order>(1)` have the same arguments, so they share one entry unless the key contains the type. It
/// is a compile error if the key leaves out
///
/// - a const parameter
/// - a type parameter, unless it occurs only in arguments that the key also leaves out, such as the `E` of an ignored `db: E`.
///
/// An argument in the key does not replace its type: `Id<User>` and `Id<Order>` may have the same text. If an argument
/// `PhantomData<T>` is in `ignore`, the key still needs `T`.
///
/// | in a key | stands for |
/// |---|---|
/// | `<T>` | The path of the type, with `.` in place of `::` |
/// | `<T::NAME>`, `<T::name()>` | A name that the type chooses itself, such as the constant of a trait |
/// | `<N>` | The constant |
///
/// With `any_type` the key may leave out types and constants. Use it if the value is the same for all of them.
///
/// `<T>` is the same in every build, process and service that has the type at that path. This depends on the compiler:
/// [`std::any::type_name`] does not guarantee the spelling. It has these limits:
///
/// - It changes if the type moves.
/// - Two types with the same path share a name: types of two versions of a crate, and types declared in different blocks of one
///   function.
///
/// `<T::NAME>` has none of these limits.
///
/// An attribute on a method does not see the parameters of its `impl`. It does not require them, but the key can contain them.
/// Then rustc checks that they exist. For these parameters the macro treats `<SIZE>` and `<N>` as constants, and `<T>` and
/// `<Row>` as types. `<Self>` is the type with all its parameters. Use it in the key of a default method of a trait.
///
/// # Tags
///
/// A tag is a name that many entries share. Evicting the tag removes all of them in one step. The time does not depend on the number
/// of entries, or on the number of keys in Redis. Use a tag if the keys that change are not known, such as the pages of a list:
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Event { id: i64, organizer_id: i64 }
/// # pub struct DbError;
/// use cache_runtime::{cache_evict, cacheable};
///
/// #[cacheable(key = "events:<location>:<page>", tag = "events")]
/// pub async fn events(location: i64, page: u32) -> Result<Vec<Event>, DbError> {
///     // Reads the database.
/// #   Ok(vec![Event { id: location, organizer_id: page.into() }])
/// }
///
/// #[cacheable(key = "event:<id>", tag = "organizer:<return.organizer_id>")]
/// pub async fn event(id: i64) -> Result<Option<Event>, DbError> {
///     // Reads the database.
/// #   Ok(Some(Event { id, organizer_id: 1 }))
/// }
///
/// #[cache_evict(tag = ["events", "organizer:<organizer_id>"])]
/// pub async fn remove(organizer_id: i64) -> Result<(), DbError> {
///     // Writes the database.
/// #   let _ = organizer_id;
/// #   Ok(())
/// }
/// ```
///
/// - A tag is written like a key, without wildcards and white space. Values are escaped, and any first word is allowed.
/// - `<return>`, `<return.field>` and `<return.method()>` stand for the returned value, inside `Ok` and `Some`. Such a tag must begin with
///   a word and a `:`, as in `organizer:<return.organizer_id>`. A stored `None` does not have it.
/// - A tag does not distinguish entries: an argument that only a tag names is still missing from the key.
/// - An entry has the tags of the call that stored it. Functions that share a key should have the same tags.
/// - An entry has one tag for each text in `tag`. A list cannot have a tag for each of its elements: use a tag over an argument, or one
///   tag for all lists.
/// - Each call asks Redis for its tags over arguments together with the entry. For tags over the returned value, a hit in Redis needs a
///   second round trip, and a load needs two more operations after its body.
///
/// # Values in the process
///
/// With `local`, a value that a call found in Redis is also kept in the memory of the process, decoded. Later calls get it from there. Redis
/// tells the process when an entry changes. A value is never served longer than its TTL. After the time of `local` it is compared with the
/// entry in Redis before it is served again.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Fees { cents: u32 }
/// # pub struct DbError;
/// use std::sync::Arc;
///
/// use cache_runtime::cacheable;
///
/// #[cacheable(key = "fees:<country>", ttl = "10m", local = "5s")]
/// pub async fn fees(country: u32) -> Result<Option<Arc<Fees>>, DbError> {
///     // Reads the database.
/// #   Ok(Some(Arc::new(Fees { cents: country })))
/// }
/// ```
///
/// - The value must be `Clone + Send + Sync + 'static`. Each call clones it, so return `Arc<T>` for a large value: all callers then share
///   one value.
/// - Use it for values that are read very often, and that may be outdated for a moment after an eviction. In the process that evicts,
///   no older value is served when the eviction has returned. Another process may serve its copy until it hears of the eviction, for at
///   most `local_staleness` (2 s) plus the duration of one operation.
/// - All functions of a cache share `local_capacity` (64 MiB).
/// - Begin the key with a word. Redis reports every key that begins with the text before the first placeholder to each process.
/// - The methods of `Cache` do not use these values.
/// - If Redis does not report changes, a warning is logged, and the attribute behaves as without `local`. A Redis user needs the
///   permissions `client|tracking`, `client|trackinginfo` and `ping`.
///
/// # Keys that a client chooses
///
/// If `location` comes from a query string, `key = "events:location:<location>"` stores an entry for every text that a client
/// sends. Likewise, 2,000 requests for pages that do not exist store 2,000 empty pages. There are three ways to limit the number
/// of entries:
///
/// - Do not store results that are not worth an entry: `unless = |page| page.events.is_empty()`.
/// - Return `None` for data that does not exist. `None` is not stored unless `none_ttl` is set.
/// - Before the call or in `condition`, check that the argument exists, for example in the list of locations.
///
/// When the cache is installed, it warns about each function for which all of this is true. `Cache::catalog` has the same as the
/// finding `text-in-key`.
///
/// - The key contains an argument that is declared as text: `&str`, `String`, `Option` and `Cow` of these, `impl AsRef<str>`,
///   `Path(name): Path<String>`.
/// - The attribute has neither `unless` nor `condition`.
/// - The function does not return an `Option`, or the attribute has `none_ttl`.
///
/// The warning is based on the signature only. It does not cover fields of structs, your own types, and numbers such as a page;
/// limit these yourself.
///
/// # What is stored
///
/// | return type | stored |
/// |---|---|
/// | `T`, `Arc<T>` | Always |
/// | `Option<T>` | `Some`; `None` with `none_ttl` |
/// | `Result<T, E>` | `Ok` |
/// | `Result<Option<T>, E>` | `Ok(Some(_))`; `Ok(None)` with `none_ttl` |
///
/// The type decides, not its name: an alias such as `ApiResult<T>` or `anyhow::Result<T>` works like the type it stands for. `T`
/// must be `Serialize + DeserializeOwned`. `E` needs no traits. An `Err` is never stored. A caller gets an `Err` only from its own
/// body.
///
/// Only the outermost `Result` and the `Option` directly in it matter. Everything inside is the value: `Ok(Err(_))` is stored for
/// the TTL, and so is `Some(None)`. If the return type is a type parameter or an associated type, the same rules apply to the
/// concrete type of each call.
///
/// A value that changes in a round trip through JSON is not stored, because a hit would return another value. It is counted as
/// `refused_lossy` in the statistics and logged once per function. The cache checks the first value of each function and one in
/// 1,000 after that. The check runs the `Deserialize` of the type once more.
///
/// - It detects names that differ between writing and reading, fields that are ignored when reading, and variants of an
///   `untagged` enum that are mistaken for each other.
/// - It cannot detect data that is never written: a field with `#[serde(skip)]` or `skip_serializing` comes back as its default.
///   Do not use such fields in cached types.
/// - It cannot detect variants of an `untagged` enum that have the same JSON, such as `Mail(String)` and `Phone(String)`.
/// - It does not detect a list that comes back in another order, because a set is also a list in JSON and has no order.
///
/// # Grace
///
/// With `grace`, an entry stays in the cache for this time after its TTL. During this time it is stale. An evicted entry is never
/// served as stale. Callers that find a stale entry get:
///
/// | | while the load runs | the load succeeds | the load returns `Err` |
/// |---|---|---|---|
/// | default | One caller in all processes runs its body and waits; all others get the stale value | That caller gets the new value, and it is stored | All get the stale value. The next attempt is after 1/10 of the grace, at most 30 s |
/// | `refresh = "background"` | One task runs the body; all callers get the stale value | The new value is stored | The same |
///
/// Without an entry, a caller runs its body and gets its result, including an `Err`.
///
/// A background task needs a body that owns everything it uses: `self: Arc<Self>` or `self`, and arguments without borrows, all
/// `Send + 'static`. The same applies to the closures of `unless` and `ttl`, which become `move` closures. They can only use
/// arguments that are `Copy` or that the body does not use.
///
/// At most `max_refreshes` (64) such tasks of a cache run at a time. Beyond that, a caller refreshes as in the default mode. A task
/// that runs longer than `load_deadline` (30 s) is cancelled and counts as failed.
///
/// # Functions
///
/// The attribute works on any `async fn` with a body: free functions, methods with every kind of receiver, generic functions and
/// trait methods, also with `#[async_trait]`. The signature does not change.
///
/// The future is `Send` if the future of the body and the return type are `Send`, because it holds the returned value while it
/// stores it.
/// `Box<dyn Error>` is not `Send`; use `Box<dyn Error + Send + Sync>`.
///
/// A function that calls itself must box that call, like every recursive `async fn`:
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
/// Each level of recursion takes about 5 KiB of stack in a debug build and 1 KiB in a release build, in addition to what the
/// function itself needs. A thread with a 2 MiB stack has room for a few hundred levels in a debug build and more than 1,000 in a
/// release build.
///
/// A function may have several of these attributes, together with any others. The topmost attribute is applied first, as with
/// all attributes, so the lowest is the outermost. A `#[cache_evict]` below a `#[cacheable]` evicts on every call; above it, it
/// evicts only when the body runs.
///
/// # Cancellation
///
/// A caller that is cancelled or whose body panics stores nothing and does not block other callers: a waiting caller immediately
/// runs its own body.
#[proc_macro_attribute]
pub fn cacheable(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::Cacheable, arguments.into(), item.into()).into()
}

/// Always runs the body and stores its result.
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
/// Arguments, keys and stored values are the same as for [`cacheable`](macro@cacheable), except:
///
/// - `refresh`, `ignore` and `local` do not exist. The key may leave arguments out.
/// - `grace` is how long after its TTL functions that read the same key with `grace` may serve the value.
/// - If the result is not stored (an `Err`, a `None` without `none_ttl`, or `unless`), the entry is evicted, because the body may
///   have changed the data behind it.
///
/// # Concurrent puts
///
/// Before its body runs, a put replaces the entry with a fence. While a fence exists, readers run their bodies and store nothing.
/// After its body, the put stores the value only if its fence is unchanged and no other put shares it. So two overlapping puts
/// never leave the older value in the cache: both evict the entry. If a process dies before its put ends, reads are uncached for a
/// few seconds, and no stale value stays.
///
/// The fence needs the key before the body runs, so the key cannot contain parts of the returned value.
///
/// # Cancellation
///
/// If the body is cancelled or panics, the entry is evicted, because the body may already have written its data.
#[proc_macro_attribute]
pub fn cache_put(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::CachePut, arguments.into(), item.into()).into()
}

/// Runs the body and then removes entries.
///
/// ```
/// # pub struct Event { id: i64, location: String }
/// # pub struct Change;
/// # pub struct DbError;
/// use cache_runtime::cache_evict;
///
/// #[cache_evict(
///     key = ["event:<id>", "analytics:<id>"],
///     tag = "events",
///     pattern = "events:location:<return.location>:*",
/// )]
/// pub async fn update(id: i64, change: Change) -> Result<Event, DbError> {
///     // Writes the database, and has committed when it returns.
/// #   Ok(Event { id, location: String::new() })
/// }
/// ```
///
/// After the function has returned, no process that reaches the same Redis serves a value that was loaded before the eviction. With
/// `local`, another process may serve its own copy a moment longer: see [Values in the process](macro@cacheable#values-in-the-process). If
/// Redis is unavailable, the process keeps the eviction and applies it before it uses Redis again.
///
/// When the cache is installed, it warns about each target that matches no key or tag of a `#[cacheable]` or `#[cache_put]` in the
/// program. The warning contains the nearest existing template. `Cache::catalog` has the same as the finding `unmatched-eviction`.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `key = "event:<id>"` | The key of an entry, or a list: `key = ["event:<id>", "user:<user>"]`; see [keys](macro@cacheable#keys) |
/// | `tag = "events"` | Every entry with this tag, or a list of tags; see [tags](macro@cacheable#tags) |
/// | `pattern = "events:*"` | Every matching entry, or a list of patterns: `*` matches any characters, `?` matches one. A value in a placeholder is never a wildcard. This scans all keys of Redis; a tag does not |
/// | `all_entries` | Every entry under the cache's prefix |
/// | `before` | Also removes the entries before the body runs |
/// | `fence` | Keeps every `key` and `tag` uncached while the body runs; see [A process that dies](#a-process-that-dies) |
/// | `always` | Also removes the entries if the body returned an `Err` |
/// | `condition = id > 0` | An expression over the arguments, evaluated first. If it is false, the call behaves as if it had no attribute |
/// | `cache = self.cache` | The `Cache` to use instead of the installed one |
/// | `crate = my_crate::cache` | The path of `cache_runtime`, if it is renamed or re-exported |
///
/// `<return>`, `<return.field>` and `<return.method()>` stand for the returned value, inside `Ok` and `Some`. If the body returned
/// `None`, targets with `<return…>` are skipped. Arguments in the same template as a `<return…>` are saved with `ToOwned`,
/// because the body may consume them.
///
/// # When it removes
///
/// Entries are removed unless the body returned an `Err`, so that a failing request cannot empty the cache. This is also true if
/// the return type is a type parameter that stands for a `Result`. With `always`, entries are removed in every case.
///
/// # A process that dies
///
/// If a process dies between the database's commit and the eviction, the old entries live until their TTL ends. With `fence`, a
/// fence replaces the entry of each `key`, and the record of each `tag`, before the body runs. While the fence exists, readers of these
/// entries run their bodies and store nothing. If the process dies, reads are uncached for at most `fence_ttl` (5 s). The costs are:
///
/// - A call needs one more operation.
/// - The values are removed even if the body fails.
/// - While the fence of a tag exists, no value with a tag of the same family over the returned value is stored. The family is the text
///   before the first `:`.
///
/// The keys of a pattern are not known before the body runs: a pattern may stand next to a fenced `key` or `tag`, but is not fenced. A
/// `key` or `tag` with `<return…>` and `fence` is a compile error.
///
/// # Cancellation
///
/// A web framework drops a handler when its client disconnects, possibly between the database's commit and the eviction. If a body
/// that has started is cancelled or panics, its eviction still runs, in a separate task. What only `<return.…>` names is not evicted then,
/// because the body has not returned it.
#[proc_macro_attribute]
pub fn cache_evict(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::CacheEvict, arguments.into(), item.into()).into()
}

/// Asks a rate limiter before the body runs. If a call is over a limit, it returns an error of the function's own error type and
/// does not run the body.
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
/// The policy sets how many calls are allowed, for example `Policy::new("payment").limit(5).per("1m")`. A `RateLimiter` is created
/// with the policies and installed. An allowed call counts when it begins, even if its body fails.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `policy = "payment"` | The policy to ask, or a list: `policy = ["payment", "api"]`. The policies of a list decide together: either all of them count a call, or none does |
/// | `key = "<user_id>"` | The client whose calls are counted; see [The client](#the-client) |
/// | `cost = 5` | How many units a call takes: a number, or any expression over the arguments that is a `u32`. A call that costs 0 is allowed unless the client is blocked. Default: 1 |
/// | `limiter = self.limiter` | The `RateLimiter` to ask instead of the installed one |
/// | `crate = my_crate::cache` | The path of `cache_runtime`, if it is renamed or re-exported |
///
/// # The client
///
/// A key is written like [the keys of the caching attributes](macro@cacheable#keys), with the same placeholders: `<user_id>`,
/// `<self.tenant>:<user.id>`. It may begin with any word. A key without a placeholder, such as `key = "all"`, counts all callers
/// together.
///
/// The client is `Identity::key` of that text: `limiter.reset("payment", &Identity::key(42))` clears what user 42 has used.
/// Special characters in a value are escaped, as in names of entries. Functions with the same policy and the same client count
/// together. To count them separately, begin each key with its own word, such as `"refund:<user_id>"`.
///
/// Take the key from verified data, such as the user of a session. A caller that chooses the key can be a new client in each call.
///
/// # Functions
///
/// The attribute works on any `async fn` with a body that returns a `Result` whose error is `From<cache_runtime::limit::Limited>`:
/// free functions, methods with every kind of receiver, generic functions and trait methods, also with `#[async_trait]`. The type
/// decides, not its name: an alias such as `ApiResult<T>` works like the type it stands for.
///
/// The signature and the body do not change. The key and the cost are computed from the arguments before the body runs, so the
/// body may move them. The future is `Send` if the future of the body is.
///
/// # With other attributes
///
/// The topmost attribute is applied first, as with all attributes, so the lowest is the outermost and runs first in a call:
///
/// | position of `#[rate_limit]` | what counts |
/// |---|---|
/// | below a `#[cacheable]` | Every call. A call over the limit is refused even if its value is stored |
/// | above a `#[cacheable]` | Only calls that run the body. Hits, and callers that wait for another caller's load, do not count. A refusal is an `Err` of the load: it is not stored, and with `grace` the stale value is served instead |
/// | below a `#[cache_put]` or `#[cache_evict]` | Every call. A refused call touches no entry |
/// | above a `#[cache_put]` | Every call. A refused call is a body that returned an `Err`, so the put evicts the entry |
/// | above a `#[cache_evict]` | Every call. A refused call is a body that returned an `Err`, so nothing is evicted, except through `always`, `before` and `fence` |
/// | above or below another `#[rate_limit]` | The lower attribute decides first. It also counts calls that the upper attribute refuses. With a list of policies in one attribute, a refused call does not count |
///
/// Put `#[rate_limit]` lowest, unless only loads should be limited.
///
/// # Without a limiter, and during an outage
///
/// If no limiter is installed, the body always runs, and one warning is logged. If the limiter does not have the policy, the body
/// runs, and an error is logged once for each function. When a limiter is installed, it reports policies that it does not have.
///
/// While Redis is unavailable, each policy follows its `on_outage` setting. By default the process decides from what it knows, and
/// calls are still limited. A call never waits longer than `command_timeout_max` for a decision.
#[proc_macro_attribute]
pub fn rate_limit(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(Attribute::RateLimit, arguments.into(), item.into()).into()
}

/// Writes a key by hand. Returns a `String` for `Cache::get`, `set`, `delete` and the other methods of `Cache`.
///
/// ```
/// use cache_runtime::{Cache, cacheable, key};
///
/// # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)] pub struct User;
/// # pub struct DbError;
/// #[cacheable(key = "user:<name>", ttl = "5m")]
/// async fn user(name: &str) -> Result<User, DbError> {
///     // Reads the database.
/// #   Ok(User)
/// }
///
/// # struct Request { name: String }
/// # async fn handle(cache: &Cache, request: Request) {
/// let name = "a:b";
/// assert_eq!(key!("user:<name>"), "user:a%3Ab");
///
/// cache.delete(&key!("user:<name>", name = request.name)).await; // removes the entry of `user(&request.name)`
///
/// let pattern = key!("orders:<name>:") + "*"; // no character of `name` is a wildcard
/// cache.delete_matching(&pattern).await;
/// # }
/// ```
///
/// The template is written and checked like [the keys of the attributes](macro@cacheable#keys), and values are escaped in the same
/// way. So it is equal to the key of an attribute with the same template and the same values.
///
/// A placeholder stands for the first of these that exists:
///
/// - the value with its name: `key!("user:<name>", name = request.name)`
/// - a variable, a type or a constant in scope: `<name>`, `<request.name>`, `<self.tenant>`, `<T>`, `<Self::KIND>`.
///
/// A pattern by hand is a key that ends with the `:` after its last value, followed by the wildcards.
///
/// The key does not contain the prefix of a cache: the methods of `Cache` add it. `crate = my_crate::cache` sets the path of
/// `cache_runtime`, if it is renamed or re-exported.
#[proc_macro]
pub fn key(arguments: TokenStream) -> TokenStream {
    expand::key::text(arguments.into(), Kind::Key).into()
}

/// Writes a tag by hand. Returns a `String` for `Cache::tagged` and `Cache::delete_tagged`.
///
/// ```
/// use cache_runtime::{Cache, cacheable, tag};
///
/// # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)] pub struct Event;
/// # pub struct DbError;
/// #[cacheable(key = "events:<city>", tag = "city:<city>", ttl = "5m")]
/// async fn events(city: &str) -> Result<Event, DbError> {
///     // Reads the database.
/// #   Ok(Event)
/// }
///
/// # async fn handle(cache: &Cache) {
/// let city = "a:b";
/// assert_eq!(tag!("city:<city>"), "city:a%3Ab");
///
/// cache.delete_tagged(&tag!("city:<city>")).await; // evicts the entries of `events(city)`
/// # }
/// ```
///
/// It is written like [`key!`](macro@key), and renders the same tag as `tag = "…"` of an attribute with the same template and the same
/// values. `key!` does not: a tag may begin with `session:`, `ratelimit:` or `cache:`, which are reserved in keys.
#[proc_macro]
pub fn tag(arguments: TokenStream) -> TokenStream {
    expand::key::text(arguments.into(), Kind::Tag).into()
}

/// Implements the trait `KeyPart` of `cache_runtime`, so that values of the type can be part of a key.
///
/// ```
/// use cache_runtime::{KeyPart, cacheable};
///
/// #[derive(KeyPart)]
/// pub struct EventId(i64);
///
/// #[derive(KeyPart)]
/// pub enum Kind {
///     Concert,
///     Lecture,
/// }
///
/// #[derive(KeyPart)]
/// #[key_part(hash)]
/// pub struct Filter {
///     kind: Option<Kind>,
///     city: String,
///     free: bool,
/// }
///
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Event;
/// # pub struct DbError;
/// #[cacheable(key = "events:<organiser>:<filter>", ttl = "5m", none_ttl = 30)]
/// pub async fn events(organiser: EventId, filter: Filter) -> Result<Option<Event>, DbError> {
///     // Reads the database.
/// #   Ok(Some(Event))
/// }
/// ```
///
/// | type | text in a key |
/// |---|---|
/// | A struct with one field, such as `EventId(42)` | The text of the field: `42` |
/// | A struct with several fields | The texts of the fields in order, escaped and joined with `%c`. Values that differ in a field have different texts |
/// | A struct with `#[key_part(hash)]` | `%h` and 32 hexadecimal digits of the SHA-256 of these texts. Use it for a filter with many fields, to keep its keys short |
/// | An enum without fields | The name of the variant: `Concert` |
///
/// Each field must be a `KeyPart`. The text depends on the order of the fields and on the names of the variants. A build that
/// changes them does not find the entries of earlier builds. For an enum with fields, implement the trait by hand.
///
/// # Arguments
///
/// | argument of `#[key_part(…)]` | meaning |
/// |---|---|
/// | `hash`, on a struct | Writes a hash of the fields |
/// | `skip`, on a field of a struct | Leaves the field out, such as a `PhantomData<T>`. Values that differ only in this field share entries |
/// | `crate = my_crate::cache`, on the type | The path of `cache_runtime`, if it is renamed or re-exported |
#[proc_macro_derive(KeyPart, attributes(key_part))]
pub fn key_part(item: TokenStream) -> TokenStream {
    expand::key_part::derive(item.into()).into()
}
