//! Where Redis is, and how to be let in.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is.
///
/// ```
/// use cache_runtime::{Address, Config, Topology};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let nodes = ["10.0.0.1", "10.0.0.2"].map(|host| Address::Tcp(host.to_owned(), 6379));
/// let config = Config::default().redis(Topology::Cluster { nodes: nodes.into() });
///
/// let same = Config::default().redis_url("redis+cluster://10.0.0.1,10.0.0.2")?;
/// assert_eq!(config.redis, same.redis);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    Standalone(Address),
    /// A master that sentinels know.
    Sentinel {
        /// The sentinels, which are all asked at once.
        sentinels: Vec<Address>,
        /// The master's name.
        master: String,
    },
    /// A Redis Cluster.
    Cluster {
        /// Some of its nodes. The others are found through them.
        nodes: Vec<Address>,
    },
}

/// Where a server listens.
///
/// See [`Topology`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host and a port. An IPv6 address has no brackets here.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Whether connections are encrypted, and which certificates they trust.
///
/// ```
/// use cache_runtime::{Config, Tls};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let public = Config::default().redis_url("rediss://cache.example.com")?;
/// assert_eq!(public.tls, Tls::WebRoots);
///
/// let private = Config::default().redis_url("redis://cache.internal")?.tls(Tls::Ca("/etc/redis/ca.pem".into()));
/// # drop(private);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Plain text.
    #[default]
    Off,
    /// The bundled web roots.
    WebRoots,
    /// A certificate authority in a PEM file.
    Ca(PathBuf),
}

/// Text that no log shows.
///
/// ```
/// use cache_runtime::{Config, Secret};
///
/// let config = Config::default().password("hunter2");
/// assert!(!format!("{config:?}").contains("hunter2"));
/// assert_eq!(config.password.as_ref().map(Secret::expose), Some("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Topology {
    /// As an address without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone(Address::Unix(path)) => write!(f, "unix://{}", path.display()),
            Self::Standalone(address) => write!(f, "redis://{address}"),
            Self::Sentinel { sentinels, master } => {
                write!(f, "redis+sentinel://{}/{master}", list(sentinels))
            }
            Self::Cluster { nodes } => write!(f, "redis+cluster://{}", list(nodes)),
        }
    }
}

fn list(addresses: &[Address]) -> String {
    let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
    addresses.join(",")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Tls {
    pub(super) fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::WebRoots => "on".to_owned(),
            Self::Ca(path) => format!("on, trusting {}", path.display()),
        }
    }
}

/// A parsed address.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct RedisUrl {
    pub(super) topology: Topology,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<i64>,
    pub(super) encrypted: bool,
}

/// Why a cluster cannot be given another database.
pub(super) const ONLY_DATABASE: &str = "a Redis Cluster has only the database 0";

/// The form that the error of every rejected address shows.
const FORMS: &str = "an address such as `redis://localhost:6379`";

impl RedisUrl {
    /// Parses `redis://[user[:password]@]host[:port][/database]`, the same with `rediss`, `unix:///path`,
    /// `redis+sentinel://host[:port],…/master[/database]`, `redis+cluster://host[:port],…`, and a bare `host[:port]`.
    ///
    /// The error says what is allowed; it never contains a part of `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Self::bare(text);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "redis" => Self::server(rest, false),
            "rediss" => Self::server(rest, true),
            "unix" | "redis+unix" => Self::socket(rest),
            "redis+sentinel" => Self::sentinels(rest, false),
            "rediss+sentinel" => Self::sentinels(rest, true),
            "redis+cluster" => Self::cluster(rest, false),
            "rediss+cluster" => Self::cluster(rest, true),
            _ => Err(
                "an address that begins with `redis://`, `rediss://`, `redis+unix://`, `unix://`, \
                `redis+sentinel://` or `redis+cluster://`, or just `host:port`"
                    .to_owned(),
            ),
        }
    }

    fn bare(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err(
                "a user and a password only in the full form `redis://user:password@host:6379`"
                    .to_owned(),
            );
        }
        if text.starts_with('/') {
            return Err(
                "a socket only in the full form, such as `unix:///run/redis.sock`".to_owned(),
            );
        }
        Self::server(text, false)
    }

    fn server(rest: &str, encrypted: bool) -> Result<Self, String> {
        let (username, password, rest) = credentials(rest)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let topology = Topology::Standalone(address(host, PORT)?);
        Ok(Self {
            topology,
            username,
            password,
            database: database(path)?,
            encrypted,
        })
    }

    fn sentinels(rest: &str, encrypted: bool) -> Result<Self, String> {
        let (username, password, rest) = credentials(rest)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, path) = path.split_once('/').unwrap_or((path, ""));
        let master = decoded(master)?;
        if master.is_empty() {
            return Err("the name of the master after the sentinels, such as \
                `redis+sentinel://host1:26379,host2:26379/mymaster/0`"
                .to_owned());
        }
        let sentinels = hosts
            .split(',')
            .map(|host| address(host, SENTINEL_PORT))
            .collect::<Result<_, _>>()?;
        let topology = Topology::Sentinel { sentinels, master };
        Ok(Self {
            topology,
            username,
            password,
            database: database(path)?,
            encrypted,
        })
    }

    fn cluster(rest: &str, encrypted: bool) -> Result<Self, String> {
        let (rest, query) = match rest.rsplit_once('?') {
            // Otherwise it is a part of the credentials, which tell how to write it.
            Some((rest, query)) if !query.contains('@') => (rest, Some(query)),
            _ => (rest, None),
        };
        if query.is_some_and(|query| query != "read=primary") {
            return Err(
                "only `?read=primary` after the nodes, because a replica can return entries that were evicted"
                    .to_owned(),
            );
        }
        let (username, password, rest) = credentials(rest)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let nodes = hosts
            .split(',')
            .map(|host| address(host, PORT))
            .collect::<Result<_, _>>()?;
        let database = match path {
            "" => None,
            "0" => Some(0),
            _ => {
                return Err(format!("nodes without a database index; {ONLY_DATABASE}"));
            }
        };
        Ok(Self {
            topology: Topology::Cluster { nodes },
            username,
            password,
            database,
            encrypted,
        })
    }

    /// `/path`, with `?db=`, `?user=` and `?pass=`, which is how other clients write them.
    fn socket(rest: &str) -> Result<Self, String> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decoded(path)?;
        if !path.starts_with('/') || path.ends_with('/') {
            return Err("an absolute path, such as `unix:///run/redis.sock`".to_owned());
        }
        let topology = Topology::Standalone(Address::Unix(path.into()));
        let mut url = Self {
            topology,
            username: None,
            password: None,
            database: None,
            encrypted: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("db", index)) => url.database = database(index)?,
                Some(("user", user)) => url.username = Some(decoded(user)?),
                Some(("pass", password)) => url.password = Some(decoded(password)?.into()),
                _ => {
                    return Err(
                        "only the parameters `db`, `user` and `pass` after the path of a socket"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(url)
    }
}

/// Parses the host of `DEV_REDIS_HOST`: only a name or an address.
pub(super) fn host_name(text: &str) -> Option<String> {
    let address = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if address.parse::<Ipv6Addr>().is_ok() {
        return Some(address.to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
}

pub(super) fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

pub(super) fn database_index(text: &str) -> Option<i64> {
    text.parse().ok().filter(|index| *index >= 0)
}

/// Parses `announced=reachable`: where a node of a cluster says that it is, and where this process reaches it.
pub(super) fn mapped(text: &str) -> Option<(Address, Address)> {
    let (announced, reachable) = text.split_once('=')?;
    let address = |text: &str| address(text.trim(), PORT).ok();
    Some((address(announced)?, address(reachable)?))
}

/// Returns whether an address can be that of a node of a cluster.
pub(super) fn is_host_and_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(host, port) if !host.is_empty() && *port > 0)
}

fn credentials(rest: &str) -> Result<(Option<String>, Option<Secret>, &str), String> {
    if rest.contains(['?', '#']) {
        return Err(format!(
            "{FORMS} without a query or a fragment; write `?` as `%3F` and `#` as `%23` in a password"
        ));
    }
    let Some((user, rest)) = rest.split_once('@') else {
        return Ok((None, None, rest));
    };
    if rest.contains('@') || user.contains('/') {
        return Err(format!(
            "{FORMS}; write `@` as `%40` and `/` as `%2F` in a password"
        ));
    }
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let (username, password) = (decoded(username)?, decoded(password)?);
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok((given(username), given(password).map(Secret), rest))
}

fn address(text: &str, usual_port: u16) -> Result<Address, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .ok_or_else(|| format!("{FORMS}; the bracket of an IPv6 address is not closed"))?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let host = host_name(host).ok_or_else(|| {
        format!("{FORMS}: the host is a name, an IPv4 address, or an IPv6 address in brackets")
    })?;
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => usual_port,
        Some(port) => port_number(port)
            .ok_or_else(|| format!("{FORMS}: the port is a number from 1 to 65535"))?,
        None => {
            return Err(format!(
                "{FORMS}: only `:` and a port may follow the bracket"
            ));
        }
    };
    Ok(Address::Tcp(host, port))
}

fn database(path: &str) -> Result<Option<i64>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let index = database_index(path);
    index
        .map(Some)
        .ok_or_else(|| "a database index at the end, such as `redis://localhost:6379/0`".to_owned())
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || {
            rest.next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
        };
        bytes.push(match byte {
            b'%' => match (digit(), digit()) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(format!("{FORMS}; write `%` as `%25` in a password")),
            },
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| format!("{FORMS}; percent-encoded bytes must be UTF-8"))
}

#[cfg(test)]
mod tests;
