//! Opens one connection. This is the only file that knows what is behind an address. Its parts are in `topology/`.

mod access;
mod file;
mod introduction;
mod race;
mod sentinels;
#[cfg_attr(not(feature = "tls"), path = "topology/no_tls.rs")]
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use self::access::{Gate, Pass};
use self::introduction::refuses_resp3;
pub(super) use self::introduction::{Expected, Identity};
use self::race::Favourites;
pub(super) use self::sentinels::{LOOK, Sentinels};
use crate::config::{Address, Config, Topology};
use crate::error::{Error, ErrorKind};
use crate::store::traffic::{Observed, Traffic};

/// A byte stream to the server.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Moves bytes between a link and its socket; ends when the socket closes.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that is ready for commands as soon as its driver runs.
pub(super) struct Opened {
    pub(super) link: MultiplexedConnection,
    pub(super) driver: Driver,
    pub(super) address: Address,
    pub(super) identity: Identity,
    /// How the server evicts keys when its memory is full, if it may evict sessions and if this process has any.
    pub(super) evicts: Option<String>,
    /// Whether its `SET` takes `IFEQ`, by its version.
    pub(super) compares: bool,
    pub(super) traffic: Arc<Traffic>,
}

/// A link and the driver that moves its bytes.
type Greeted = (MultiplexedConnection, Driver);

/// Takes push messages as they arrive, before the answers that arrive after them. It must not block.
pub(super) type Pushes = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Knows where the server is and how to introduce itself.
pub(super) struct Connector {
    topology: Topology,
    /// What a server that is configured by its address is meant to be.
    expected: Expected,
    sentinels: Option<Sentinels>,
    gate: Gate,
    sentinel_gate: Gate,
    database: i64,
    keeps_sessions: bool,
    client_name: String,
    connect_timeout: Duration,
    greeting_timeout: Duration,
    favourites: Favourites,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the files of passwords and certificates, if there are any. Opens nothing.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let Some(topology) = config.redis.clone() else {
            return Err(Error::new(
                ErrorKind::Config,
                "no Redis is configured; set `REDIS_URL`",
            ));
        };
        let session =
            RedisConnectionInfo::default().set_lib_name("cache-runtime", env!("CARGO_PKG_VERSION"));
        let sentinel_session = RedisConnectionInfo::default().set_skip_set_lib_name();
        let sentinels = match &topology {
            Topology::Standalone(_) | Topology::Cluster { .. } => None,
            Topology::Sentinel { sentinels, master } => {
                Some(Sentinels::new(sentinels.clone(), master.clone()))
            }
        };
        Ok(Self {
            topology,
            expected: Expected::Primary,
            sentinels,
            gate: Gate::new(config.access(), session)?,
            sentinel_gate: Gate::new(config.sentinel_access(), sentinel_session)?,
            database: config.database,
            // Sessions without keys end with the process, so they need no server that keeps them.
            keeps_sessions: config.session_keys.is_some(),
            client_name: config.client_name.clone(),
            connect_timeout: config.connect_timeout,
            // A server that accepts a connection but stays silent for this many command timeouts cannot be used. Waiting
            // for the whole connect timeout would keep the cache unavailable for that long after a frozen server is
            // replaced.
            greeting_timeout: config
                .command_timeout
                .saturating_mul(10)
                .max(Duration::from_secs(1))
                .min(config.connect_timeout),
            favourites: Favourites::default(),
        })
    }

    /// The same for a node of a cluster at `address`.
    pub(super) fn for_node(
        config: &Config,
        address: &Address,
        expected: Expected,
    ) -> Result<Self, Error> {
        let config = Config {
            redis: Some(Topology::Standalone(address.clone())),
            ..config.clone()
        };
        Ok(Self {
            expected,
            ..Self::new(&config)?
        })
    }

    /// The sentinels, if configured.
    pub(super) fn sentinels(&self) -> Option<&Sentinels> {
        self.sentinels.as_ref()
    }

    /// Opens a connection to the server that takes writes.
    pub(super) async fn open(&self) -> Result<Opened, Error> {
        self.open_with(None).await
    }

    /// The same for a connection that takes push messages, which needs RESP3.
    pub(super) async fn open_with(&self, pushes: Option<&Pushes>) -> Result<Opened, Error> {
        let sentinels = match (&self.topology, &self.sentinels) {
            (Topology::Standalone(address), _) => {
                return self.open_at(address, self.expected, pushes).await;
            }
            (_, None) => return Err(Error::away()),
            (_, Some(sentinels)) => sentinels,
        };
        let master = self.find_master(sentinels).await?;
        tokio::select! {
            opened = self.open_at(&master, Expected::MasterOfSentinels, pushes) => opened,
            // A dead master may stay silent for the whole connect timeout.
            () = sentinels.moved_from(&master) => Err(Error::new(
                ErrorKind::Connection,
                format!("{master} stopped being the master while a connection was opened"),
            )),
        }
    }

    /// Returns whether a connection to `address` leads to the server that should be used now.
    pub(super) fn still_means(&self, address: &Address) -> bool {
        self.sentinels
            .as_ref()
            .and_then(Sentinels::master)
            .is_none_or(|master| master.address == *address)
    }

    /// Opens a connection to whichever address of the host answers first as it should.
    async fn open_at(
        &self,
        address: &Address,
        expected: Expected,
        pushes: Option<&Pushes>,
    ) -> Result<Opened, Error> {
        let deadline = Instant::now() + self.connect_timeout;
        let pass = &self.gate.pass(self.connect_timeout).await?;
        let addresses = match address {
            Address::Unix(_) => {
                return self
                    .try_at(address, None, pass, deadline, expected, pushes)
                    .await;
            }
            Address::Tcp(host, port) => self.addresses_of(address, host, *port).await?,
        };
        let has_several = addresses.len() > 1;
        let addresses = self.favourites.order(address, addresses);
        let attempt = |socket| self.try_at(address, Some(socket), pass, deadline, expected, pushes);
        let (socket, opened) = race::race(addresses, self.connect_timeout, attempt)
            .await
            .map_err(|failures| race::none_of(address, failures))?;
        if has_several {
            self.favourites.worked(address, socket);
        }
        Ok(opened)
    }

    async fn try_at(
        &self,
        address: &Address,
        socket: Option<SocketAddr>,
        pass: &Pass,
        deadline: Instant,
        expected: Expected,
        pushes: Option<&Pushes>,
    ) -> Result<Opened, Error> {
        let newest = pass.session.clone().set_protocol(ProtocolVersion::RESP3);
        let tls = pass.tls.as_ref();
        let traffic = Arc::default();
        let observed = |socket| Observed::new(socket, Arc::clone(&traffic));
        let wire = observed(self.reach(address, socket, tls, deadline).await?);
        let greeted = match self.greet(address, wire, &newest, pushes).await? {
            Err(error) if refuses_resp3(&error) && pushes.is_none() => {
                let wire = observed(self.reach(address, socket, tls, deadline).await?);
                self.greet(address, wire, &pass.session, None).await?
            }
            greeted => greeted,
        };
        let (mut link, mut driver) = greeted.map_err(|error| pass.refusal(address, &error))?;
        let introducing = timeout(
            self.greeting_timeout,
            self.introduce(&mut link, address, expected),
        );
        let introduction = tokio::select! {
            introduced = introducing => introduced.map_err(|_| silence(address, self.greeting_timeout))??,
            () = &mut driver => return Err(closed(address)),
        };
        Ok(Opened {
            link,
            driver,
            address: address.clone(),
            identity: introduction.identity.at(socket),
            evicts: introduction.evicts,
            compares: introduction.compares,
            traffic,
        })
    }

    /// All addresses of a host name.
    async fn addresses_of(
        &self,
        address: &Address,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Error> {
        #[cfg(test)]
        if let Some(addresses) = tests::addresses_of(host) {
            return Ok(addresses);
        }
        match timeout(self.connect_timeout, lookup_host((host, port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(unreachable(address, error)),
            Err(_) => Err(silence(address, self.connect_timeout)),
        }
    }

    /// Opens the socket and, where asked for, encrypts it.
    async fn reach(
        &self,
        address: &Address,
        socket: Option<SocketAddr>,
        tls: Option<&tls::Client>,
        deadline: Instant,
    ) -> Result<Box<dyn Wire>, Error> {
        let connect = async {
            let wire: Box<dyn Wire> = match (address, socket) {
                (Address::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
                (Address::Tcp(host, port), socket) => {
                    let socket = match socket {
                        Some(socket) => TcpStream::connect(socket).await?,
                        None => TcpStream::connect((host.as_str(), *port)).await?,
                    };
                    socket.set_nodelay(true)?;
                    SockRef::from(&socket).set_tcp_keepalive(&keepalive())?;
                    match tls {
                        None => Box::new(socket),
                        Some(tls) => Box::new(tls::encrypt(tls, host, socket).await?),
                    }
                }
            };
            Ok::<_, io::Error>(wire)
        };
        match timeout_at(deadline, connect).await {
            Ok(Ok(wire)) => Ok(wire),
            Ok(Err(error)) => match tls.and_then(|tls| tls.advice(&error)) {
                Some(advice) => Err(advised(address, &advice).because(error)),
                None => Err(unreachable(address, error)),
            },
            Err(_) => Err(silence(address, self.connect_timeout)),
        }
    }

    /// Sends protocol and credentials. The inner error is the answer of the server.
    async fn greet(
        &self,
        address: &Address,
        wire: impl Wire + 'static,
        session: &RedisConnectionInfo,
        pushes: Option<&Pushes>,
    ) -> Result<Result<Greeted, RedisError>, Error> {
        // Redis-rs's own timer per request costs 7 to 17 % of throughput; every operation is timed from outside.
        let mut config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        if let Some(pushes) = pushes.cloned() {
            config = config.set_push_sender(move |push| {
                pushes(push);
                Ok::<_, Infallible>(())
            });
        }
        let greeting = MultiplexedConnection::new_with_config(session, wire, config);
        match timeout(self.greeting_timeout, greeting).await {
            Ok(Ok((link, driver))) => Ok(Ok((link, Box::pin(driver)))),
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => Err(silence(address, self.greeting_timeout)),
        }
    }
}

/// A vanished peer is noticed after 30 s, even if nothing is sent.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
}

fn unreachable(address: &Address, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!("cannot connect to {address}"),
    )
    .because(error)
}

/// Like [`unreachable`], where it is known what to do.
fn advised(address: &Address, advice: &str) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!("cannot connect to {address}: {advice}"),
    )
}

fn silence(address: &Address, after: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("{address} did not answer within {after:?}"),
    )
}

fn closed(address: &Address) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!("{address} closed the connection"),
    )
}

#[cfg(test)]
mod tests;
