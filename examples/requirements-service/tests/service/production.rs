//! The program in a process of its own, with the variables of production and with none.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::postgres::Postgres;
use crate::sentinels::{MASTER, REDIS_PASSWORD, SENTINEL_PASSWORD, Sentinels, Server};
use crate::support::{ADMIN_TOKEN, SESSION_KEYS, until, until_within};

/// The running program. Dropping this kills it.
struct Program {
    process: Child,
    address: String,
    agent: Agent,
}

impl Program {
    fn start(variables: &[(String, String)]) -> Self {
        let mut started = Self::spawn(variables);
        let output = started.process.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listening on http://"));
        let line = line.expect("the service logs its address");
        let (_, address) = line.split_once("http://").expect("an address");
        address.clone_into(&mut started.address);
        // Otherwise the process waits when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        until("it is ready", || started.get("/readyz").status() == 200);
        started
    }

    /// Starts it with only these variables, on a free port.
    fn spawn(variables: &[(String, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_requirements-service"));
        command
            .env_clear()
            .envs(variables.iter().cloned())
            .env("BIND", "127.0.0.1:0");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(30)));
        Self {
            process: command.spawn().expect("the service is built"),
            address: String::new(),
            agent: agent.build().into(),
        }
    }

    fn get(&self, path: &str) -> Response<Body> {
        let answer = self
            .agent
            .get(format!("http://{}{path}", self.address))
            .call();
        answer.expect("an answer")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for the end. Returns the exit code.
fn ended(process: &mut Child) -> Option<i32> {
    let mut status = None;
    until("the process ends", || {
        status = process.try_wait().expect("a child of this process");
        status.is_some()
    });
    status?.code()
}

/// Returns the variables of `prod.env`, with these values in place of its placeholders.
fn production(values: &[(&str, String)]) -> Vec<(String, String)> {
    let lines = include_str!("../../prod.env").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let variables = lines.map(|line| line.split_once('=').expect("a variable"));
    let mut variables: Vec<_> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in values {
        let variable = variables.iter_mut().find(|variable| variable.0 == *name);
        variable.expect(name).1.clone_from(value);
    }
    for (name, value) in &variables {
        let is_replaced = !["example", "/secrets", "<"]
            .iter()
            .any(|mark| value.contains(mark));
        assert!(is_replaced, "the test has no value for {name}");
    }
    variables
}

fn is_hit(answer: &Response<Body>) -> bool {
    let status = answer.headers()["cache-status"].to_str().expect("ASCII");
    status.contains("; hit")
}

fn has(server: &Server, key: &str) -> bool {
    server.ask::<u8>(&["EXISTS", key]) == 1
}

#[tokio::test]
async fn with_prod_env_it_caches_behind_sentinels_with_tls_and_passwords_and_survives_a_failover() {
    let mut sentinels = Sentinels::start();
    let postgres = Postgres::shared();
    let secrets = TempDir::new().expect("a folder");
    let secret = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        fs::write(&path, format!("{text}\n")).expect("a file");
        path.display().to_string()
    };
    let ca = sentinels.ca().display().to_string();
    let url = format!("rediss+sentinel://{}/{MASTER}", sentinels.addresses());
    let (root, passwords) = (ca.clone(), secret("pgpass", ""));
    let mut variables = production(&[
        ("REDIS_URL", url),
        ("REDIS_PASSWORD_FILE", secret("redis", REDIS_PASSWORD)),
        ("REDIS_TLS_CA", ca.clone()),
        (
            "REDIS_SENTINEL_PASSWORD_FILE",
            secret("sentinel", SENTINEL_PASSWORD),
        ),
        ("REDIS_SENTINEL_TLS_CA", ca),
        ("CACHE_SESSION_KEYS", SESSION_KEYS.to_owned()),
        ("DATABASE_URL", postgres.create_database().await),
        ("PGSSLROOTCERT", root),
        ("PGPASSFILE", passwords),
        ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
    ]);
    variables.push(("DEMO_DATA".to_owned(), "1".to_owned()));
    // The test asks all the time while it waits for the failover.
    variables.push(("CACHE_LIMIT_API".to_owned(), "100000/1m".to_owned()));

    let service = Program::start(&variables);
    let search = "/api/requirements?text=refund";
    for path in ["/api/requirements/1", search] {
        until("it caches", || is_hit(&service.get(path)));
    }
    assert!(has(&sentinels.master, "requirements_requirement:1"));
    let clients: String = sentinels.master.ask(&["CLIENT", "LIST"]);
    let tls = format!("laddr=127.0.0.1:{} ", sentinels.master.tls_port);
    let mut ours = clients
        .lines()
        .filter(|line| line.contains("name=requirements-service"));
    assert!(
        ours.clone().count() > 0 && ours.all(|line| line.contains(&tls)),
        "{clients}"
    );
    let searches: Vec<String> = sentinels.master.ask(&["KEYS", "requirements_search:*"]);
    let ttls = searches
        .iter()
        .map(|key| sentinels.master.ask::<i64>(&["TTL", key]));
    assert!(
        ttls.clone().count() > 0 && ttls.clone().all(|ttl| ttl <= 120),
        "{searches:?}"
    );

    let key = "requirements_requirement:2";
    let is_master = |server: &Server| {
        let role: String = server.ask(&["INFO", "replication"]);
        role.contains("role:master")
    };
    sentinels.master.redis.kill();
    until_within(
        Duration::from_secs(120),
        "the replica is promoted and the service caches in it",
        || {
            // Whatever happens, requests are answered.
            assert_eq!(service.get("/api/requirements/2").status(), 200);
            is_master(&sentinels.replica)
                && has(&sentinels.replica, key)
                && is_hit(&service.get("/api/requirements/2"))
        },
    );
    // It also writes there.
    sentinels.replica.ask::<()>(&["DEL", key]);
    until("it stores in the new master", || {
        service.get("/api/requirements/2");
        has(&sentinels.replica, key)
    });
}

#[test]
fn it_starts_with_nothing_installed_and_stops_when_it_is_told_to() {
    let mut service = Program::start(&[]);
    let found = service.get("/api/requirements").body_mut().read_to_string();
    assert!(found.expect("a body").contains("Refund a payment"));

    let number = service.process.id().to_string();
    let told = Command::new("kill").args(["-TERM", &number]).status();

    assert!(told.expect("there is `kill`").success());
    assert_eq!(ended(&mut service.process), Some(0));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_at_the_start() {
    for (name, value, told) in [
        ("CACHE_ENV", "prod", "REDIS_URL"),
        (
            "CACHE_POLICY_QUERIES_TTL",
            "soon",
            "CACHE_POLICY_QUERIES_TTL",
        ),
        (
            "DATABASE_URL",
            "mysql://host/name",
            "must begin with `postgres:` or `sqlite:`",
        ),
        ("DATABASE_URL", "sqlite::memory:", "a database in memory"),
        ("DEMO_DATA", "yes", "DEMO_DATA is `yes`"),
        ("ADMIN_TOKEN", "short", "16 to 512"),
        ("TRUSTED_PROXIES", "here", "TRUSTED_PROXIES is `here`"),
    ] {
        let variables = [(name.to_owned(), value.to_owned())];
        let mut refused = Program::spawn(&variables);
        let code = ended(&mut refused.process);
        let mut said = String::new();
        let mut errors = refused.process.stderr.take().expect("a pipe");
        errors.read_to_string(&mut said).expect("UTF-8");

        assert_eq!(code, Some(1), "{name}={value}");
        assert!(said.contains(told), "{name}={value}: {said}");
    }
}
