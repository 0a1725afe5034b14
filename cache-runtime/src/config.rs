//! Every option of the cache, with its default and the reason for the default.

mod access;
mod credentials;
mod durability;
mod env;
mod keys;
mod options;
mod policy;
mod problem;
mod read;
mod redis;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::access::Access;
pub use self::credentials::{Credentials, Login};
pub use self::durability::EvictDurability;
pub use self::env::Environment;
#[cfg(feature = "sessions")]
pub(crate) use self::keys::SessionKey;
pub use self::keys::SessionKeys;
use self::options::SETTINGS;
pub use self::policy::{Quota, TtlPolicy};
pub(crate) use self::policy::{named, plain_name};
use self::problem::{Problem, problems, report};
use self::redis::RedisUrl;
pub use self::redis::{Address, Secret, Tls, Topology};
#[cfg(feature = "limits")]
pub(crate) use self::text::duration;
use crate::clock::Clock;
use crate::error::Error;

/// The configuration of a cache.
///
/// It is built in code, or read from a file through serde. [`from_env_over`](Self::from_env_over) applies the environment on top
/// of either.
///
/// ```
/// # fn main() -> Result<(), cache_runtime::Error> {
/// use std::time::Duration;
/// use cache_runtime::{Config, TtlPolicy};
///
/// let config = Config::default()
///     .redis_url("redis://:secret@localhost/2")?
///     .pool_max(10)
///     .policy("events", TtlPolicy::default().ttl(Duration::from_secs(1800)));
/// assert_eq!(config.database, 2);
/// # Ok(())
/// # }
/// ```
///
/// In a file:
///
/// - A duration is a text such as `"1h 30m"` or a number of seconds.
/// - A size is a number of bytes or a text such as `"64MiB"`.
/// - `redis` is an address as in `REDIS_URL`.
/// - `tls` is a switch or the path of a certificate authority.
/// - `limits` maps names of policies to texts: `{ "api": "100/60s", "mail": "5/s" }`.
/// - Options that are left out have their defaults.
///
/// Each field states its default, as a file or a variable would contain it, and its variables. `<ENV>` is the name of the
/// [`environment`](Self::environment) in capitals, such as `DEV`, and `<NAME>` that of a policy.
/// `docs/book/src/reference/configuration.md` in the repository describes the variables.
///
/// The bounds of all options are checked when the cache is created.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The environment that the service runs in. In production, sessions need keys.
    ///
    /// Default: `dev`. Variable: `CACHE_ENV`.
    pub environment: Environment,
    /// The text in front of every key. [`environment`](Self::environment) sets another default. If several caches share one Redis, no
    /// prefix may be the beginning of another.
    ///
    /// Default: `dev_`. Variable: `CACHE_PREFIX`.
    pub prefix: String,
    /// The Redis to use. `None` keeps everything in this process.
    ///
    /// Default: `None`. Variables: `REDIS_URL`, `<ENV>_REDIS_HOST` and `<ENV>_REDIS_PORT`.
    pub redis: Option<Topology>,
    /// Whether a cache without Redis is an error. `None` means only in production.
    ///
    /// Default: `None`. Variable: `CACHE_REQUIRE_REDIS`.
    pub require_redis: Option<bool>,
    /// The user to authenticate as.
    ///
    /// Default: `None`. Variable: `REDIS_USERNAME`.
    pub username: Option<String>,
    /// The password to authenticate with.
    ///
    /// Default: `None`. Variables: `REDIS_PASSWORD` and `<ENV>_REDIS_PASSWORD`.
    pub password: Option<Secret>,
    /// A file with the password. It is read each time that a connection opens.
    ///
    /// Default: `None`. Variable: `REDIS_PASSWORD_FILE`.
    pub password_file: Option<PathBuf>,
    /// A function that provides the user and the password each time that a connection opens.
    ///
    /// Default: `None`. No variable.
    pub credentials: Option<Credentials>,
    /// The index of the database to select. The address in `redis_url` can contain it.
    ///
    /// Default: `0`. Variable: `<ENV>_REDIS_DB`.
    pub database: i64,
    /// Whether connections are encrypted.
    ///
    /// Default: `Off`. Variables: `REDIS_TLS` and `REDIS_TLS_CA`.
    pub tls: Tls,
    /// The certificate that the cache shows to Redis, and its chain: a PEM file, which is read each time that a connection opens.
    ///
    /// Default: `None`. Variable: `REDIS_TLS_CERT`.
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate: a PEM file, which may be the same.
    ///
    /// Default: `None`. Variable: `REDIS_TLS_KEY`.
    pub tls_key: Option<PathBuf>,
    /// The user to authenticate as at the sentinels.
    ///
    /// Default: `None`. Variable: `REDIS_SENTINEL_USERNAME`.
    pub sentinel_username: Option<String>,
    /// The password of the sentinels.
    ///
    /// Default: `None`. Variable: `REDIS_SENTINEL_PASSWORD`.
    pub sentinel_password: Option<Secret>,
    /// A file with the password of the sentinels, like [`password_file`](Self::password_file).
    ///
    /// Default: `None`. Variable: `REDIS_SENTINEL_PASSWORD_FILE`.
    pub sentinel_password_file: Option<PathBuf>,
    /// Whether connections to sentinels are encrypted.
    ///
    /// Default: `Off`. Variables: `REDIS_SENTINEL_TLS` and `REDIS_SENTINEL_TLS_CA`.
    pub sentinel_tls: Tls,
    /// The certificate that the cache shows to sentinels, like [`tls_cert`](Self::tls_cert).
    ///
    /// Default: `None`. Variable: `REDIS_SENTINEL_TLS_CERT`.
    pub sentinel_tls_cert: Option<PathBuf>,
    /// The private key of that certificate.
    ///
    /// Default: `None`. Variable: `REDIS_SENTINEL_TLS_KEY`.
    pub sentinel_tls_key: Option<PathBuf>,
    /// The name of connections in `CLIENT LIST`.
    ///
    /// Default: `cache-runtime`. Variable: `CACHE_CLIENT_NAME`.
    pub client_name: String,
    /// The TTL of a value whose site does not set one.
    ///
    /// Default: `1h`. Variable: `CACHE_DEFAULT_TTL`.
    pub default_ttl: Duration,
    /// The most, in percent, by which a TTL is randomly shortened.
    ///
    /// Default: `0%`. Variable: `CACHE_TTL_JITTER`.
    pub ttl_jitter: u8,
    /// The named policies, for `policy = "events"`.
    ///
    /// Default: empty. Variables: `CACHE_POLICY_<NAME>_TTL`, `CACHE_POLICY_<NAME>_GRACE`, `CACHE_POLICY_<NAME>_NONE_TTL` and
    /// `CACHE_POLICY_<NAME>_MAX_LOADS`.
    pub policies: BTreeMap<String, TtlPolicy>,
    /// The policies from the environment. They are in `policies`, too.
    pub(crate) policies_from_env: BTreeMap<String, TtlPolicy>,
    /// Quotas by the name of a limiter's policy. They override the limit and window of the policy.
    ///
    /// Default: empty. Variable: `CACHE_LIMIT_<NAME>`.
    pub limits: BTreeMap<String, Quota>,
    /// The number of processes that share the Redis.
    ///
    /// Default: `1`. Variable: `CACHE_REPLICAS`.
    pub replicas: usize,
    /// The number of clients that a limiter remembers in this process.
    ///
    /// Default: `100000`. Variable: `CACHE_MAX_CLIENTS`.
    pub max_clients: usize,
    /// The keys that sign and encrypt sessions.
    ///
    /// Default: `None`. Variable: `CACHE_SESSION_KEYS`.
    pub session_keys: Option<SessionKeys>,
    /// How long a new session lasts.
    ///
    /// Default: `1day`. Variable: `CACHE_SESSION_TTL`.
    pub session_ttl: Duration,
    /// How much each use extends a session, at most to `session_ttl` plus this time after the use.
    ///
    /// Default: `1h`. Variable: `CACHE_SESSION_EXTEND`.
    pub session_extend: Duration,
    /// How long after its last use a session ends. This replaces `session_ttl` and `session_extend`, which must then keep their
    /// defaults.
    ///
    /// Default: `None`. Variable: `CACHE_SESSION_IDLE`.
    pub session_idle: Option<Duration>,
    /// The longest life of a session, however much it is used.
    ///
    /// Default: `7days`. Variable: `CACHE_SESSION_ABSOLUTE`.
    pub session_absolute: Duration,
    /// How long after a use further uses do not extend the session.
    ///
    /// Default: `0s`. Variable: `CACHE_SESSION_TOUCH_EVERY`.
    pub session_touch_every: Duration,
    /// The most sessions of a user under each key. A further session replaces the one that would end first.
    ///
    /// Default: `50`. Variable: `CACHE_SESSIONS_PER_USER`.
    pub sessions_per_user: usize,
    /// Patterns that are disabled from the start.
    ///
    /// Default: empty. Variable: `CACHE_DISABLED`.
    pub disabled: Vec<String>,
    /// The number of connections that stay open.
    ///
    /// Default: `5`. Variable: `CACHE_POOL_MIN`.
    pub pool_min: usize,
    /// The most connections that may be open.
    ///
    /// Default: `50`. Variable: `CACHE_POOL_MAX`.
    pub pool_max: usize,
    /// How long a connection above the minimum may be idle.
    ///
    /// Default: `5m`. Variable: `CACHE_POOL_IDLE`.
    pub pool_idle: Duration,
    /// Where the nodes of a cluster are reached, if not where they announce it, as behind NAT: pairs of an announced and a
    /// reachable address.
    ///
    /// Default: empty. Variable: `CACHE_CLUSTER_MAP`.
    pub cluster_map: Vec<(Address, Address)>,
    /// How long a connection may take to open.
    ///
    /// Default: `10s`. Variable: `CACHE_CONNECT_TIMEOUT`.
    pub connect_timeout: Duration,
    /// How long a caller waits for one operation while nothing arrives from Redis.
    ///
    /// Default: `100ms`. Variable: `CACHE_COMMAND_TIMEOUT`.
    pub command_timeout: Duration,
    /// How long a caller waits for one operation while other replies arrive from Redis. If it is less than
    /// [`command_timeout`](Self::command_timeout), that is the limit.
    ///
    /// Default: `1s`. Variable: `CACHE_COMMAND_TIMEOUT_MAX`.
    pub command_timeout_max: Duration,
    /// How often a healthy connection is checked.
    ///
    /// Default: `30s`. Variable: `CACHE_HEALTH_INTERVAL`.
    pub health_interval: Duration,
    /// The longest pause between two attempts to reach Redis.
    ///
    /// Default: `3s`. Variable: `CACHE_RECONNECT_MAX_DELAY`.
    pub reconnect_max_delay: Duration,
    /// The most attempts to reach Redis. `None` means no limit.
    ///
    /// Default: `None`. Variable: `CACHE_RECONNECT_MAX_ATTEMPTS`.
    pub reconnect_max_attempts: Option<u32>,
    /// The TTL of a load's lease on its key. The lease is renewed while the body runs.
    ///
    /// Default: `3s`. Variable: `CACHE_LEASE`.
    pub lease: Duration,
    /// How long a caller waits for another process that loads the same key.
    ///
    /// Default: `1s`. Variable: `CACHE_LEASE_WAIT`.
    pub lease_wait: Duration,
    /// How long a load may keep its lease.
    ///
    /// Default: `30s`. Variable: `CACHE_LOAD_DEADLINE`.
    pub load_deadline: Duration,
    /// The most bodies of `#[cacheable]` functions that run at a time in this process. More wait, for `load_deadline` at most.
    /// `None` means no limit.
    ///
    /// Default: `None`. Variable: `CACHE_MAX_LOADS`.
    pub max_loads: Option<u32>,
    /// The most stale values that are refreshed in the background at a time.
    ///
    /// Default: `64`. Variable: `CACHE_MAX_REFRESHES`.
    pub max_refreshes: usize,
    /// The TTL of the fence of a put, or of an eviction with `fence`.
    ///
    /// Default: `5s`. Variable: `CACHE_FENCE_TTL`.
    pub fence_ttl: Duration,
    /// How long evictions and ended sessions that Redis acknowledged are remembered. They are applied again if another server takes
    /// its place.
    ///
    /// Default: `30s`. Variable: `CACHE_FAILOVER_MEMORY`.
    pub failover_memory: Duration,
    /// What an eviction waits for.
    ///
    /// Default: `primary`. Variable: `CACHE_EVICT_DURABILITY`.
    pub evict_durability: EvictDurability,
    /// The largest value that is stored, in bytes of JSON.
    ///
    /// Default: `1MiB`. Variable: `CACHE_MAX_VALUE`.
    pub max_value: usize,
    /// The size above which a value is compressed, in bytes of JSON.
    ///
    /// Default: `1KiB`. Variable: `CACHE_COMPRESS_ABOVE`.
    pub compress_above: usize,
    /// The capacity of the memory store, in bytes.
    ///
    /// Default: `64MiB`. Variable: `CACHE_MEMORY_CAPACITY`.
    pub memory_capacity: usize,
    /// The capacity of the values that functions with `local` keep in this process, in bytes. A value counts as twice its JSON,
    /// plus its key and its tags, plus 256 bytes. With 0, these functions work as if they did not have `local`, and the process
    /// does not listen for changes.
    ///
    /// Default: `64MiB`. Variable: `CACHE_LOCAL_CAPACITY`.
    pub local_capacity: usize,
    /// The longest time for which this process serves such a value without asking Redis after a change that it did not hear of. At
    /// least 100 ms.
    ///
    /// Default: `2s`. Variable: `CACHE_LOCAL_STALENESS`.
    pub local_staleness: Duration,
    /// The number of evictions that are remembered during an outage.
    ///
    /// Default: `100000`. Variable: `CACHE_JOURNAL_CAPACITY`.
    pub journal_capacity: usize,
    /// The duration from which an operation is logged as slow.
    ///
    /// Default: `100ms`. Variable: `CACHE_SLOW_THRESHOLD`.
    pub slow_threshold: Duration,
    /// Whether logs and reports show a hash instead of a key.
    ///
    /// Default: `false`. Variable: `CACHE_MASK_KEYS`.
    pub mask_keys: bool,
    /// Whether values that contain a payment card number are refused.
    ///
    /// Default: `false`. Variable: `CACHE_CARD_GUARD`.
    pub card_guard: bool,
    /// The clock that ages entries.
    ///
    /// Default: the system clock. No variable.
    pub clock: Clock,
    /// Where the server is for the connection that listens for changes, if a test puts another network in front of it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) listen_at: Option<Address>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            environment: Environment::DEV,
            // Without a setting the service is in development. Production must be named.
            prefix: "dev_".to_owned(),
            // A service must run on a machine without Redis.
            redis: None,
            // In production a forgotten variable would give each process its own entries, sessions and limits.
            require_redis: None,
            username: None,
            password: None,
            password_file: None,
            credentials: None,
            // The default of Redis clients.
            database: 0,
            tls: Tls::Off,
            tls_cert: None,
            tls_key: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_password_file: None,
            // Sentinels have ports and certificates of their own, and most of them have none.
            sentinel_tls: Tls::Off,
            sentinel_tls_cert: None,
            sentinel_tls_key: None,
            // Identifies the connections in `CLIENT LIST`.
            client_name: "cache-runtime".to_owned(),
            // Long enough to be useful, and short enough that a forgotten eviction ends within a working day.
            default_ttl: Duration::from_secs(3600),
            // Values that are stored together usually may expire together. Set it if many values are stored at a time.
            ttl_jitter: 0,
            policies: BTreeMap::new(),
            policies_from_env: BTreeMap::new(),
            limits: BTreeMap::new(),
            // With 1, a process grants the whole limit. The number of processes is not known.
            replicas: 1,
            // About 10 MB if most clients use little of their limits. The same number as `journal_capacity`.
            max_clients: 100_000,
            session_keys: None,
            // A user who returns the next day is still logged in.
            session_ttl: Duration::from_secs(86_400),
            // A day of use extends a session to the next day.
            session_extend: Duration::from_secs(3_600),
            // An alternative to the two options above.
            session_idle: None,
            // The longest use of a stolen token. OWASP requires a limit.
            session_absolute: Duration::from_secs(7 * 86_400),
            // Every use counts. A few seconds would save writes if a page sends many requests.
            session_touch_every: Duration::ZERO,
            // More devices than a user has, and few enough to list and to end in one step.
            sessions_per_user: 50,
            disabled: Vec::new(),
            // Connections are shared and filled in order: a few serve thousands of callers, and five survive the loss of
            // some.
            pool_min: 5,
            // With 1,024 commands on each, 51,200 in flight; a Redis takes 10,000 connections from all its clients
            // together.
            pool_max: 50,
            // Longer than the time between two bursts, and shorter than the idle limits of common firewalls and servers.
            pool_idle: Duration::from_secs(300),
            // Nodes usually announce the addresses at which clients reach them.
            cluster_map: Vec::new(),
            // No caller waits for it. It must only be longer than a slow TLS handshake over a bad network.
            connect_timeout: Duration::from_secs(10),
            // 200 times what Redis takes in one data centre. Beyond that, the database answers sooner.
            command_timeout: Duration::from_millis(100),
            command_timeout_max: Duration::from_secs(1),
            // Half of the minute after which load balancers begin to drop silent connections.
            health_interval: Duration::from_secs(30),
            // Caching resumes within 5 s after Redis returns, with one attempt every 3 s.
            reconnect_max_delay: Duration::from_secs(3),
            // A cache that gave up would need a restart of the service.
            reconnect_max_attempts: None,
            // The cost of a crashed loader. Three renewals fit in, so one lost packet does not end the lease.
            lease: Duration::from_secs(3),
            // Most bodies end within this time, and users do not accept a longer wait.
            lease_wait: Duration::from_secs(1),
            // The usual limit of a request: after that the client is gone.
            load_deadline: Duration::from_secs(30),
            // Only the service knows what its database can take.
            max_loads: None,
            // As many queries as a usual pool of database connections can take in addition to those of callers.
            max_refreshes: 64,
            // Longer than the body of a write usually runs. After a crash, reads are uncached for this long.
            fence_ttl: Duration::from_secs(5),
            // Sentinels demote the old master up to 11 s after they promoted the new one. Replicas lag by less.
            failover_memory: Duration::from_secs(30),
            // A wait for a replica costs a round trip, and the whole deadline while no replica answers.
            evict_durability: EvictDurability::Primary,
            // 10 ms on a gigabit network: larger values delay other commands on their connection.
            max_value: 1 << 20,
            // For smaller values the header of LZ4 and the time cost more than the saved bytes.
            compress_above: 1 << 10,
            // About 100,000 small entries. A service without Redis has this much memory to spare.
            memory_capacity: 64 << 20,
            // About 50,000 small values, in addition to what the service needs.
            local_capacity: 64 << 20,
            // Users accept this age, and a pause of the network or of a garbage collector elsewhere is shorter.
            local_staleness: Duration::from_secs(2),
            // About 10 MB. Beyond that it is cheaper to evict everything.
            journal_capacity: 100_000,
            // The delay that users begin to notice.
            slow_threshold: Duration::from_millis(100),
            // Keys rarely hold secrets, and without them a log explains little.
            mask_keys: false,
            // It reads every stored byte. Only services that handle cards should pay for that.
            card_guard: false,
            clock: Clock::default(),
            #[cfg(any(test, feature = "testing"))]
            listen_at: None,
        }
    }
}

macro_rules! setters {
    ($($field:ident: $given:ty => $value:expr,)*) => {
        /// Setters, each named after its field.
        impl Config {
            $(
                #[doc = concat!("Sets the field [`", stringify!($field), "`](#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $given) -> Self {
                    self.$field = $value;
                    self
                }
            )*
        }
    };
}

setters! {
    prefix: impl Into<String> => prefix.into(),
    require_redis: impl Into<Option<bool>> => require_redis.into(),
    username: impl Into<String> => Some(username.into()),
    password: impl Into<Secret> => Some(password.into()),
    password_file: impl Into<Option<PathBuf>> => password_file.into(),
    credentials: impl Into<Option<Credentials>> => credentials.into(),
    database: i64 => database,
    tls: Tls => tls,
    tls_cert: impl Into<Option<PathBuf>> => tls_cert.into(),
    tls_key: impl Into<Option<PathBuf>> => tls_key.into(),
    sentinel_username: impl Into<String> => Some(sentinel_username.into()),
    sentinel_password: impl Into<Secret> => Some(sentinel_password.into()),
    sentinel_password_file: impl Into<Option<PathBuf>> => sentinel_password_file.into(),
    sentinel_tls: Tls => sentinel_tls,
    sentinel_tls_cert: impl Into<Option<PathBuf>> => sentinel_tls_cert.into(),
    sentinel_tls_key: impl Into<Option<PathBuf>> => sentinel_tls_key.into(),
    client_name: impl Into<String> => client_name.into(),
    default_ttl: Duration => default_ttl,
    ttl_jitter: u8 => ttl_jitter,
    limits: BTreeMap<String, Quota> => limits,
    replicas: usize => replicas,
    max_clients: usize => max_clients,
    session_keys: impl Into<Option<SessionKeys>> => session_keys.into(),
    session_ttl: Duration => session_ttl,
    session_extend: Duration => session_extend,
    session_idle: impl Into<Option<Duration>> => session_idle.into(),
    session_absolute: Duration => session_absolute,
    session_touch_every: Duration => session_touch_every,
    sessions_per_user: usize => sessions_per_user,
    disabled: impl IntoIterator<Item = impl Into<String>> => disabled.into_iter().map(Into::into).collect(),
    pool_min: usize => pool_min,
    pool_max: usize => pool_max,
    pool_idle: Duration => pool_idle,
    cluster_map: impl IntoIterator<Item = (Address, Address)> => cluster_map.into_iter().collect(),
    connect_timeout: Duration => connect_timeout,
    command_timeout: Duration => command_timeout,
    command_timeout_max: Duration => command_timeout_max,
    health_interval: Duration => health_interval,
    reconnect_max_delay: Duration => reconnect_max_delay,
    reconnect_max_attempts: impl Into<Option<u32>> => reconnect_max_attempts.into(),
    lease: Duration => lease,
    lease_wait: Duration => lease_wait,
    load_deadline: Duration => load_deadline,
    max_loads: impl Into<Option<u32>> => max_loads.into(),
    max_refreshes: usize => max_refreshes,
    fence_ttl: Duration => fence_ttl,
    failover_memory: Duration => failover_memory,
    evict_durability: EvictDurability => evict_durability,
    max_value: usize => max_value,
    compress_above: usize => compress_above,
    memory_capacity: usize => memory_capacity,
    local_capacity: usize => local_capacity,
    local_staleness: Duration => local_staleness,
    journal_capacity: usize => journal_capacity,
    slow_threshold: Duration => slow_threshold,
    mask_keys: bool => mask_keys,
    card_guard: bool => card_guard,
    clock: Clock => clock,
}

impl Config {
    /// Sets the field [`environment`](#structfield.environment). Also sets its prefix, unless you set another prefix.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        if self.prefix == self.environment.prefix() {
            self.prefix = environment.prefix();
        }
        self.environment = environment;
        self
    }

    /// Sets only which Redis to use. User, password, database and encryption do not change. `None` is memory mode.
    /// [`redis_url`](Self::redis_url) sets all of these.
    #[must_use]
    pub fn redis(mut self, redis: impl Into<Option<Topology>>) -> Self {
        self.redis = redis.into();
        self
    }

    /// Sets the address of Redis, in any form that `REDIS_URL` may have.
    ///
    /// If a Redis was already set, all its settings are replaced, and those of its sentinels. What the address does not name then
    /// has these values: user, password and certificates `None`, database 0, encryption off.
    ///
    /// If none was set, the user, password, database and encryption that were set before apply to this one, unless the address
    /// names them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the address cannot be parsed. The error does not show its password.
    pub fn redis_url(mut self, url: &str) -> Result<Self, Error> {
        match RedisUrl::parse(url) {
            Ok(url) => self.connect_to(url),
            Err(allowed) => report(&[Problem::wrong("redis_url", url, allowed)])?,
        }
        Ok(self)
    }

    /// Sets all named policies.
    #[must_use]
    pub fn policies(mut self, policies: BTreeMap<String, TtlPolicy>) -> Self {
        self.policies = policies;
        self.policies_from_env.clear();
        self
    }

    /// Adds a named policy. It replaces a policy with the same name.
    #[must_use]
    pub fn policy(mut self, name: impl Into<String>, policy: TtlPolicy) -> Self {
        let name = name.into();
        self.policies_from_env.remove(&name);
        self.policies.insert(name, policy);
        self
    }

    /// Sets the quota of a limiter's policy.
    #[must_use]
    pub fn limit(mut self, name: impl Into<String>, quota: Quota) -> Self {
        self.limits.insert(name.into(), quota);
        self
    }

    /// Returns every option with the value in effect. Secrets are masked. [`Display`](fmt::Display) prints the same, one option
    /// per line.
    pub fn describe(&self) -> Vec<(String, String)> {
        let address = self
            .redis
            .as_ref()
            .map_or_else(|| "none, memory mode".to_owned(), Topology::to_string);
        let special = [
            ("environment", self.environment.name().to_owned()),
            ("redis", address),
            ("database", self.database.to_string()),
            (
                "session_keys",
                SessionKeys::show(self.session_keys.as_ref()),
            ),
        ];
        let mut copy = self.clone();
        let access = [copy.redis_fields().show(), copy.sentinel_fields().show()];
        let settings = SETTINGS
            .iter()
            .map(|setting| (setting.name.to_owned(), setting.show(&mut copy)));
        let times = self.policies.iter().flat_map(|(name, policy)| {
            policy
                .times()
                .map(|(field, time)| (format!("policies.{name}.{field}"), time))
        });
        let policies = times.filter_map(|(name, time)| Some((name, text::show_duration(time?))));
        let max_loads = self.policies.iter().filter_map(|(name, policy)| {
            let limit = policy.max_loads?.to_string();
            Some((format!("policies.{name}.max_loads"), limit))
        });
        let limits = self
            .limits
            .iter()
            .map(|(name, quota)| (format!("limits.{name}"), text::show_quota(*quota)));
        special
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .chain(access.into_iter().flatten())
            .chain(settings)
            .chain(policies)
            .chain(max_loads)
            .chain(limits)
            .collect()
    }

    /// Returns the longest time of an operation.
    pub(crate) fn operation_max(&self) -> Duration {
        self.command_timeout_max.max(self.command_timeout)
    }

    /// Returns the policy that a function names. Variables cannot contain `-`, `.` and capitals, so a policy `a_b` also applies
    /// to functions that name `A-b`, unless there is a policy with that name.
    pub(crate) fn policy_of(&self, name: &str) -> Option<&TtlPolicy> {
        named(&self.policies, name)
    }

    /// Returns the settings in the environment for the policy that a function names.
    #[allow(dead_code, reason = "attributes do not ask yet")]
    pub(crate) fn policy_from_env(&self, name: &str) -> Option<&TtlPolicy> {
        match self.policies.contains_key(name) {
            true => self.policies_from_env.get(name),
            false => self.policies_from_env.get(&plain_name(name)),
        }
    }

    /// Returns the quota of a limiter's policy. Variables cannot contain `-`, `.` and capitals, so a quota of `a_b` also applies
    /// to the policy `A-b`, unless that policy has a quota under its own name.
    pub(crate) fn quota_of(&self, policy: &str) -> Option<Quota> {
        named(&self.limits, policy).copied()
    }

    /// Returns the names of quotas that match none of the policies.
    pub(crate) fn unmatched_limits<'a>(
        &self,
        policies: impl Iterator<Item = &'a str>,
    ) -> Vec<&str> {
        let known: Vec<String> = policies
            .flat_map(|name| [name.to_owned(), plain_name(name)])
            .collect();
        let names = self.limits.keys().map(String::as_str);
        names
            .filter(|name| !known.iter().any(|known| known == name))
            .collect()
    }

    /// Returns the problem of a prefix with braces: Redis Cluster uses the text between the first braces to choose the slot.
    pub(crate) fn braces_around(&self, records: &str) -> Option<String> {
        let prefix = &self.prefix;
        prefix.contains(['{', '}']).then(|| {
            format!("the prefix `{prefix}` contains braces, which would put all {records} into one slot of a cluster; remove them")
        })
    }

    /// Checks that all options are within their bounds and do not contradict each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        report(&problems(self, &str::to_owned))
    }

    /// Checks that a cache may keep everything in this process.
    pub(crate) fn check_memory_mode(&self) -> Result<(), Error> {
        let why = match self.require_redis {
            Some(true) => "`require_redis` is on",
            None if self.environment == Environment::PROD => "the environment is `prod`",
            Some(false) | None => return Ok(()),
        };
        let what = format!(
            "is not set, although {why}; set REDIS_URL or call `redis_url`, or set CACHE_REQUIRE_REDIS=false to keep \
             entries, sessions and limits in the memory of each process"
        );
        report(&[Problem::new("redis", what)])
    }

    /// Applies the settings of an address. The settings of another Redis do not apply to this one.
    fn connect_to(&mut self, url: RedisUrl) {
        let RedisUrl {
            topology,
            username,
            password,
            database,
            encrypted,
        } = url;
        if self.redis.replace(topology).is_some() {
            self.redis_fields().taken();
            self.sentinel_fields().taken();
            self.database = 0;
        }
        self.username = username.or(self.username.take());
        if let Some(password) = password {
            self.redis_fields().set_password(password);
        }
        self.database = database.unwrap_or(self.database);
        if encrypted && self.tls == Tls::Off {
            self.tls = Tls::WebRoots;
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.describe().into_iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{name} = {value}")?;
        }
        Ok(())
    }
}

/// Returns advice that names the known name most similar to `wrong`, if any is similar.
fn did_you_mean(wrong: &str, known: impl Iterator<Item = String>) -> String {
    const ALIKE: f64 = 0.45;
    // Without what all of them have, by which all would be alike.
    let bare = |name: &str| name.to_ascii_uppercase().replacen("CACHE_", "", 1);
    let wrong = bare(wrong);
    let likeness = |name: &String| strsim::normalized_damerau_levenshtein(&wrong, &bare(name));
    known
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|name| likeness(name) >= ALIKE)
        .map_or_else(
            || "docs/book/src/reference/configuration.md lists all options".to_owned(),
            |name| format!("did you mean `{name}`?"),
        )
}

#[cfg(test)]
mod tests;
