//! A real Postgres, shared by the tests that run at the same time.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{env, fs};

use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::support::until;

/// A server on a Unix socket in a directory of its own. Dropping this stops it.
pub(crate) struct Postgres {
    process: Child,
    folder: TempDir,
}

impl Postgres {
    /// Returns the running server, or starts it. It ends with the last test that holds it.
    pub(crate) fn shared() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *running = Arc::downgrade(&started);
            started
        })
    }

    fn start() -> Self {
        let folder = TempDir::with_prefix("pg-").expect("a folder");
        let is_root = folder.path().metadata().expect("a folder").uid() == 0;
        if is_root {
            // Postgres refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let program = |name: &str| {
            let program = programs().join(name);
            if !is_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.arg(program);
            command
        };
        let data = folder.path().join("data");
        let options = ["--username=postgres", "--auth=trust", "--encoding=UTF8"];
        let options = [&options[..], &["--locale=C", "--no-sync"]].concat();
        run(program("initdb").args(options).arg("-D").arg(&data));
        let process = program("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            // Without a port, and without shared memory that a crash would leave behind.
            .args(["-c", "listen_addresses="])
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .args(["-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.expect("`postgres` starts");
        let mut started = Self { process, folder };
        let socket = started.folder.path().join(".s.PGSQL.5432");
        until("the socket of Postgres", || {
            let ended = started.process.try_wait().expect("a child");
            assert!(ended.is_none(), "`postgres` ended: {ended:?}");
            socket.exists()
        });
        started
    }

    /// Creates an empty database. Returns its `DATABASE_URL`.
    pub(crate) async fn create_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.path().display();
        let url = |name: &str| format!("postgres:///{name}?host={folder}&user=postgres");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut connection = loop {
            match PgConnection::connect(&url("postgres")).await {
                Ok(connection) => break connection,
                Err(error) if is_starting(&error) && Instant::now() < deadline => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("Postgres does not answer: {error}"),
            }
        };
        let statement = format!("CREATE DATABASE {name}");
        connection.execute(&*statement).await.expect("a database");
        url(&name)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: at once, but with its child processes. All of this fails only if it has already ended.
        let number = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &number]).status();
        let _ = self.process.wait();
    }
}

/// Returns whether the server may still start: it does not listen on its socket yet, or says so.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().as_deref() == Some("57P03"),
        _ => false,
    }
}

/// Returns the folder of `initdb` and `postgres`: one of the path, or the newest of Debian, which does not have it in the path.
fn programs() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let mut versions: Vec<_> = versions.collect();
    // As numbers: 9.6 is older than 16.
    versions.sort_by_cached_key(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let numbers = name.split('.').map(|part| part.parse::<u32>().ok());
        numbers.collect::<Vec<_>>()
    });
    let versions = versions.into_iter().rev();
    let versions = versions.map(|folder| folder.join("bin"));
    let mut folders = env::split_paths(&path).chain(versions);
    let found = folders.find(|folder| {
        ["initdb", "postgres"]
            .iter()
            .all(|name| folder.join(name).exists())
    });
    found.expect("Postgres is missing: install it, or run `tests/run`, which does it")
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
