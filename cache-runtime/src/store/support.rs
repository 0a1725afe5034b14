//! Helpers for the tests of the stores.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::FromRedisValue;

use crate::acl::AclPart;
#[cfg(any(feature = "limits", feature = "sessions"))]
use crate::cache::Cache;
use crate::config::Config;
use crate::error::Error;
use crate::key::Key;
use crate::metrics::{PoolStats, StoreStats};
use crate::shared;
use crate::store::redis::RedisStore;
use crate::store::{NodeState, Store};
use crate::testing::{Directory, RedisServer, binary, free_port};

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
    patient(shared::config(server))
}

/// Adds a timeout for busy machines.
pub(crate) fn patient(config: Config) -> Config {
    Config {
        command_timeout: Duration::from_secs(2),
        ..config
    }
}

/// Connects, and waits until callers may use all primaries of a cluster.
#[cfg(any(feature = "limits", feature = "sessions"))]
pub(crate) async fn connect(config: Config) -> Cache {
    let cache = Cache::connect(config).await.unwrap();
    until("all nodes of a cluster are used", || {
        let mut nodes = cache.nodes().into_iter();
        nodes.all(|node| node.state == NodeState::Connected)
    })
    .await;
    cache
}

/// Opens a store on a cluster, and waits until callers may use all primaries.
pub(super) async fn open_all_nodes(config: &Config) -> RedisStore {
    let store = RedisStore::new(config).unwrap();
    for _ in 0..100 {
        store.probe().await.unwrap();
        store.admit(store.term());
        let mut nodes = store.nodes().into_iter();
        if nodes.all(|node| node.state == NodeState::Connected) {
            return store;
        }
    }
    panic!("not connected: {:?}", store.nodes());
}

/// Starts a server with a user that may run only the commands that this crate needs, so that tests show what these are.
pub(crate) fn server_with_user(arguments: &[&str]) -> RedisServer {
    shared::begin_empty();
    let every = [
        AclPart::Entries,
        AclPart::Local,
        AclPart::Limits,
        AclPart::Sessions,
    ];
    let rules = Config::default().acl_rule().only(&every).rules();
    // Tests use several prefixes.
    let rules = rules.into_iter().filter(|rule| !rule.starts_with('~'));
    // In the arguments, so that a server that starts again still has it.
    RedisServer::builder()
        .args(["--user", "app"])
        .args(rules.chain(["~*".to_owned()]))
        .args(arguments.iter().copied())
        .start()
        .unwrap()
}

/// Returns the configuration with that user.
pub(crate) fn as_user(config: Config) -> Config {
    config.username("app").password("password")
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

/// A server with a certificate for `localhost`.
pub(super) struct TlsServer {
    pub(super) server: RedisServer,
    /// The certificate to trust.
    pub(super) authority: PathBuf,
    pub(super) port: u16,
    _directory: Directory,
}

impl TlsServer {
    /// Starts it with a self-signed certificate for servers only. Returns [`None`] if the server was built without TLS.
    pub(super) fn start() -> Option<Self> {
        Self::self_signed(&["-addext", "basicConstraints=critical,CA:FALSE"])
    }

    /// Starts it with the default certificate of `openssl req -x509`, which is one of an authority.
    pub(super) fn start_as_authority() -> Option<Self> {
        Self::self_signed(&[])
    }

    fn self_signed(arguments: &[&str]) -> Option<Self> {
        let directory = Directory::new().unwrap();
        let papers = certify(&directory.path, "localhost", arguments);
        let authority = papers.certificate.clone();
        Self::with(directory, &papers, authority, "no")
    }

    /// Starts it with a certificate of `authority`. Clients must show one of the same authority.
    pub(super) fn start_for_clients_of(authority: &Authority) -> Option<Self> {
        let papers = authority.issue("localhost");
        Self::with(
            Directory::new().unwrap(),
            &papers,
            authority.certificate(),
            "yes",
        )
    }

    fn with(
        directory: Directory,
        papers: &Papers,
        authority: PathBuf,
        clients: &str,
    ) -> Option<Self> {
        let port = free_port().unwrap();
        let started = RedisServer::builder()
            .args(["--tls-port", &port.to_string()])
            .args(["--tls-auth-clients", clients])
            .args(papers.arguments())
            .args(["--tls-ca-cert-file", &text(&authority)])
            .start();
        let server = match started {
            Ok(server) => server,
            Err(error)
                if WITHOUT_TLS
                    .iter()
                    .any(|said| error.to_string().contains(said)) =>
            {
                eprintln!("skipped: this server was built without TLS");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        Some(Self {
            server,
            authority,
            port,
            _directory: directory,
        })
    }
}

/// What servers say that were built without TLS.
const WITHOUT_TLS: [&str; 2] = ["Bad directive", "Failed finding TLS support"];

/// A certificate and its key.
pub(super) struct Papers {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Papers {
    /// The arguments of a server with this certificate.
    pub(super) fn arguments(&self) -> [String; 4] {
        [
            "--tls-cert-file".to_owned(),
            text(&self.certificate),
            "--tls-key-file".to_owned(),
            text(&self.key),
        ]
    }
}

/// An authority that issues certificates for servers and clients.
pub(super) struct Authority {
    papers: Papers,
    directory: Directory,
}

impl Authority {
    pub(super) fn new() -> Self {
        let directory = Directory::new().unwrap();
        Self {
            papers: certify(&directory.path, "authority", &[]),
            directory,
        }
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.papers.certificate.clone()
    }

    /// Issues a certificate for this name.
    pub(super) fn issue(&self, name: &str) -> Papers {
        let [by, with] = [&self.papers.certificate, &self.papers.key].map(|path| text(path));
        let no_authority = ["-addext", "basicConstraints=critical,CA:FALSE"];
        let arguments = [&["-CA", &*by, "-CAkey", &*with], &no_authority[..]].concat();
        certify(&self.directory.path, name, &arguments)
    }
}

/// Creates a certificate with a key, signed by that key unless the arguments name another.
fn certify(directory: &Path, name: &str, arguments: &[&str]) -> Papers {
    let papers = Papers {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '))
        .args(["-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}")])
        .args(arguments)
        .arg("-keyout")
        .arg(&papers.key)
        .arg("-out")
        .arg(&papers.certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    papers
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A sentinel for a master called `main`. Dropping this kills it.
pub(super) struct Sentinel {
    process: Child,
    _directory: Directory,
}

impl Sentinel {
    pub(super) fn start(port: u16, master: u16) -> Self {
        Self::start_with(port, master, &[format!("port {port}")])
    }

    /// Starts it with these lines in its configuration, by which it listens at `port`.
    pub(super) fn start_with(port: u16, master: u16, lines: &[String]) -> Self {
        let directory = Directory::new().unwrap();
        // A sentinel needs a configuration file, and writes its state into it.
        let file = directory.path.join("sentinel.conf");
        let lines = lines.join("\n");
        std::fs::write(
            &file,
            format!("{lines}\nsentinel monitor main 127.0.0.1 {master} 1\n"),
        )
        .unwrap();
        let process = Command::new(binary())
            .arg(&file)
            .args(["--sentinel", "--dir"])
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
