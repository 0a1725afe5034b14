//! Starts the service as a process of its own, and talks to it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cache_runtime::testing::RedisServer;
use serde_json::Value;
use ureq::Agent;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response};

/// Limits that no test reaches, since waiting in a loop is many requests; patience, since on a machine that is busy with hashing
/// an answer that is late is no outage; and a key, so that sessions outlive a process. A test's own win.
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

/// How long an answer of Redis may take.
pub(crate) const PATIENCE: (&str, &str) = ("CACHE_COMMAND_TIMEOUT", "5s");

/// A running service. It ends with the test.
pub(crate) struct Service {
    process: Process,
    pub(crate) address: String,
    agent: Agent,
    output: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// Who asks the service and keeps its cookie, as a browser does.
pub(crate) struct Client<'a> {
    service: &'a Service,
    /// `name=value`; empty where there is none.
    cookie: Mutex<String>,
    /// The cookie by which an account knows a browser.
    device: Mutex<String>,
}

/// What the service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// In memory mode.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With a Redis.
    pub(crate) fn on(redis: &RedisServer) -> Self {
        Self::with(&[("REDIS_URL", &redis.url())])
    }

    /// With these variables and no others but the usual ones, on a free port.
    pub(crate) fn with(environment: &[(&str, &str)]) -> Self {
        Self::of(
            Command::new(env!("CARGO_BIN_EXE_event-service")),
            environment,
        )
    }

    /// Where the process may open no more than so many files.
    pub(crate) fn with_files(files: u32, environment: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("/bin/sh");
        let program = env!("CARGO_BIN_EXE_event-service");
        shell.args(["-c", &format!("ulimit -n {files} && exec {program}")]);
        Self::of(shell, environment)
    }

    fn of(command: Command, environment: &[(&str, &str)]) -> Self {
        let environment = [USUAL, environment, &[("BIND", "127.0.0.1:0")]].concat();
        let mut process = Process::spawn(command, &environment);
        let output = process.0.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let output = Arc::new(Mutex::new(Vec::new()));
        let start = lines
            .by_ref()
            .inspect(|line| keep(&output, line))
            .find(|line| line.contains("listening on http://"));
        let start = start.expect("the service says where it listens");
        let address = start
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .expect("an address");
        let reader = std::thread::spawn({
            let output = Arc::clone(&output);
            move || lines.for_each(|line| keep(&output, &line))
        });
        // One connection, one request: a server may close an idle connection just when the next request is sent on it.
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

    /// As a proxy sends it on for this client, or as a client that claims to be one.
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

    /// With a body of JSON, as it stands here.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.run(self.request(method, path), body)
    }

    /// Who has not logged in.
    pub(crate) fn client(&self) -> Client<'_> {
        self.client_with("")
    }

    /// Who has this cookie from somewhere.
    pub(crate) fn client_with(&self, cookie: &str) -> Client<'_> {
        Client {
            service: self,
            cookie: Mutex::new(cookie.to_owned()),
            device: Mutex::default(),
        }
    }

    /// The user of this number, logged in.
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

    /// The counters of all sites together.
    pub(crate) fn counts(&self) -> Value {
        self.get("/api/cache/stats").body["total"].take()
    }

    /// How many lines were logged with this.
    pub(crate) fn times_said(&self, text: &str) -> usize {
        let output = self.output.lock().expect("nobody panicked");
        output.iter().filter(|line| line.contains(text)).count()
    }

    /// Whether this was logged.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        let output = self.output.lock().expect("nobody panicked");
        output.iter().any(|line| line.contains(text))
    }

    /// How much memory the process has, in MiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()));
        let status = status.expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|kib| kib.trim().strip_suffix(" kB"));
        resident.expect("a size").parse::<u64>().expect("a number") / 1024
    }

    /// Tells the service to stop, as a service manager does.
    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill")
            .args(["-TERM", &self.process.0.id().to_string()])
            .status();
        assert!(killed.expect("there is `kill`").success());
    }

    /// Waits for the end, and returns how it ended and all that was said on standard output and standard error.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.process.0.wait().expect("it is our child");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading lines does not panic");
        }
        let mut log = self.output.lock().expect("nobody panicked").join("\n");
        if let Some(errors) = &mut self.process.0.stderr {
            errors.read_to_string(&mut log).expect("UTF-8");
        }
        (status, log)
    }
}

impl Client<'_> {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    /// With the cookies, if there are any, and a body of JSON, as it stands here.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.run(self.service.request(method, path), body)
    }

    /// As a proxy sends it on for this client.
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

    /// With these headers.
    pub(crate) fn send_with(&self, headers: &[(&str, &str)], method: &str, path: &str) -> Answer {
        let mut request = self.service.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.run(request, None)
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

    /// That of the session, as it is sent.
    pub(crate) fn cookie(&self) -> String {
        self.cookie.lock().expect("nobody panicked").clone()
    }
}

/// A process that ends with its test.
struct Process(Child);

impl Process {
    /// The service's binary with these arguments, and these variables and no others.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-service"));
        command.args(arguments);
        Self::spawn(command, environment)
    }

    fn spawn(mut command: Command, environment: &[(&str, &str)]) -> Self {
        command.env_clear().envs(environment.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().expect("the service is built"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Answer {
    /// All lines of this header, as one.
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
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).expect("JSON")
        };
        Self {
            status: response.status().as_u16(),
            content_type,
            headers: response.headers().clone(),
            body,
        }
    }
}

/// What this user logs in with.
pub(crate) fn credentials(user: i64) -> String {
    format!(r#"{{"username": "user{user}", "password": "password{user}"}}"#)
}

/// Starts the service in an environment in which it cannot run: its exit code, and what it says on standard error.
pub(crate) fn refused(environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let Ended { code, said, .. } = run(&[], environment);
    (code, said)
}

/// What a process left behind that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
    /// On standard error.
    pub(crate) said: String,
}

/// Runs a command of the service to its end. What it prints fits into a pipe.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let Process(child) = &mut Process::start(arguments, environment);
    eventually("the end of the process", || {
        child.try_wait().expect("it is our child").is_some()
    });
    let (mut printed, mut said) = (String::new(), String::new());
    let mut output = child.stdout.take().expect("it is piped");
    output.read_to_string(&mut printed).expect("UTF-8");
    let mut errors = child.stderr.take().expect("it is piped");
    errors.read_to_string(&mut said).expect("UTF-8");
    let code = child.wait().expect("it has ended").code();
    Ended {
        code,
        printed,
        said,
    }
}

/// Asks again and again until the answer is yes.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{what} did not come"
        );
        std::thread::yield_now();
    }
}

/// The names of all entries. What clients have used of their limits is in Redis, too, and so are their sessions.
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

/// All keys and values, those of entries, limits and sessions.
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
