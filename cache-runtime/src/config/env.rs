//! A configuration from the environment. `docs/configuration.md` lists the variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::options::{SETTINGS, life};
use super::problem::{Problem, QUOTA, problems, report};
use super::redis::{RedisUrl, database_index, host_name, port_number};
use super::{Address, Config, Policy, Secret, SessionKeys, Tls, Topology, nearest, text};
use crate::error::Error;

/// What a process is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Environment {
    /// Development.
    #[default]
    Dev,
    /// Tests.
    Test,
    /// Production.
    Prod,
}

impl Environment {
    const ALL: [Self; 3] = [Self::Dev, Self::Test, Self::Prod];

    /// What it is called in `CACHE_ENV`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Prod => "prod",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// What stands before its keys.
    fn prefix(self) -> String {
        format!("{}_", self.name())
    }

    /// The name of a variable that only this environment reads.
    fn variable(self, part: &str) -> String {
        format!("{}_REDIS_{part}", self.name().to_ascii_uppercase())
    }
}

const ENV: &str = "CACHE_ENV";
const URL: &str = "REDIS_URL";
const USERNAME: &str = "REDIS_USERNAME";
const PASSWORD: &str = "REDIS_PASSWORD";
const TLS: &str = "REDIS_TLS";
const TLS_CA: &str = "REDIS_TLS_CA";
const POLICY: &str = "CACHE_POLICY_";
const LIMIT: &str = "CACHE_LIMIT_";
const SESSION_KEYS: &str = "CACHE_SESSION_KEYS";

/// What is allowed for `CACHE_ENV`.
pub(super) const ENVIRONMENTS: &str = "`dev`, `test` or `prod`";

/// How the variables of a policy end, and what they set. The longer before the shorter: both end in `_TTL`.
const POLICY_TIMES: [(&str, PolicyTime); 3] = [
    ("_NONE_TTL", |policy| &mut policy.none_ttl),
    ("_TTL", |policy| &mut policy.ttl),
    ("_GRACE", |policy| &mut policy.grace),
];

type PolicyTime = fn(&mut Policy) -> &mut Option<Duration>;

impl Config {
    /// The configuration that the environment describes. With no variable set, it is that of memory mode.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with every wrong variable, one in a line: its name, what was
    /// found, and what is allowed. A variable that begins with `CACHE_` and is not known is wrong too. Secrets are not
    /// shown.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(std::env::vars_os())
    }

    /// The same from variables that the caller gives. Those that mean nothing to a cache are ignored, and so are empty
    /// ones.
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
        let mut vars = Variables::new(variables);
        let environment = vars.environment();
        let mut config = Self {
            environment,
            prefix: environment.prefix(),
            ..Self::default()
        };
        connection(&mut config, &mut vars, environment);
        for setting in SETTINGS {
            let name = setting.variable();
            if let Some(found) = vars.take(&name)
                && let Err(allowed) = setting.set(&mut config, &found)
            {
                vars.problems.push(Problem::wrong(name, &found, allowed));
            }
        }
        policies(&mut config, &mut vars);
        limits(&mut config, &mut vars);
        session_keys(&mut config, &mut vars);
        vars.report_unknown();

        let Variables {
            problems: mut found,
            ..
        } = vars;
        for problem in problems(&config, &|option| variable_of(option, environment)) {
            // What could not be read has its line already.
            if found.iter().all(|known| known.name != problem.name) {
                found.push(problem);
            }
        }
        report(&found)?;
        Ok(config)
    }
}

/// The variable that sets an option.
fn variable_of(option: &str, environment: Environment) -> String {
    match option {
        "redis" => URL.to_owned(),
        "username" => USERNAME.to_owned(),
        "password" => PASSWORD.to_owned(),
        "database" => environment.variable("DB"),
        "tls" => TLS.to_owned(),
        "environment" => ENV.to_owned(),
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

/// The variables that nobody has taken yet, and what was wrong with the others.
struct Variables {
    values: BTreeMap<String, OsString>,
    problems: Vec<Problem>,
}

impl Variables {
    fn new<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .filter(|(name, _)| name.starts_with("CACHE_") || name.contains("REDIS_"))
            .collect();
        Self {
            values,
            problems: Vec::new(),
        }
    }

    /// The value as it is, unless it is empty.
    fn take_verbatim(&mut self, name: &str) -> Option<String> {
        let Ok(value) = self.values.remove(name)?.into_string() else {
            self.problems
                .push(Problem::new(name, "is not Unicode text"));
            return None;
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The value without white space around it, unless nothing remains.
    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.take_verbatim(name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The value as `read` understands it.
    fn take_as<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        allowed: &str,
    ) -> Option<T> {
        let found = self.take(name)?;
        let value = read(&found);
        if value.is_none() {
            self.problems.push(Problem::wrong(name, &found, allowed));
        }
        value
    }

    fn environment(&mut self) -> Environment {
        self.take_as(ENV, Environment::of_name, ENVIRONMENTS)
            .unwrap_or_default()
    }

    fn report_unknown(&mut self) {
        let values = std::mem::take(&mut self.values);
        for (name, _) in values
            .iter()
            .filter(|(name, value)| name.starts_with("CACHE_") && !value.is_empty())
        {
            // Whoever writes CACHE_REDIS_URL means REDIS_URL.
            let bare = name.strip_prefix("CACHE_").unwrap_or(name);
            let meant = known()
                .find(|known| known == bare)
                .unwrap_or_else(|| nearest(name, known()));
            self.problems.push(Problem::new(
                text::shown(name),
                format!("is not known; did you mean `{meant}`?"),
            ));
        }
    }
}

/// The names of all variables.
fn known() -> impl Iterator<Item = String> {
    let connection = [ENV, URL, USERNAME, PASSWORD, TLS, TLS_CA, SESSION_KEYS].map(str::to_owned);
    let parts = Environment::ALL
        .into_iter()
        .flat_map(|env| ["HOST", "PORT", "PASSWORD", "DB"].map(|part| env.variable(part)));
    let policies = POLICY_TIMES.map(|(suffix, _)| format!("{POLICY}<NAME>{suffix}"));
    connection
        .into_iter()
        .chain(parts)
        .chain(SETTINGS.iter().map(super::options::Setting::variable))
        .chain(policies)
        .chain([format!("{LIMIT}<NAME>")])
}

fn connection(config: &mut Config, vars: &mut Variables, environment: Environment) {
    let [host, port, own_password, db] =
        ["HOST", "PORT", "PASSWORD", "DB"].map(|part| environment.variable(part));
    let url = vars.take(URL);
    let is_url_wrong = match url.as_deref().map(RedisUrl::parse) {
        None => false,
        Some(Ok(parts)) => {
            config.apply(parts);
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
        "the name or address of a host, such as `localhost`, and nothing else",
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
        (topology @ Some(Topology::Sentinel { .. }), (host_given, _)) => {
            let name = if host_given.is_some() { &host } else { &port };
            let what =
                format!("cannot stand beside sentinels; unset it, or name one server in {URL}");
            vars.problems.push(Problem::new(name, what));
            topology
        }
        (topology, (None, Some(_))) => {
            if !is_url_wrong && !is_part_wrong {
                vars.problems.push(Problem::new(
                    &port,
                    format!("needs a host; set {host} too, or {URL} to one"),
                ));
            }
            topology
        }
    };

    let mut given = Vec::new();
    if let Some(username) = vars.take_verbatim(USERNAME) {
        config.username = Some(username);
        given.push(USERNAME);
    }
    for name in [PASSWORD, &own_password] {
        if let Some(password) = vars.take_verbatim(name) {
            config.password = Some(Secret::from(password));
            given.push(name);
        }
    }
    if let Some(index) = vars.take_as(&db, database_index, "the index of a database, such as `0`") {
        config.database = index;
        // The first database is where everybody is who says nothing.
        if index > 0 {
            given.push(&db);
        }
    }
    given.extend(tls(config, vars));
    // Silence here would run a service without the Redis that its operator believes in.
    if config.redis.is_none() && !is_url_wrong && !is_part_wrong {
        for name in given {
            vars.problems.push(Problem::new(
                name,
                format!("is set, but no Redis is named; set {URL} or {host}"),
            ));
        }
    }
}

/// Reads whether connections are encrypted, and answers which variable asks for it.
fn tls(config: &mut Config, vars: &mut Variables) -> Option<&'static str> {
    let switch = vars.take_as(TLS, text::switch, "`true` or `false`");
    let ca = vars.take(TLS_CA);
    match (switch, ca) {
        (Some(false), Some(_)) => {
            vars.problems.push(Problem::new(
                TLS,
                format!("is off, but {TLS_CA} is set, which switches it on; unset one"),
            ));
            None
        }
        (Some(false), None) if config.tls != Tls::Off => {
            vars.problems.push(Problem::new(
                TLS,
                format!("is off, but {URL} begins with `rediss`; write `redis` there"),
            ));
            None
        }
        (_, Some(ca)) => {
            config.tls = Tls::Ca(ca.into());
            Some(TLS_CA)
        }
        (Some(true), None) => {
            config.tls = Tls::WebRoots;
            Some(TLS)
        }
        (Some(false) | None, None) => None,
    }
}

fn policies(config: &mut Config, vars: &mut Variables) {
    let names: Vec<_> = vars
        .values
        .keys()
        .filter(|name| name.starts_with(POLICY))
        .cloned()
        .collect();
    for variable in names {
        let written = &variable[POLICY.len()..];
        let Some((name, field)) = POLICY_TIMES
            .iter()
            .find_map(|(suffix, field)| Some((written.strip_suffix(suffix)?, *field)))
        else {
            continue;
        };
        if !is_name(name) {
            continue;
        }
        if let Some(life) = vars.take_as(&variable, text::duration, &life()) {
            let policy: &mut Policy = config
                .policies
                .entry(name.to_ascii_lowercase())
                .or_default();
            *field(policy) = Some(life);
        }
    }
}

fn limits(config: &mut Config, vars: &mut Variables) {
    let names: Vec<_> = vars
        .values
        .keys()
        .filter(|name| name.strip_prefix(LIMIT).is_some_and(is_name))
        .cloned()
        .collect();
    for variable in names {
        if let Some(quota) = vars.take_as(&variable, text::quota, QUOTA) {
            let name = variable[LIMIT.len()..].to_ascii_lowercase();
            config.limits.insert(name, quota);
        }
    }
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

/// Whether a part of a variable can be the name of a policy.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests;
