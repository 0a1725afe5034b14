//! A `redis-server` process that belongs to one test.

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

/// Names another binary, in place of `redis-server`.
const BINARY_VARIABLE: &str = "CACHE_TEST_REDIS_SERVER";

/// A server answers after 20 ms; machines that build and test at once have been seen to need seconds.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Between asking the system for a free port and the server's taking it, somebody else can. Twice in a row is bad luck.
const PORT_ATTEMPTS: u32 = 5;

/// A real Redis server, empty at first and without persistence unless its arguments say otherwise, for one test.
///
/// It ends when this is dropped, and its directory is removed, also when the test panics.
#[derive(Debug)]
pub struct RedisServer {
    directory: Directory,
    arguments: Vec<String>,
    endpoint: Endpoint,
    process: Option<Child>,
}

/// What a [`RedisServer`] is started with.
#[derive(Clone, Debug, Default)]
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

    /// Requires this password of the default user.
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
    /// When the binary is missing, or the server ended or did not answer; its last words are in the error.
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
    /// On a socket in a directory of its own: no port that another test could take.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn tcp() -> io::Result<Self> {
        Self::builder().tcp().start()
    }

    /// With a password or with arguments.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// `redis://…` or `redis+unix://…`, with the password.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// The defaults with prefix `test_`, and this server.
    pub fn config(&self) -> Config {
        self.endpoint.config()
    }

    /// Ends the process as a crash would (SIGKILL). Connections close, and later ones are refused.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only for a process that has ended, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again at the same address, killing it first if it still runs. It is empty, unless its arguments made it keep
    /// its data on disk, such as `["--appendonly", "yes"]`.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.launch()
    }

    /// The same, without what it kept on disk.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`], or when what is on disk cannot be removed.
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

    /// Freezes the process (SIGSTOP): the system still accepts connections for it, and nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn stop(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets a frozen process go on (SIGCONT), with all that was sent meanwhile.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Removes every key of every database.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn flush(&self) -> io::Result<()> {
        let mut connection = self.connection().map_err(Error::other)?;
        redis::cmd("FLUSHALL")
            .exec(&mut connection)
            .map_err(Error::other)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn launch(&mut self) -> io::Result<()> {
        let binary = std::env::var(BINARY_VARIABLE).unwrap_or_else(|_| "redis-server".into());
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
        // Complaints about arguments come before the log is open.
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

    /// Whether a server answers at our address, with its data, and is ours: on a port that somebody else took first, another one
    /// would.
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

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
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

    /// By the shell's own `kill`, since small images have no program of that name. Our handle on the child keeps the
    /// system from giving its number to another process.
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

/// A directory that goes away with its owner.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // Short, since the path of a socket may have no more than 100 bytes or so.
            let path =
                std::env::temp_dir().join(format!("redis-test-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                // Left by a process that was killed and whose number came round again.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A leftover in the directory for temporary files harms nobody, a panic while panicking would.
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn not_started(binary: &str, error: &Error) -> Error {
    let advice = if error.kind() == ErrorKind::NotFound && !Path::new(binary).is_absolute() {
        format!(
            "install it, e.g. `apt-get install redis-server` or `brew install redis`, or name one in {BINARY_VARIABLE}"
        )
    } else {
        format!("see whether {BINARY_VARIABLE} names a program that can run")
    };
    Error::new(
        error.kind(),
        format!("`{binary}` could not be started ({error}); {advice}"),
    )
}

#[cfg(test)]
mod tests;
