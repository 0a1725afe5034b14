//! An example as a process.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cache_runtime::testing::RedisServer;
use serde_json::Value;

/// How long an example may take to print a line, to run or to end. Only a hanging one takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Program {
    command: Command,
}

impl Program {
    pub(crate) fn new(example: &str) -> Self {
        let mut command = Command::new(path(example));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CACHE_") || name.contains("REDIS") {
                command.env_remove(&*name);
            }
        }
        command.env("BIND", "127.0.0.1:0").stdout(Stdio::piped());
        Self { command }
    }

    pub(crate) fn redis(self, server: &RedisServer) -> Self {
        self.env("REDIS_URL", &server.url())
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end and returns the lines that it printed.
    pub(crate) fn run(self) -> Vec<String> {
        let (status, lines) = self.end();
        assert!(status.success(), "{status}: {lines:?}");
        lines
    }

    /// Runs it to its end, which may be a failure.
    pub(crate) fn end(self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let (mut running, receiver) = self.spawn();
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the example hangs: {running:?}"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        (running.ended(), running.lines())
    }

    /// Starts it, and waits until it has printed a line that begins with `ready`.
    pub(crate) fn start(self, ready: &str) -> Running {
        let (mut running, receiver) = self.spawn();
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(ready) => {
                    running.url = line.rsplit(' ').next().unwrap_or_default().to_owned();
                    return running;
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the example hangs: {running:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the example ended: {running:?}"),
            }
        }
    }

    /// Starts an HTTP server.
    pub(crate) fn serve(self) -> Running {
        self.start("listening on ")
    }

    fn spawn(mut self) -> (Running, Receiver<String>) {
        let mut child = self.command.spawn().expect("the example starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&lines);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                shared.lock().expect("the lines").push(line.clone());
                // After the start, nobody receives it.
                drop(sender.send(line));
            }
        });
        let running = Running {
            child,
            lines,
            url: String::new(),
        };
        (running, receiver)
    }
}

/// Cargo builds the examples of a crate before it runs all tests, but not before it runs one that is chosen with `--test`.
fn path(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let built = test
        .ancestors()
        .nth(2)
        .expect("the directory of the build")
        .join("examples")
        .join(example);
    assert!(
        built.exists(),
        "`{}` is not built: run `cargo test -p recipes`",
        built.display()
    );
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(format!("{example}.rs"));
    assert!(
        modified(&built) >= modified(&source),
        "`{}` is older than its source: run `cargo test -p recipes`, or `cargo build -p recipes --examples` first",
        built.display()
    );
    built
}

fn modified(file: &Path) -> SystemTime {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// An example that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) url: String,
}

impl Running {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("the lines").clone()
    }

    /// Returns whether it has printed this line.
    pub(crate) fn said(&self, line: &str) -> bool {
        self.lines().iter().any(|said| said == line)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let mut kill = Command::new("kill");
        let sent = kill.args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("`kill` runs").success());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {self:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask("GET", path, None, None)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        self.ask(method, path, Some(body), None)
    }

    /// Sends an empty `POST` as a user.
    pub(crate) fn post_as(&self, user: &str, path: &str) -> Response {
        self.ask("POST", path, None, Some(user))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>, user: Option<&str>) -> Response {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        let mut request = request.header("content-type", "application/json");
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(body).expect("a request");
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut response = agent.run(request).expect("a response");
        let body = response.body_mut().read_to_string().expect("text");
        Response {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body,
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("lines", &self.lines())
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}
