//! A `redis-server` process for one test.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::config::{Address, Config};

/// The variable that names another binary in place of `redis-server`.
const BINARY_VARIABLE: &str = "CACHE_TEST_REDIS_SERVER";

/// A server usually answers after 20 ms. On a busy machine it can take seconds.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Another process can take a free port before the server does. Twice in a row is unlikely.
const PORT_ATTEMPTS: u32 = 5;

/// A real Redis server for one test. It is empty at first, and has no persistence unless its arguments enable it.
///
/// When this is dropped, also by a panic, the server ends and its directory is removed.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::testing::RedisServer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut server = RedisServer::start()?;
/// let cache = Cache::connect(server.config()).await?;
/// assert!(cache.set("stock:7", &12, 60).await);
///
/// server.kill();
/// assert!(cache.try_get::<i32>("stock:7").await.is_err());
/// server.restart()?; // empty, at the same address
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the server ends when it is dropped"]
pub struct RedisServer {
    directory: Directory,
    arguments: Vec<String>,
    endpoint: Endpoint,
    process: Option<Child>,
}

/// The options of a [`RedisServer`].
///
/// ```
/// use cache_runtime::testing::RedisServer;
///
/// # fn main() -> std::io::Result<()> {
/// let server = RedisServer::builder()
///     .tcp()
///     .password("secret")
///     .args(["--maxmemory", "10mb"])
///     .start()?;
/// assert!(server.url().starts_with("redis://:secret@127.0.0.1:"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct RedisServerBuilder {
    tcp: bool,
    password: Option<String>,
    arguments: Vec<String>,
}

impl RedisServerBuilder {
    /// Listens on a free port of 127.0.0.1 instead of on a socket in the file system.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Sets the password of the default user.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds arguments to the command line, such as `["--maxmemory", "1mb"]`.
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// If the binary is missing, or if the server ended or did not answer. The error contains the end of its log.
    pub fn start(self) -> io::Result<RedisServer> {
        let Self {
            tcp,
            password,
            arguments,
        } = self;
        let mut attempt = 1;
        loop {
            let directory = Directory::new()?;
            let address = if tcp {
                Address::Tcp("127.0.0.1".into(), free_port()?)
            } else {
                Address::Unix(directory.path.join("redis.sock"))
            };
            let endpoint = Endpoint {
                address,
                password: password.clone(),
            };
            let mut server = RedisServer {
                directory,
                arguments: arguments.clone(),
                endpoint,
                process: None,
            };
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(error) if error.kind() == ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl RedisServer {
    /// Starts a server on a Unix socket in its own directory, so it needs no port.
    ///
    /// # Errors
    ///
    /// The same as [`RedisServerBuilder::start`].
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The same as [`RedisServerBuilder::start`].
    pub fn tcp() -> io::Result<Self> {
        Self::builder().tcp().start()
    }

    /// Returns a builder, for a server with a password, arguments or a port.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// Returns `redis://…` or `redis+unix://…` with the password.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Returns the address of the server.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Returns the default configuration with the prefix `test_` and this server.
    pub fn config(&self) -> Config {
        self.endpoint.config()
    }

    /// Kills the process like a crash (SIGKILL). Connections close, and later ones are refused.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only if the process has already ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Restarts the server at the same address, and kills it first if it still runs. It is empty unless its arguments enable
    /// persistence, such as `["--appendonly", "yes"]`.
    ///
    /// # Errors
    ///
    /// The same as [`RedisServerBuilder::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.launch()
    }

    /// Restarts the server like [`restart`](Self::restart), but removes its data on disk first.
    ///
    /// # Errors
    ///
    /// The same as [`RedisServerBuilder::start`]. Also if the data on disk cannot be removed.
    pub fn restart_empty(&mut self) -> io::Result<()> {
        self.kill();
        for file in fs::read_dir(&self.directory.path)? {
            let path = file?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if path != self.log() {
                fs::remove_file(path)?;
            }
        }
        self.launch()
    }

    /// Freezes the process (SIGSTOP). The system still accepts connections, but the server does not answer.
    ///
    /// # Errors
    ///
    /// If the server is not running.
    pub fn stop(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Resumes a frozen process (SIGCONT). It then handles everything that was sent while it was frozen.
    ///
    /// # Errors
    ///
    /// If the server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Removes every key of every database.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn flush(&self) -> io::Result<()> {
        let mut connection = self.connection().map_err(Error::other)?;
        redis::cmd("FLUSHALL")
            .exec(&mut connection)
            .map_err(Error::other)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the number of the process, unless it was killed.
    pub(super) fn process(&self) -> Option<u32> {
        self.process.as_ref().map(std::process::Child::id)
    }

    /// Returns where the server keeps its data and its log.
    pub(super) fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// Returns whether the process was started and not killed. It may be frozen.
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn launch(&mut self) -> io::Result<()> {
        let binary = binary();
        let child = self
            .command(&binary)?
            .spawn()
            .map_err(|error| not_started(&binary, &error))?;
        let process = self.process.insert(child).id();

        let deadline = Instant::now() + START_LIMIT;
        let mut pause = Duration::from_millis(2);
        while !self.answers_as(process) {
            let ended = self
                .process
                .as_mut()
                .and_then(|child| child.try_wait().transpose())
                .transpose()?;
            if let Some(status) = ended {
                return Err(self.failure(&format!("`{binary}` ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(
                    self.failure(&format!("`{binary}` did not answer within {START_LIMIT:?}"))
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    fn command(&self, binary: &str) -> io::Result<Command> {
        let mut command = Command::new(binary);
        match &self.endpoint.address {
            Address::Tcp(host, port) => command.args(["--bind", host, "--port", &port.to_string()]),
            Address::Unix(path) => command.args(["--port", "0", "--unixsocket"]).arg(path),
        };
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command
            .arg("--dir")
            .arg(&self.directory.path)
            .arg("--logfile")
            .arg(self.log());
        if let Some(password) = &self.endpoint.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.arguments);
        // The server reports invalid arguments before it opens the log.
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    /// Returns whether this server answers at its address and has loaded its data. If another process took the port first, another
    /// server would answer.
    fn answers_as(&self, process: u32) -> bool {
        let info: redis::RedisResult<String> = self.connection().and_then(|mut connection| {
            redis::cmd("INFO")
                .arg(&["server", "persistence"])
                .query(&mut connection)
        });
        info.is_ok_and(|info| {
            let says = |line: &str| info.lines().any(|other| other == line);
            says(&format!("process_id:{process}")) && !says("loading:1")
        })
    }

    pub(super) fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let limit = Duration::from_secs(5);
        let connection = redis::Client::open(self.url())?.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        Ok(connection)
    }

    fn failure(&self, what: &str) -> Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let kind = if log.contains("Address already in use") {
            ErrorKind::AddrInUse
        } else {
            ErrorKind::Other
        };
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        Error::new(kind, format!("{what}; its log ends with: {last}"))
    }

    fn log(&self) -> PathBuf {
        self.directory.path.join("redis.log")
    }

    /// Sends a signal with the `kill` of the shell, because small images have no such program. The system does not reuse the
    /// number of the process while its handle is open.
    fn signal(&self, name: &str) -> io::Result<()> {
        let process = self
            .process
            .as_ref()
            .ok_or_else(|| Error::other("the server is not running; call `restart` first"))?;
        let script = format!("kill -{name} {}", process.id());
        let status = Command::new("sh").args(["-c", &script]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::other(format!("`{script}` ended with {status}")))
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is removed on drop.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // The path of a socket can have only about 100 bytes.
            let path =
                std::env::temp_dir().join(format!("redis-test-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                // Left by a killed process whose number was reused.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A leftover in the temporary directory is harmless. A panic during a panic is not.
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns the program that is started.
pub(crate) fn binary() -> String {
    std::env::var(BINARY_VARIABLE).unwrap_or_else(|_| "redis-server".into())
}

fn not_started(binary: &str, error: &Error) -> Error {
    let advice = if error.kind() == ErrorKind::NotFound && !Path::new(binary).is_absolute() {
        format!(
            "install it, e.g. `apt-get install redis-server` or `brew install redis`, or name one in {BINARY_VARIABLE}"
        )
    } else {
        format!("check that {BINARY_VARIABLE} names an executable program")
    };
    Error::new(
        error.kind(),
        format!("`{binary}` could not be started ({error}); {advice}"),
    )
}

#[cfg(test)]
mod tests;
