//! A primary with replicas and sentinels for one test.

use std::fs;
use std::io::{self, Error};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::server::{Directory, RedisServer, binary, free_port};
use crate::config::{Address, Config, Topology};

/// The name of the primary in the sentinels.
const NAME: &str = "main";

/// Sentinels discover each other and the replicas by messages that are sent every 2 s.
const START_LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// A primary with two replicas, and three sentinels that replace it if it does not answer for 1 s. All of them are real processes
/// on free ports of 127.0.0.1. They end when this is dropped.
///
/// ```no_run
/// use cache_runtime::Cache;
/// use cache_runtime::testing::Sentinels;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sentinels = Sentinels::start()?;
/// let cache = Cache::connect(sentinels.config()).await?;
/// cache.set("stock:7", &12, 60).await;
///
/// let before = sentinels.primary()?.address().clone();
/// sentinels.failover()?;
/// sentinels.settle()?;
/// assert_ne!(sentinels.primary()?.address(), &before);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the servers end when this is dropped"]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

impl Sentinels {
    /// Starts all processes, and waits until each sentinel knows the replicas and the other sentinels. This takes some seconds.
    ///
    /// # Errors
    ///
    /// If a process does not start, or if the sentinels do not find each other in time.
    pub fn start() -> io::Result<Self> {
        let primary = RedisServer::tcp()?;
        let port = port_of(&primary)?;
        let mut servers = vec![primary];
        for _ in 0..2 {
            let replica = ["--replicaof", &format!("127.0.0.1 {port}")];
            // A promoted replica must be able to follow another primary later.
            servers.push(RedisServer::builder().tcp().args(replica).start()?);
        }
        let sentinels = (0..3)
            .map(|_| Sentinel::start(port))
            .collect::<io::Result<_>>()?;
        let started = Self { servers, sentinels };
        started.wait("the sentinels find each other", Self::are_complete)?;
        Ok(started)
    }

    /// Returns the default configuration with the prefix `test_` and these sentinels.
    pub fn config(&self) -> Config {
        Config {
            prefix: "test_".into(),
            redis: Some(Topology::Sentinel {
                sentinels: self
                    .sentinels
                    .iter()
                    .map(|sentinel| Address::Tcp("127.0.0.1".into(), sentinel.port))
                    .collect(),
                master: NAME.into(),
            }),
            ..Config::default()
        }
    }

    /// Returns the server that the sentinels name as the primary.
    ///
    /// # Errors
    ///
    /// If no sentinel answers, or if it names a server that is not one of these.
    pub fn primary(&self) -> io::Result<&RedisServer> {
        let port = self.named()?;
        let mut servers = self.servers.iter();
        servers
            .find(|server| port_of(server).is_ok_and(|of| of == port))
            .ok_or_else(|| Error::other("the sentinels name a server that is not one of these"))
    }

    /// Starts a failover (`SENTINEL FAILOVER`) and waits until the sentinels name another primary.
    ///
    /// # Errors
    ///
    /// If the sentinels refuse it or do not complete it in time.
    pub fn failover(&self) -> io::Result<()> {
        let before = self.named()?;
        self.wait("a failover begins", |sentinels| {
            let mut asked = sentinels.sentinels.iter();
            asked.any(|sentinel| sentinel.ask::<()>(&["FAILOVER", NAME]).is_ok())
        })?;
        self.wait("another primary is named", |sentinels| {
            sentinels.named().is_ok_and(|now| now != before)
        })
    }

    /// Kills the primary (SIGKILL) and returns immediately. The sentinels need more than 1 s to replace it.
    ///
    /// # Errors
    ///
    /// The same as [`primary`](Self::primary).
    pub fn kill_primary(&mut self) -> io::Result<()> {
        let port = self.named()?;
        let mut servers = self.servers.iter_mut();
        let primary = servers.find(|server| port_of(server).is_ok_and(|of| of == port));
        primary
            .ok_or_else(|| Error::other("the primary is no longer running"))?
            .kill();
        Ok(())
    }

    /// Waits until all sentinels agree on a primary that accepts writes and has a replica.
    ///
    /// # Errors
    ///
    /// If this does not happen in time.
    pub fn settle(&self) -> io::Result<()> {
        self.wait("the sentinels agree", |sentinels| {
            let Ok(port) = sentinels.named() else {
                return false;
            };
            let mut all = sentinels.sentinels.iter();
            all.all(|sentinel| sentinel.named().is_ok_and(|named| named == port))
                && sentinels.primary().is_ok_and(|primary| {
                    info(primary, "replication").is_some_and(|info| {
                        info.contains("role:master") && info.contains("state=online")
                    })
                })
        })
    }

    fn named(&self) -> io::Result<u16> {
        let mut last = Err(Error::other("there is no sentinel"));
        for sentinel in &self.sentinels {
            last = sentinel.named();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn are_complete(&self) -> bool {
        let others = self.sentinels.len() - 1;
        let replicas = self.servers.len() - 1;
        self.sentinels.iter().all(|sentinel| {
            let count = |what| {
                let listed: io::Result<Vec<redis::Value>> = sentinel.ask(&[what, NAME]);
                listed.map_or(0, |listed| listed.len())
            };
            count("SENTINELS") == others && count("REPLICAS") == replicas
        }) && info(&self.servers[0], "replication")
            .is_some_and(|info| info.matches("state=online").count() == replicas)
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !holds(self) {
            if Instant::now() > deadline {
                return Err(Error::other(format!("not within {START_LIMIT:?}: {what}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// A sentinel process. Dropping this kills it.
#[derive(Debug)]
struct Sentinel {
    process: Child,
    port: u16,
    _directory: Directory,
}

impl Sentinel {
    fn start(master: u16) -> io::Result<Self> {
        let directory = Directory::new()?;
        let port = free_port()?;
        // A sentinel needs a configuration file, and writes its state into it.
        let file = directory.path.join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("sentinel monitor {NAME} 127.0.0.1 {master} 2"),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 10000"),
        ];
        fs::write(&file, lines.join("\n") + "\n")?;
        let process = Command::new(binary())
            .arg(&file)
            .arg("--sentinel")
            .arg("--dir")
            .arg(&directory.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            process,
            port,
            _directory: directory,
        })
    }

    fn named(&self) -> io::Result<u16> {
        let (_, port): (String, u16) = self.ask(&["GET-MASTER-ADDR-BY-NAME", NAME])?;
        Ok(port)
    }

    fn ask<T: redis::FromRedisValue>(&self, question: &[&str]) -> io::Result<T> {
        let client = redis::Client::open(("127.0.0.1", self.port)).map_err(Error::other)?;
        let limit = Duration::from_secs(1);
        let mut connection = client
            .get_connection_with_timeout(limit)
            .map_err(Error::other)?;
        connection
            .set_read_timeout(Some(limit))
            .map_err(Error::other)?;
        redis::cmd("SENTINEL")
            .arg(question)
            .query(&mut connection)
            .map_err(Error::other)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn port_of(server: &RedisServer) -> io::Result<u16> {
    match server.address() {
        Address::Tcp(_, port) => Ok(*port),
        Address::Unix(_) => Err(Error::other("a server behind sentinels listens on a port")),
    }
}

fn info(server: &RedisServer, section: &str) -> Option<String> {
    let client = redis::Client::open(server.url()).ok()?;
    let mut connection = client
        .get_connection_with_timeout(Duration::from_secs(1))
        .ok()?;
    redis::cmd("INFO").arg(section).query(&mut connection).ok()
}
