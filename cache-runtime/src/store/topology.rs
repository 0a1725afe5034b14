//! Opens one connection: the only file that knows what stands behind an address.

#[cfg_attr(not(feature = "tls"), path = "topology/no_tls.rs")]
mod tls;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::reply;
use crate::config::{Address, Config, Topology};
use crate::error::{Error, ErrorKind};

/// Whatever carries bytes to the server.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Moves bytes between a link and its socket; ends when the socket closes.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that is ready for commands as soon as its driver runs.
pub(super) struct Opened {
    pub(super) link: MultiplexedConnection,
    pub(super) driver: Driver,
    pub(super) address: String,
}

/// Knows where the server is and how to introduce itself.
pub(super) struct Connector {
    topology: Topology,
    session: RedisConnectionInfo,
    tls: Option<tls::Client>,
    client_name: String,
    connect_timeout: Duration,
    greeting_timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the certificate authority, if there is one; opens nothing.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let Some(topology) = config.redis.clone() else {
            return Err(Error::new(
                ErrorKind::Config,
                "no Redis is configured; set `REDIS_URL`",
            ));
        };
        let mut session = RedisConnectionInfo::default()
            .set_db(config.database)
            .set_lib_name("cache-runtime", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &config.username {
            session = session.set_username(username);
        }
        if let Some(password) = &config.password {
            session = session.set_password(password.expose());
        }
        Ok(Self {
            topology,
            session,
            tls: tls::client(&config.tls)?,
            client_name: config.client_name.clone(),
            connect_timeout: config.connect_timeout,
            // A server that accepts and then says nothing for so many times what a command may take is of no use. Waiting
            // out the whole connect timeout would keep the cache away for that long after a frozen server is replaced.
            greeting_timeout: config
                .command_timeout
                .saturating_mul(10)
                .max(Duration::from_secs(1))
                .min(config.connect_timeout),
        })
    }

    /// Opens a connection to the server that takes writes.
    pub(super) async fn open(&self) -> Result<Opened, Error> {
        match &self.topology {
            Topology::Standalone(address) => self.open_at(address, false).await,
            Topology::Sentinel { sentinels, master } => {
                let address = self.find_master(sentinels, master).await?;
                self.open_at(&address, true).await
            }
        }
    }

    async fn open_at(&self, address: &Address, must_be_master: bool) -> Result<Opened, Error> {
        let newest = self.session.clone().set_protocol(ProtocolVersion::RESP3);
        let wire = self.reach(address, self.tls.as_ref()).await?;
        let greeted = match self.greet(address, wire, &newest).await? {
            Err(error) if refuses_resp3(&error) => {
                let wire = self.reach(address, self.tls.as_ref()).await?;
                self.greet(address, wire, &self.session).await?
            }
            greeted => greeted,
        };
        let (mut link, mut driver) = greeted.map_err(|error| refusal(address, &error))?;
        let introduction = timeout(
            self.greeting_timeout,
            self.introduce(&mut link, address, must_be_master),
        );
        tokio::select! {
            introduced = introduction => introduced.map_err(|_| silence(address, self.greeting_timeout))??,
            () = &mut driver => return Err(Error::new(ErrorKind::Connection, format!("{address} closed the connection"))),
        }
        Ok(Opened {
            link,
            driver,
            address: address.to_string(),
        })
    }

    /// Opens the socket and, where asked for, encrypts it.
    async fn reach(
        &self,
        address: &Address,
        tls: Option<&tls::Client>,
    ) -> Result<Box<dyn Wire>, Error> {
        let connect = async {
            let wire: Box<dyn Wire> = match address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Tcp(host, port) => {
                    let socket = TcpStream::connect((host.as_str(), *port)).await?;
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
        match timeout(self.connect_timeout, connect).await {
            Ok(Ok(wire)) => Ok(wire),
            Ok(Err(error)) => Err(Error::new(
                ErrorKind::Connection,
                format!("cannot connect to {address}"),
            )
            .because(error)),
            Err(_) => Err(silence(address, self.connect_timeout)),
        }
    }

    /// Protocol, credentials and database. The inner error is what the server answered to them.
    async fn greet(
        &self,
        address: &Address,
        wire: Box<dyn Wire>,
        session: &RedisConnectionInfo,
    ) -> Result<Result<(MultiplexedConnection, Driver), RedisError>, Error> {
        // Redis-rs's own timer per request costs 7 to 17 % of throughput; every operation is timed from outside.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let greeting = MultiplexedConnection::new_with_config(session, wire, config);
        match timeout(self.greeting_timeout, greeting).await {
            Ok(Ok((link, driver))) => Ok(Ok((link, Box::pin(driver)))),
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => Err(silence(address, self.greeting_timeout)),
        }
    }

    async fn introduce(
        &self,
        link: &mut MultiplexedConnection,
        address: &Address,
        must_be_master: bool,
    ) -> Result<(), Error> {
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.cmd("CLIENT").arg("SETNAME").arg(&self.client_name);
        if must_be_master {
            pipeline.cmd("ROLE");
        }
        let replies = link
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| refusal(address, &error))?;
        if let Some(Value::ServerError(error)) = replies.first() {
            // In RESP2 nothing before this asked for credentials where none were given.
            if error.code() == "NOAUTH" {
                return Err(refusal(address, &error.clone().into()));
            }
            // The name is for the people who read `CLIENT LIST`; a server that does not allow it is still a server.
            tracing::debug!(%address, error = reply::said(error), "Redis refused the client name");
        }
        if must_be_master && !replies.get(1).is_some_and(is_master) {
            let text = format!(
                "{address} is no master any more; the sentinels have not agreed on a new one yet"
            );
            return Err(Error::new(ErrorKind::Connection, text));
        }
        Ok(())
    }

    /// Asks the sentinels in their order; the first that knows is believed, because the master's role is checked.
    async fn find_master(&self, sentinels: &[Address], master: &str) -> Result<Address, Error> {
        let mut cause = None;
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, master).await {
                Ok(Some(address)) => return Ok(address),
                Ok(None) => {}
                Err(error) => cause = Some(error),
            }
        }
        let error = Error::new(
            ErrorKind::Connection,
            format!("no sentinel says where the master `{master}` is"),
        );
        Err(match cause {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Address,
        master: &str,
    ) -> Result<Option<Address>, Error> {
        let session = RedisConnectionInfo::default().set_skip_set_lib_name();
        let wire = self.reach(sentinel, None).await?;
        let (mut link, mut driver) = self
            .greet(sentinel, wire, &session)
            .await?
            .map_err(|error| refusal(sentinel, &error))?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let answer = tokio::select! {
            answer = timeout(self.greeting_timeout, link.send_packed_command(&question)) => {
                answer.map_err(|_| silence(sentinel, self.greeting_timeout))?
            }
            () = &mut driver => return Err(Error::new(ErrorKind::Connection, format!("{sentinel} closed the connection"))),
        };
        match answer.map_err(|error| refusal(sentinel, &error))? {
            Value::Array(parts) => Ok(address_of(&parts)),
            Value::ServerError(error) => Err(refusal(sentinel, &error.into())),
            _ => Ok(None),
        }
    }
}

/// A peer that vanished is noticed after half a minute even when nothing is sent.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
}

fn is_master(role: &Value) -> bool {
    matches!(role, Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master"))
}

fn address_of(parts: &[Value]) -> Option<Address> {
    let [Value::BulkString(host), Value::BulkString(port)] = parts else {
        return None;
    };
    let host = String::from_utf8(host.clone()).ok()?;
    let port = std::str::from_utf8(port).ok()?.parse().ok()?;
    Some(Address::Tcp(host, port))
}

/// Servers before 6 do not know the command, nor do those where it was renamed away.
fn refuses_resp3(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error
            .detail()
            .is_some_and(|detail| detail.starts_with("unknown command") && detail.contains("HELLO"))
}

fn silence(address: &Address, after: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("{address} did not answer within {after:?}"),
    )
}

/// What the server's answer to the greeting means. Its text is not passed on, because a server that does not know a command
/// repeats the command's arguments, which here are the credentials.
fn refusal(address: &Address, error: &RedisError) -> Error {
    let code = error.code().unwrap_or_default();
    let credentials = error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(code, "NOAUTH" | "WRONGPASS")
        || error.detail().is_some_and(|detail| detail.contains("AUTH"));
    if credentials {
        let text = format!(
            "Redis at {address} refused the credentials; check the user name and the password"
        );
        return Error::new(ErrorKind::Connection, text);
    }
    if error.is_io_error() {
        return Error::new(
            ErrorKind::Connection,
            format!("the connection to {address} broke"),
        )
        .because(error.to_string());
    }
    Error::new(
        ErrorKind::Command,
        format!(
            "Redis at {address} refused the connection's settings ({})",
            error.category()
        ),
    )
}

#[cfg(test)]
mod tests;
