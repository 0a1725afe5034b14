//! A configuration from the environment. `docs/book/src/reference/configuration.md` lists the variables.

mod access;
mod links;
mod variables;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use self::variables::Variables;
use super::options::{SETTINGS, time_range};
use super::problem::{MAX_LOADS, Problem, QUOTA, idle_excludes, problems, report};
use super::redis::{RedisUrl, database_index, host_name, port_number};
use super::{
    Address, Config, SessionKeys, Topology, TtlPolicy, access as options_of_access, plain_name,
    text,
};
use crate::error::{Error, ErrorKind};

/// The environment that a service runs in: a lower-case word such as `staging`.
///
/// It sets the prefix of the keys, such as `staging_`, and which variables count, such as `STAGING_REDIS_HOST`. Only
/// [`PROD`](Self::PROD) requires a Redis and session keys.
///
/// ```
/// use cache_runtime::{Config, Environment};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let config = Config::default().environment(Environment::new("staging")?);
/// assert_eq!(config.prefix, "staging_");
///
/// assert!(Environment::new("production").is_err()); // it is `Environment::PROD`
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Environment(Cow<'static, str>);

impl Environment {
    /// Development.
    pub const DEV: Self = Self(Cow::Borrowed("dev"));
    /// Tests.
    pub const TEST: Self = Self(Cow::Borrowed("test"));
    /// Production.
    pub const PROD: Self = Self(Cow::Borrowed("prod"));

    const KNOWN: [Self; 3] = [Self::DEV, Self::TEST, Self::PROD];

    /// Returns the environment with this name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `name` is not a lower-case letter followed by lower-case letters, digits and
    /// `-`, or if it is `production`. Production is [`PROD`](Self::PROD).
    pub fn new(name: &str) -> Result<Self, Error> {
        Self::of_name(name).ok_or_else(|| {
            let name = text::shown(name);
            Error::new(
                ErrorKind::Config,
                format!("`{name}` is not the name of an environment; use {ENVIRONMENTS}"),
            )
        })
    }

    /// Returns the name, as in `CACHE_ENV`.
    pub fn name(&self) -> &str {
        &self.0
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_word =
            name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_allowed);
        // As a word of its own it would not require a Redis.
        (is_word && name != "production").then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// Returns the prefix of its keys.
    pub(super) fn prefix(&self) -> String {
        format!("{}_", self.name())
    }

    /// Returns the name of a variable that only this environment reads.
    fn variable(&self, part: &str) -> String {
        format!(
            "{}_REDIS_{part}",
            plain_name(self.name()).to_ascii_uppercase()
        )
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::DEV
    }
}

const ENV: &str = "CACHE_ENV";
const URL: &str = "REDIS_URL";
const POLICY: &str = "CACHE_POLICY_";
const LIMIT: &str = "CACHE_LIMIT_";
const SESSION_KEYS: &str = "CACHE_SESSION_KEYS";

/// What is allowed for `CACHE_ENV`.
pub(super) const ENVIRONMENTS: &str = "`dev`, `test`, `prod`, or another word of lower-case letters, digits and `-`, such as `staging`; production is `prod`";

/// How the variables of a policy end, and what they set. The longer before the shorter: both end in `_TTL`.
const POLICY_FIELDS: [(&str, PolicyField); 4] = [
    (
        "_NONE_TTL",
        PolicyField::Time(|policy| &mut policy.none_ttl),
    ),
    ("_TTL", PolicyField::Time(|policy| &mut policy.ttl)),
    ("_GRACE", PolicyField::Time(|policy| &mut policy.grace)),
    (
        "_MAX_LOADS",
        PolicyField::Limit(|policy| &mut policy.max_loads),
    ),
];

/// Sets a field of a policy.
type SetField = Box<dyn Fn(&mut TtlPolicy)>;

#[derive(Clone, Copy)]
enum PolicyField {
    Time(fn(&mut TtlPolicy) -> &mut Option<Duration>),
    Limit(fn(&mut TtlPolicy) -> &mut Option<u32>),
}

impl PolicyField {
    /// Returns what sets the field to the value of the variable. A wrong value is recorded as a problem.
    fn read(self, variable: &str, vars: &mut Variables) -> Option<SetField> {
        Some(match self {
            Self::Time(field) => {
                let time = vars.take_as(variable, text::duration, &time_range())?;
                Box::new(move |policy| *field(policy) = Some(time))
            }
            Self::Limit(field) => {
                let limit = vars.take_as(variable, |text| text.parse().ok(), MAX_LOADS)?;
                Box::new(move |policy| *field(policy) = Some(limit))
            }
        })
    }
}

impl Config {
    /// The configuration that the environment describes, over the defaults of this crate. Without any variable, the cache
    /// runs in memory mode. A service with its own defaults should use [`from_env_over`](Self::from_env_over), because
    /// options that are set in code after this call override the environment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with every invalid variable, one per line: its name, what was found,
    /// and what is allowed. A variable that begins with `CACHE_` and is not known is wrong too. Secrets are not shown.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the configuration from the given variables. Variables that are not settings of a cache, and empty ones, are
    /// ignored.
    ///
    /// ```
    /// # fn main() -> Result<(), cache_runtime::Error> {
    /// use cache_runtime::Config;
    ///
    /// let config = Config::from_vars([("CACHE_ENV", "prod"), ("REDIS_URL", "redis://cache.internal")])?;
    /// assert_eq!(config.prefix, "prod_");
    ///
    /// let error = Config::from_vars([("CACHE_POOL_MUX", "9")]).unwrap_err();
    /// assert!(error.to_string().contains("did you mean `CACHE_POOL_MAX`"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        Self::from_vars_over(Self::default(), variables)
    }

    /// Reads the environment over `defaults`: an option without a variable keeps its value from `defaults`.
    ///
    /// ```
    /// # fn main() -> Result<(), cache_runtime::Error> {
    /// use std::time::Duration;
    /// use cache_runtime::{Config, TtlPolicy};
    ///
    /// let defaults = Config::default()
    ///     .prefix("shop_")
    ///     .policy("events", TtlPolicy::default().ttl(Duration::from_secs(300)));
    /// let config = Config::from_env_over(defaults)?; // CACHE_POLICY_EVENTS_TTL=10m replaces the 300 s
    /// # drop(config);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A policy and its times are replaced one by one, a limit as a whole. `REDIS_URL` replaces everything that `defaults`
    /// say about another Redis, as [`redis_url`](Self::redis_url) does. `CACHE_ENV` changes the prefix, unless `defaults`
    /// set their own prefix.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env). An invalid value in `defaults` that is not replaced is reported by the name of its
    /// option.
    pub fn from_env_over(defaults: Self) -> Result<Self, Error> {
        Self::from_vars_over(defaults, std::env::vars_os())
    }

    /// The same from variables that the caller gives.
    ///
    /// # Errors
    ///
    /// As [`from_env_over`](Self::from_env_over).
    pub fn from_vars_over<N, V>(
        defaults: Self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Error>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let set_in_code = set_in_code(&defaults);
        let mut vars = Variables::new(variables);
        let mut config = defaults;
        if let Some(environment) = vars.environment() {
            config = config.environment(environment);
        }
        let environment = &config.environment.clone();
        connection(&mut config, &mut vars, environment);
        let mut set = Vec::new();
        for setting in SETTINGS {
            let name = setting.variable();
            if let Some(found) = vars.take(&name) {
                set.push(setting.name);
                if let Err(allowed) = setting.set(&mut config, &found) {
                    vars.problems.push(Problem::wrong(name, &found, allowed));
                }
            }
        }
        keep_idle_or_ttl(&mut config, &mut vars, &set, environment);
        policies(&mut config, &mut vars);
        limits(&mut config, &mut vars);
        session_keys(&mut config, &mut vars);
        vars.report_unknown();

        let mut found = std::mem::take(&mut vars.problems);
        let called = |option: &str| {
            let variable = variable_of(option, environment);
            match set_in_code.contains(option) && !vars.is_given(&variable) {
                true => option.to_owned(),
                false => variable,
            }
        };
        for problem in problems(&config, &called) {
            // A value that could not be read is already reported.
            if found.iter().all(|known| known.name != problem.name) {
                found.push(problem);
            }
        }
        report(&found)?;
        Ok(config)
    }
}

/// An idle time and the two options that it excludes: where the environment sets one side, the code's other side is replaced.
fn keep_idle_or_ttl(
    config: &mut Config,
    vars: &mut Variables,
    set: &[&str],
    environment: &Environment,
) {
    let [ttl, extend] = ["session_ttl", "session_extend"].map(|name| (name, set.contains(&name)));
    if set.contains(&"session_idle") && config.session_idle.is_some() {
        let usual = Config::default();
        if !ttl.1 {
            config.session_ttl = usual.session_ttl;
        }
        if !extend.1 {
            config.session_extend = usual.session_extend;
        }
        let others = [ttl, extend].into_iter().filter(|(_, is_set)| *is_set);
        let called = |option: &str| variable_of(option, environment);
        vars.problems
            .extend(idle_excludes(&called, others.map(|(name, _)| name)));
    } else if ttl.1 || extend.1 {
        config.session_idle = None;
    }
}

/// The options that are not as this crate has them.
fn set_in_code(config: &Config) -> BTreeSet<String> {
    let usual = Config::default().describe();
    let other = config.describe().into_iter();
    other
        .filter(|option| !usual.contains(option))
        .map(|(name, _)| name)
        .collect()
}

/// The variable that sets an option.
fn variable_of(option: &str, environment: &Environment) -> String {
    match option {
        "redis" => URL.to_owned(),
        "database" => environment.variable("DB"),
        // Only code can set it.
        "credentials" => option.to_owned(),
        "environment" => ENV.to_owned(),
        option if options_of_access::is_option(option) => options_of_access::variable(option),
        option => {
            let roots = [("policies.", POLICY), ("limits.", LIMIT)];
            let named = roots
                .into_iter()
                .find_map(|(root, variable)| Some((variable, option.strip_prefix(root)?)));
            let (variable, name) = named.unwrap_or(("CACHE_", option));
            format!("{variable}{}", name.replace('.', "_").to_ascii_uppercase())
        }
    }
}

fn connection(config: &mut Config, vars: &mut Variables, environment: &Environment) {
    let [host, port, own_password, db] =
        ["HOST", "PORT", "PASSWORD", "DB"].map(|part| environment.variable(part));
    let url = vars.take(URL);
    let is_url_wrong = match url.as_deref().map(RedisUrl::parse) {
        None => false,
        Some(Ok(parts)) => {
            config.connect_to(parts);
            false
        }
        Some(Err(allowed)) => {
            vars.problems.push(Problem::wrong(
                URL,
                url.as_deref().unwrap_or_default(),
                allowed,
            ));
            true
        }
    };

    let before = vars.problems.len();
    let host_given = vars.take_as(
        &host,
        host_name,
        "only a host name or address, such as `localhost`",
    );
    let port_given = vars.take_as(&port, port_number, "a port from 1 to 65535, such as `6379`");
    let is_part_wrong = vars.problems.len() > before;
    config.redis = match (config.redis.take(), (host_given, port_given)) {
        (topology, (None, None)) => topology,
        (Some(Topology::Standalone(Address::Tcp(url_host, url_port))), (host, port)) => {
            let address = Address::Tcp(host.unwrap_or(url_host), port.unwrap_or(url_port));
            Some(Topology::Standalone(address))
        }
        (None | Some(Topology::Standalone(Address::Unix(_))), (Some(host), port)) => Some(
            Topology::Standalone(Address::Tcp(host, port.unwrap_or(6379))),
        ),
        (
            Some(topology @ (Topology::Sentinel { .. } | Topology::Cluster { .. })),
            (host_given, _),
        ) => {
            let name = if host_given.is_some() { &host } else { &port };
            let other = match topology {
                Topology::Cluster { .. } => "a cluster",
                _ => "sentinels",
            };
            let what =
                format!("cannot be combined with {other}; unset it, or set {URL} to one server");
            vars.problems.push(Problem::new(name, what));
            Some(topology)
        }
        (topology, (None, Some(_))) => {
            if !is_url_wrong && !is_part_wrong {
                vars.problems.push(Problem::new(
                    &port,
                    format!("needs a host; also set {host}, or name a host in {URL}"),
                ));
            }
            topology
        }
    };

    let mut given = access::read(config.redis_fields(), vars, &[&own_password]);
    given.extend(access::read(config.sentinel_fields(), vars, &[]));
    if let Some(index) = vars.take_as(&db, database_index, "a database index, such as `0`") {
        config.database = index;
        // Database 0 is the default, so it asks for nothing.
        if index > 0 {
            given.push(db);
        }
    }
    // Without this error, a service would run without the Redis that its operator expects.
    if config.redis.is_none() && !is_url_wrong && !is_part_wrong {
        for name in given {
            vars.problems.push(Problem::new(
                name,
                format!("is set, but no Redis server is configured; set {URL} or {host}"),
            ));
        }
    }
}

fn policies(config: &mut Config, vars: &mut Variables) {
    for variable in vars.beginning_with(POLICY) {
        let written = &variable[POLICY.len()..];
        let Some((name, field)) = POLICY_FIELDS
            .iter()
            .find_map(|(suffix, field)| Some((written.strip_suffix(suffix)?, *field)))
        else {
            continue;
        };
        if !is_name(name) {
            continue;
        }
        if let Some(set) = field.read(&variable, vars) {
            for name in meant(&name.to_ascii_lowercase(), config.policies.keys()) {
                for policies in [&mut config.policies, &mut config.policies_from_env] {
                    set(policies.entry(name.clone()).or_default());
                }
            }
        }
    }
}

fn limits(config: &mut Config, vars: &mut Variables) {
    for variable in vars.beginning_with(LIMIT) {
        let written = &variable[LIMIT.len()..];
        if !is_name(written) {
            continue;
        }
        if let Some(quota) = vars.take_as(&variable, text::quota, QUOTA) {
            for name in meant(&written.to_ascii_lowercase(), config.limits.keys()) {
                config.limits.insert(name, quota);
            }
        }
    }
}

/// The names that a variable speaks of: `name` as it is written, and all of those in code that a variable can only write so.
fn meant<'a>(name: &str, in_code: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    in_code
        .filter(|known| plain_name(known) == name)
        .cloned()
        .chain([name.to_owned()])
        .collect()
}

fn session_keys(config: &mut Config, vars: &mut Variables) {
    let Some(text) = vars.take_verbatim(SESSION_KEYS) else {
        return;
    };
    match SessionKeys::read(&text) {
        Ok(keys) => config.session_keys = Some(keys),
        Err(wrong) => vars.problems.push(Problem::new(SESSION_KEYS, wrong)),
    }
}

/// Returns whether a part of a variable can be the name of a policy.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_plain)
}

#[cfg(test)]
use self::variables::known;

#[cfg(test)]
mod tests;
