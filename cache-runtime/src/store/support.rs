//! Helpers for the tests of the stores.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::FromRedisValue;

use crate::config::Config;
use crate::error::Error;
use crate::key::Key;
use crate::metrics::{PoolStats, StoreStats};
use crate::store::Store;
use crate::testing::{Directory, RedisServer, free_port};

/// Operations of tests on a single entry.
pub(crate) trait SingleEntry: Store {
    /// Stores without a condition.
    async fn set(&self, key: &Key, entry: &[u8], ttl: Duration) -> Result<(), Error> {
        self.set_many(&[(key.clone(), entry.to_vec())], ttl).await
    }

    /// Returns the remaining TTL of the entry.
    async fn ttl(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let measured = self.measure(key).await?;
        Ok(measured.map(|(_, left)| left))
    }
}

impl<S: Store + ?Sized> SingleEntry for S {}

/// Starts a server with these arguments.
pub(super) fn server_with(arguments: &[&str]) -> RedisServer {
    RedisServer::builder()
        .args(arguments.iter().copied())
        .start()
        .unwrap()
}

pub(crate) fn server() -> RedisServer {
    server_with(&[])
}

/// Returns the configuration for `server`, with a timeout for busy machines.
pub(crate) fn config(server: &RedisServer) -> Config {
    Config {
        command_timeout: Duration::from_secs(2),
        ..server.config()
    }
}

/// Sends a command to the server without the store.
pub(crate) fn ask<T: FromRedisValue>(server: &RedisServer, command: &[&str]) -> T {
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    ::redis::cmd(command[0])
        .arg(&command[1..])
        .query(&mut connection)
        .unwrap()
}

/// Ends the connections that listen for changes, as the server does for a client that reads too slowly.
pub(crate) fn kill_listener(server: &RedisServer) {
    let clients: String = ask(server, &["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
        let value = fields.find_map(|(field, value)| (field == name).then(|| value.to_owned()));
        value.unwrap_or_default()
    };
    // `B`: it tracks in the mode of broadcasts.
    let listeners = clients
        .lines()
        .filter(|line| field(line, "flags").contains('B'));
    let killed =
        listeners.map(|line| -> u32 { ask(server, &["CLIENT", "KILL", "ID", &field(line, "id")]) });
    assert!(killed.sum::<u32>() > 0, "nothing listens: {clients}");
}

/// A server with a self-signed certificate for `localhost`.
pub(super) struct TlsServer {
    pub(super) server: RedisServer,
    pub(super) authority: PathBuf,
    pub(super) port: u16,
    _directory: Directory,
}

impl TlsServer {
    /// Starts it with a certificate for servers only.
    pub(super) fn start() -> Self {
        Self::with(&["-addext", "basicConstraints=critical,CA:FALSE"])
    }

    /// Starts it with the default certificate of `openssl req -x509`, which is one of an authority.
    pub(super) fn start_as_authority() -> Self {
        Self::with(&[])
    }

    fn with(extensions: &[&str]) -> Self {
        let directory = Directory::new().unwrap();
        let [key, authority] = ["key.pem", "cert.pem"].map(|name| directory.path.join(name));
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(extensions)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&authority)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let port = free_port().unwrap();
        let text = |path: &Path| path.display().to_string();
        let server = RedisServer::builder()
            .args(["--tls-port".into(), port.to_string()])
            .args(["--tls-auth-clients", "no"])
            .args(["--tls-key-file".into(), text(&key)])
            .args(["--tls-cert-file".into(), text(&authority)])
            .args(["--tls-ca-cert-file".into(), text(&authority)])
            .start()
            .unwrap();
        Self {
            server,
            authority,
            port,
            _directory: directory,
        }
    }
}

/// A sentinel for a master called `main`. Dropping this kills it.
pub(super) struct Sentinel {
    process: Child,
    _directory: Directory,
}

impl Sentinel {
    pub(super) fn start(port: u16, master: u16) -> Self {
        let directory = Directory::new().unwrap();
        // A sentinel needs a configuration file, and writes its state into it.
        let file = directory.path.join("sentinel.conf");
        std::fs::write(
            &file,
            format!("sentinel monitor main 127.0.0.1 {master} 1\n"),
        )
        .unwrap();
        let process = Command::new("redis-server")
            .arg(&file)
            .args(["--sentinel", "--port", &port.to_string(), "--dir"])
            .arg(&directory.path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Self {
            process,
            _directory: directory,
        };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "the sentinel does not answer");
            std::thread::sleep(POLL);
        }
        sentinel
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the connections of a store that has a pool.
pub(super) fn pool_of(store: &dyn Store) -> PoolStats {
    match store.stats() {
        StoreStats::Redis(pool) => *pool,
        StoreStats::Memory(_) => panic!("a store without connections"),
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::render("dev_", |key| {
        key.text(name);
    })
}

pub(super) fn cause(error: &Error) -> String {
    std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default()
}

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Polls until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !holds() {
        assert!(asked.elapsed() < PATIENCE, "not within 10 s: {what}");
        tokio::time::sleep(POLL).await;
    }
}
