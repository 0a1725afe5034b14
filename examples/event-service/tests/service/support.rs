//! Starts the service in its own process and sends requests to it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cache_runtime::testing::RedisServer;
use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response};

/// The default variables of all tests: limits that no test reaches, because waiting in a loop sends many requests; long timeouts,
/// because a late answer on a busy machine is not an outage; and a key, so that sessions outlive a process. Variables of a test
/// override these.
const USUAL: &[(&str, &str)] = &[
    ("CACHE_LIMIT_API", "1000000/60s"),
    ("CACHE_LIMIT_AUTH", "1000000/60s"),
    ("CACHE_LIMIT_ACCOUNT", "1000000/60s"),
    ("CACHE_LIMIT_PAYMENT", "1000000/60s"),
    PATIENCE,
    (
        "CACHE_SESSION_KEYS",
        "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ),
];

/// The longest time for an answer of Redis.
pub(crate) const PATIENCE: (&str, &str) = ("CACHE_COMMAND_TIMEOUT", "5s");

/// A running service. Dropping this stops it.
pub(crate) struct Service {
    process: Process,
    pub(crate) address: String,
    agent: Agent,
    output: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// A client that keeps the cookie of the service, like a browser.
pub(crate) struct Client<'a> {
    service: &'a Service,
    /// `name=value`, or empty without a cookie.
    cookie: Mutex<String>,
    /// The cookie that identifies a browser to an account.
    device: Mutex<String>,
}

/// A response of the service.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// Starts the service in memory mode.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts the service with a Redis.
    pub(crate) fn on(redis: &RedisServer) -> Self {
        Self::with(&[("REDIS_URL", &redis.url())])
    }

    /// Starts the service with these variables and the defaults, on a free port.
    pub(crate) fn with(environment: &[(&str, &str)]) -> Self {
        Self::of(
            Command::new(env!("CARGO_BIN_EXE_event-service")),
            environment,
        )
    }

    /// Starts the service in a process that may open only this many files.
    pub(crate) fn with_files(files: u32, environment: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("/bin/sh");
        let program = env!("CARGO_BIN_EXE_event-service");
        shell.args(["-c", &format!("ulimit -n {files} && exec {program}")]);
        Self::of(shell, environment)
    }

    fn of(command: Command, environment: &[(&str, &str)]) -> Self {
        let environment = [USUAL, environment, &[("BIND", "127.0.0.1:0")]].concat();
        let mut process = Process::spawn(command, &environment);
        let output = process.child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let output = Arc::new(Mutex::new(Vec::new()));
        let start = lines
            .by_ref()
            .inspect(|line| keep(&output, line))
            .find(|line| line.contains("listening on http://"));
        let start = start.expect("the service logs its address");
        let address = start
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .expect("an address");
        let reader = std::thread::spawn({
            let output = Arc::clone(&output);
            move || lines.for_each(|line| keep(&output, &line))
        });
        // One request per connection: a server may close an idle connection just when the next request is sent.
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(30)));
        Self {
            process,
            address: address.to_owned(),
            agent: agent.build().into(),
            output,
            reader: Some(reader),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    pub(crate) fn get_for(&self, client: &str, path: &str) -> Answer {
        self.send_for(client, "GET", path, None)
    }

    /// Sends a request like a proxy for this client, or like a client that claims to be a proxy.
    pub(crate) fn send_for(
        &self,
        client: &str,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        let request = self.request(method, path);
        self.run(request.header("x-forwarded-for", client), body)
    }

    /// Sends this JSON body unchanged.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.run(self.request(method, path), body)
    }

    /// Returns a client that is not logged in.
    pub(crate) fn client(&self) -> Client<'_> {
        self.client_with("")
    }

    /// Returns a client with this cookie.
    pub(crate) fn client_with(&self, cookie: &str) -> Client<'_> {
        Client {
            service: self,
            cookie: Mutex::new(cookie.to_owned()),
            device: Mutex::default(),
        }
    }

    /// Logs in as this user.
    pub(crate) fn log_in(&self, user: i64) -> Client<'_> {
        let client = self.client();
        let answer = client.log_in(user);
        assert_eq!(answer.status, 200, "{answer:?}");
        client
    }

    fn request(&self, method: &str, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
    }

    fn run(&self, request: Builder, body: Option<&str>) -> Answer {
        let response = match body {
            Some(body) => {
                let request = request
                    .header("content-type", "application/json")
                    .body(body.to_owned());
                self.agent.run(request.expect("a request"))
            }
            None => self.agent.run(request.body(()).expect("a request")),
        };
        Answer::read(response.expect("an answer"))
    }

    /// Returns the counters of all sites together.
    pub(crate) fn counts(&self) -> Value {
        self.get("/api/cache/stats").body["total"].take()
    }

    /// Returns the number of logged lines that contain this text.
    pub(crate) fn times_said(&self, text: &str) -> usize {
        let output = self.output.lock().expect("nobody panicked");
        output.iter().filter(|line| line.contains(text)).count()
    }

    /// Returns whether this text was logged.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        let output = self.output.lock().expect("nobody panicked");
        output.iter().any(|line| line.contains(text))
    }

    /// Returns the memory of the process in MiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id()));
        let status = status.expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|kib| kib.trim().strip_suffix(" kB"));
        resident.expect("a size").parse::<u64>().expect("a number") / 1024
    }

    /// Stops the service like a service manager.
    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill")
            .args(["-TERM", &self.process.child.id().to_string()])
            .status();
        assert!(killed.expect("there is `kill`").success());
    }

    /// Waits for the end. Returns the exit status and everything on standard output and standard error.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.process.child.wait().expect("a child of this process");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        let mut log = self.output.lock().expect("nobody panicked").join("\n");
        if let Some(errors) = &mut self.process.child.stderr {
            errors.read_to_string(&mut log).expect("UTF-8");
        }
        (status, log)
    }
}

impl Client<'_> {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    /// Sends this JSON body unchanged, with the cookies if there are any.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.run(self.service.request(method, path), body)
    }

    /// Sends a request like a proxy for this client.
    pub(crate) fn send_from(
        &self,
        address: &str,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        let request = self.service.request(method, path);
        self.run(request.header("x-forwarded-for", address), body)
    }

    /// Sends a request with these headers.
    pub(crate) fn send_with(&self, headers: &[(&str, &str)], method: &str, path: &str) -> Answer {
        self.send_with_body(headers, method, path, None)
    }

    /// Sends a request with these headers and this body.
    pub(crate) fn send_with_body(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        let mut request = self.service.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.run(request, body)
    }

    fn run(&self, mut request: Builder, body: Option<&str>) -> Answer {
        for cookie in [&self.cookie, &self.device] {
            let cookie = cookie.lock().expect("nobody panicked");
            if !cookie.is_empty() {
                request = request.header("cookie", &*cookie);
            }
        }
        let answer = self.service.run(request, body);
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().expect("ASCII");
            let (cookie, attributes) = set.split_once(';').expect("attributes");
            let kept = match attributes.contains("Max-Age=0") {
                true => "",
                false => cookie,
            };
            let place = match cookie.contains("device=") {
                true => &self.device,
                false => &self.cookie,
            };
            kept.clone_into(&mut place.lock().expect("nobody panicked"));
        }
        answer
    }

    pub(crate) fn log_in(&self, user: i64) -> Answer {
        self.send("POST", "/api/auth/login", Some(&credentials(user)))
    }

    /// Returns the cookie of the session as it is sent.
    pub(crate) fn cookie(&self) -> String {
        self.cookie.lock().expect("nobody panicked").clone()
    }
}

/// A process, and the folder of its temporary files. Dropping this kills it and removes the folder.
struct Process {
    child: Child,
    _folder: TempDir,
}

impl Process {
    /// Starts the binary of the service with these arguments and only these variables.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-service"));
        command.args(arguments);
        Self::spawn(command, environment)
    }

    fn spawn(mut command: Command, environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        command.env_clear().envs(environment.iter().copied());
        command.env("TMPDIR", folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            child: command.spawn().expect("the service is built"),
            _folder: folder,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// Returns all lines of this header joined.
    pub(crate) fn header(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().expect("ASCII")).collect();
        lines.join(", ")
    }

    fn read(mut response: Response<ureq::Body>) -> Self {
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let text = response.body_mut().read_to_string().expect("a body");
        let body = match &*text {
            "" => Value::Null,
            // Metrics, and the page for operators.
            _ if content_type.starts_with("text/") => Value::String(text),
            _ => serde_json::from_str(&text).expect("JSON"),
        };
        Self {
            status: response.status().as_u16(),
            content_type,
            headers: response.headers().clone(),
            body,
        }
    }
}

/// Returns the credentials of this user.
pub(crate) fn credentials(user: i64) -> String {
    format!(r#"{{"username": "user{user}", "password": "password{user}"}}"#)
}

/// Starts the service in an environment in which it cannot run. Returns its exit code and its standard error.
pub(crate) fn refused(environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let Ended { code, said, .. } = run(&[], environment);
    (code, said)
}

/// The output of a process that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
    /// The text on standard error.
    pub(crate) said: String,
}

/// Runs a command of the service to its end. Its output fits into a pipe.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let Process { child, .. } = &mut Process::start(arguments, environment);
    eventually("the end of the process", || {
        child.try_wait().expect("a child of this process").is_some()
    });
    let (mut printed, mut said) = (String::new(), String::new());
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_string(&mut printed).expect("UTF-8");
    let mut errors = child.stderr.take().expect("a pipe");
    errors.read_to_string(&mut said).expect("UTF-8");
    let code = child.wait().expect("the process has ended").code();
    Ended {
        code,
        printed,
        said,
    }
}

/// Polls until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        std::thread::yield_now();
    }
}

/// Returns the names of all entries, without limits and sessions, which are in Redis too.
pub(crate) fn entries(redis: &RedisServer) -> BTreeSet<String> {
    let mut redis = redis::Client::open(redis.url())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let keys: BTreeSet<String> = redis::cmd("KEYS").arg("*").query(&mut redis).expect("keys");
    keys.into_iter()
        .filter(|key| {
            !["dev_ratelimit:", "dev_session", "dev_cache:"]
                .iter()
                .any(|kind| key.starts_with(kind))
        })
        .collect()
}

/// Returns all keys and values: entries, limits and sessions.
pub(crate) fn everything_in(redis: &RedisServer) -> Vec<u8> {
    let mut redis = redis::Client::open(redis.url())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).expect("keys");
    assert!(!keys.is_empty());
    let values = keys.iter().flat_map(|key| {
        let kind: String = redis::cmd("TYPE").arg(key).query(&mut redis).expect("one");
        let value: redis::RedisResult<Vec<Vec<u8>>> = match &*kind {
            "string" => redis::cmd("MGET").arg(key).query(&mut redis),
            "zset" => redis::cmd("ZRANGE")
                .arg(key)
                .arg(&[0, -1])
                .query(&mut redis),
            other => panic!("{key} is a {other}: read it, too"),
        };
        value.expect("a value").concat()
    });
    values.chain(keys.join(" ").into_bytes()).collect()
}

fn keep(output: &Mutex<Vec<String>>, line: &str) {
    output
        .lock()
        .expect("nobody panicked")
        .push(line.to_owned());
}
