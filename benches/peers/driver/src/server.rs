//! A `redis-server` of this run: on a free port of 127.0.0.1, empty, without persistence.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;

/// A server usually answers after 20 ms.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Another process can take a free port before the server does. Twice in a row is unlikely.
const PORT_ATTEMPTS: u32 = 5;

/// A running server. It ends when this is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    process: Child,
    /// Kills the process when the driver has ended without dropping this.
    watchdog: Child,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut attempt = 1;
        loop {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            match Self::start_on(address) {
                Err(_) if attempt < PORT_ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    /// Starts a server on its own core, if there are two.
    pub(crate) fn start_pinned() -> Result<Self> {
        let server = Self::start()?;
        if machine::can_pin() {
            let [_, core] = machine::two_cores();
            let pid = server.process.id().to_string();
            machine::output("taskset", &["-acp", &core.to_string(), &pid]);
        }
        Ok(server)
    }

    fn start_on(address: SocketAddr) -> Result<Self> {
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start redis-server, which must be installed")?;
        let watchdog = Command::new("sh")
            .args([
                "-c",
                r#"read -r _; kill -KILL "$0""#,
                &process.id().to_string(),
            ])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start the watchdog of redis-server")?;
        let mut server = Self {
            address,
            process,
            watchdog,
        };
        let began = Instant::now();
        while server.ask("PING").is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("redis-server ended: {status}");
            }
            ensure!(
                began.elapsed() < START_LIMIT,
                "redis-server does not answer"
            );
            sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Returns a field of `INFO server`.
    pub(crate) fn info(&self, name: &str) -> Result<String> {
        let mut lines = self.ask("INFO server")?;
        // The bulk reply ends with an empty line.
        loop {
            let mut line = String::new();
            ensure!(
                lines.read_line(&mut line)? > 0,
                "the server does not tell its {name}"
            );
            match line.split_once(':') {
                Some((field, value)) if field == name => return Ok(value.trim().to_owned()),
                _ => {}
            }
        }
    }

    /// Sends a command, and returns what follows if the reply is no error.
    fn ask(&self, command: &str) -> Result<BufReader<TcpStream>> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(connection, "{command}\r\n")?;
        let mut reply = BufReader::new(connection);
        let mut first = String::new();
        reply.read_line(&mut first)?;
        ensure!(first.starts_with(['+', '$']), "{command}: {first}");
        Ok(reply)
    }

    /// Kills the process. Connections close, and later ones are refused.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts an empty server on the same port.
    pub(crate) fn restart(&mut self) -> Result<()> {
        *self = Self::start_on(self.address)?;
        Ok(())
    }

    /// Freezes the process: the system accepts connections, but nobody answers.
    pub(crate) fn stop(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Ends [`stop`](Self::stop).
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.process.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()?;
        ensure!(status.success(), "`kill -{signal}` failed");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watchdog first: the process may have ended, and its number may be another's.
        for child in [&mut self.watchdog, &mut self.process] {
            // Both fail only if it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
