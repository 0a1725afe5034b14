//! A Redis with a replica and three sentinels, all of them with TLS and passwords.
//!
//! They also listen without TLS, on other ports, for the questions of the tests. The sentinels name only the ports with TLS.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use cache_runtime::testing::RedisServer;
use redis::FromRedisValue;
use tempfile::TempDir;

use crate::support::until;

pub(crate) const MASTER: &str = "requirements";
pub(crate) const REDIS_PASSWORD: &str = "password-of-redis";
pub(crate) const SENTINEL_PASSWORD: &str = "password-of-sentinels";

/// Another process can take a free port before the server does. Twice in a row is unlikely.
const PORT_ATTEMPTS: usize = 5;

pub(crate) struct Sentinels {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    sentinels: Vec<Sentinel>,
    folder: TempDir,
}

pub(crate) struct Server {
    pub(crate) redis: RedisServer,
    pub(crate) tls_port: u16,
}

struct Sentinel {
    process: Child,
    port: u16,
    tls_port: u16,
}

impl Sentinels {
    /// Starts all processes, and waits until each sentinel knows the replica and the other sentinels.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        certify(folder.path(), "ca", &["-subj", "/CN=authority"]);
        let signed = "-subj /CN=redis -CA ca.pem -CAkey ca.key -addext basicConstraints=CA:FALSE \
                      -addext subjectAltName=IP:127.0.0.1";
        let signed: Vec<_> = signed.split_whitespace().collect();
        certify(folder.path(), "redis", &signed);
        let master = Server::start(folder.path(), &[]);
        let follow = ["--replicaof", "127.0.0.1", &master.tls_port.to_string()];
        let replica = Server::start(folder.path(), &follow);
        let start = |number| Sentinel::start(folder.path(), number, master.tls_port);
        let started = Self {
            sentinels: (0..3).map(start).collect(),
            master,
            replica,
            folder,
        };
        until("the sentinels find each other and the replica", || {
            started
                .sentinels
                .iter()
                .all(|sentinel| sentinel.count("SENTINELS") == 2 && sentinel.count("REPLICAS") == 1)
                && started
                    .replica
                    .ask::<String>(&["INFO", "replication"])
                    .contains("link_status:up")
        });
        started
    }

    /// Returns the certificate of the authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the addresses for TLS, as in a URL.
    pub(crate) fn addresses(&self) -> String {
        let ports = self.sentinels.iter().map(|sentinel| sentinel.tls_port);
        ports
            .map(|port| format!("127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",")
    }
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        on_free_ports(|[tls_port]| Self::start_on(tls_port, folder, arguments))
    }

    /// Returns `None` if the port is in use.
    fn start_on(tls_port: u16, folder: &Path, arguments: &[&str]) -> Option<Self> {
        let redis = RedisServer::builder()
            .tcp()
            .password(REDIS_PASSWORD)
            .args([
                "--masterauth",
                REDIS_PASSWORD,
                "--tls-port",
                &tls_port.to_string(),
            ])
            .args(
                tls(folder)
                    .map(|(option, value)| [format!("--{option}"), value])
                    .concat(),
            )
            // Otherwise the replica gets its first copy 5 s later.
            .args(["--repl-diskless-sync-delay", "0"])
            .args(arguments.iter().copied());
        match redis.start() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            redis => Some(Self {
                redis: redis.expect("redis-server starts"),
                tls_port,
            }),
        }
    }

    /// Asks without TLS.
    pub(crate) fn ask<T: FromRedisValue>(&self, question: &[&str]) -> T {
        let client = redis::Client::open(self.redis.url());
        let mut connection = client
            .and_then(|client| client.get_connection())
            .expect("it runs");
        redis::cmd(question[0])
            .arg(&question[1..])
            .query(&mut connection)
            .expect("an answer")
    }
}

impl Sentinel {
    fn start(folder: &Path, number: usize, master: u16) -> Self {
        on_free_ports(|ports| Self::start_on(ports, folder, number, master))
    }

    /// Waits until the sentinel listens. Returns `None` if a port is in use.
    fn start_on(ports: [u16; 2], folder: &Path, number: usize, master: u16) -> Option<Self> {
        let [port, tls_port] = ports;
        let mut lines = vec![
            format!("port {port}"),
            format!("tls-port {tls_port}"),
            "bind 127.0.0.1".to_owned(),
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel monitor {MASTER} 127.0.0.1 {master} 2"),
            format!("sentinel auth-pass {MASTER} {REDIS_PASSWORD}"),
            // A machine that stalls for a moment is no reason for a failover.
            format!("sentinel down-after-milliseconds {MASTER} 5000"),
            format!("sentinel failover-timeout {MASTER} 3000"),
        ];
        lines.extend(tls(folder).map(|(option, value)| format!("{option} {value}")));
        // A sentinel writes its state into its configuration file.
        let file = folder.join(format!("sentinel-{number}.conf"));
        fs::write(&file, lines.join("\n") + "\n").expect("a file");
        let log = folder.join(format!("sentinel-{number}.log"));
        let program = std::env::var("CACHE_TEST_REDIS_SERVER");
        let process = Command::new(program.unwrap_or_else(|_| "redis-server".to_owned()))
            .arg(&file)
            .arg("--sentinel")
            .stdout(File::create(&log).expect("a file"))
            .spawn();
        let mut started = Self {
            process: process.expect("a sentinel starts"),
            port,
            tls_port,
        };
        let mut ended = None;
        let read_log = || fs::read_to_string(&log).expect("a log");
        until("the sentinel listens", || {
            ended = started.process.try_wait().expect("a child");
            ended.is_some() || read_log().contains("Sentinel ID is ")
        });
        if ended.is_some() {
            let log = read_log();
            assert!(log.contains("Address already in use"), "{log}");
            return None;
        }
        Some(started)
    }

    fn count(&self, what: &str) -> usize {
        let url = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{}", self.port);
        let connection = redis::Client::open(url).and_then(|client| client.get_connection());
        let Ok(mut connection) = connection else {
            return 0;
        };
        let listed: redis::RedisResult<Vec<redis::Value>> = redis::cmd("SENTINEL")
            .arg(&[what, MASTER])
            .query(&mut connection);
        listed.map_or(0, |listed| listed.len())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The options of TLS, for servers and for sentinels. Replicas and sentinels use it among each other, too.
fn tls(folder: &Path) -> [(&'static str, String); 5] {
    let file = |name: &str| folder.join(name).display().to_string();
    [
        ("tls-cert-file", file("redis.pem")),
        ("tls-key-file", file("redis.key")),
        ("tls-ca-cert-file", file("ca.pem")),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ]
}

/// Creates a certificate with a key.
fn certify(folder: &Path, name: &str, arguments: &[&str]) {
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(request.split(' '))
        .args(arguments)
        .args([
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ])
        .output();
    let made = made.expect("`openssl` is installed");
    assert!(made.status.success(), "{made:?}");
}

/// Starts a process on free ports, and on others if it returns `None` because one of them is in use.
fn on_free_ports<const N: usize, T>(start: impl Fn([u16; N]) -> Option<T>) -> T {
    let mut attempts = (0..PORT_ATTEMPTS).map(|_| start([(); N].map(|()| free_port())));
    attempts.find_map(|started| started).expect("a free port")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
