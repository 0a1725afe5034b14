//! The example service, built for release, in a process of its own.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What the database takes longer for each read.
const SLOW_DB_MS: &str = "20";

/// Where a service caches.
pub(crate) enum Caching {
    Off,
    Memory,
    Redis(String),
}

pub(crate) struct Service {
    process: Child,
    pub(crate) address: SocketAddr,
    lines: Arc<AtomicU64>,
}

/// Builds the service beside this benchmark.
pub(crate) fn build() -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "event-service"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    ensure!(status.success(), "the service does not build");
    Ok(())
}

fn path() -> Result<PathBuf> {
    let benchmark = env::current_exe()?;
    let release = benchmark.ancestors().nth(2);
    Ok(release
        .context("a benchmark is two folders deep")?
        .join("event-service"))
}

impl Service {
    /// Starts it on a free port, with every limit raised, and waits until it listens.
    pub(crate) fn start(caching: Caching) -> Result<Self> {
        let mut command = Command::new(path()?);
        command
            .env("BIND", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .env("INSECURE_COOKIE", "1")
            .env("SLOW_DB_MS", SLOW_DB_MS)
            .env("MAX_CONNECTIONS", "20000")
            .env("MAX_CONNECTIONS_PER_ADDRESS", "20000")
            // All requests come from one address, which as a proxy may have all connections.
            .env("TRUSTED_PROXIES", "127.0.0.1")
            .env("CACHE_LIMIT_API", "1000000000/1s")
            .env("CACHE_LIMIT_AUTH", "1000000000/1s")
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdout(Stdio::piped());
        match caching {
            Caching::Off => command.env("CACHE_DISABLED", "*"),
            Caching::Memory => &mut command,
            Caching::Redis(url) => command.env("REDIS_URL", url),
        };
        let mut process = command.spawn().context("the service does not start")?;
        let output = process.stdout.take().context("its output is piped")?;
        let lines = Arc::new(AtomicU64::new(0));
        let (found, listening) = mpsc::channel();
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.fetch_add(1, Ordering::Relaxed);
                    if let Some(address) = address_in(&line) {
                        // Nobody waits for a second one.
                        let _ = found.send(address);
                    }
                }
            }
        });
        let address = listening
            .recv_timeout(Duration::from_secs(30))
            .context("the service does not listen")?;
        Ok(Self {
            process,
            address,
            lines,
        })
    }

    /// The number of lines that it has logged.
    pub(crate) fn log_lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http://")?;
    rest.split(',').next()?.parse().ok()
}

impl Drop for Service {
    /// Tells it to stop, so that it removes its database.
    fn drop(&mut self) {
        let told = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
