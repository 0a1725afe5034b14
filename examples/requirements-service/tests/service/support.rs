//! Instances of the service in this process, and what they keep in Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, header};
use cache_runtime::http::{AdminConfig, ClientIpSource, SessionCookie};
use cache_runtime::testing::{Clock, RedisServer};
use cache_runtime::{Cache, Config, SessionKeys};
use requirements_service::db::Db;
use requirements_service::http::{App, router};
use requirements_service::settings::{Settings, cache_defaults};
use serde_json::Value;
use tower_service::Service as _;

use crate::postgres::Postgres;

/// Defines each test twice.
macro_rules! on_both_databases {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Shared::on_sqlite().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Shared::on_postgres().await).await;
            })*
        }
    };
}

pub(crate) const ADMIN_TOKEN: &str = "a-token-for-operators";
pub(crate) const SESSION_KEYS: &str = "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A requirement.
pub(crate) const NEW: &str = r#"{"title": "Größe %", "description": "A new text."}"#;

/// What instances of the service share: a Redis, a database and the time.
pub(crate) struct Shared {
    pub(crate) redis: RedisServer,
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    _postgres: Option<Arc<Postgres>>,
}

/// An instance of the service, with its own cache.
pub(crate) struct Instance {
    pub(crate) app: App,
    router: Router,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// JSON, or a text.
    pub(crate) body: Value,
}

impl Shared {
    pub(crate) async fn on_sqlite() -> Self {
        Self::on(Db::open(None, true).await.expect("SQLite"), None)
    }

    pub(crate) async fn on_postgres() -> Self {
        let postgres = Postgres::shared();
        let url = postgres.create_database().await;
        let db = Db::open(Some(&url), true).await.expect("Postgres");
        Self::on(db, Some(postgres))
    }

    fn on(db: Db, postgres: Option<Arc<Postgres>>) -> Self {
        Self {
            redis: RedisServer::start().expect("redis-server starts"),
            db,
            clock: Clock::stopped(),
            _postgres: postgres,
        }
    }

    /// Returns the configuration of the service, with the Redis and the keys of the test.
    fn config(&self) -> Config {
        cache_defaults()
            .redis(self.redis.config().redis)
            .session_keys(SessionKeys::parse(SESSION_KEYS).expect("a key"))
            // A late answer on a busy machine is not an outage.
            .command_timeout(Duration::from_secs(5))
            .clock(self.clock.clone())
    }

    pub(crate) async fn instance(&self) -> Instance {
        let cache = Cache::connect(self.config()).await.expect("a Redis");
        let app = App::new(self.db.clone(), cache);
        let admin = AdminConfig::default().write_token(ADMIN_TOKEN);
        let settings = Settings {
            bind: String::new(),
            database_url: None,
            demo_data: true,
            client_ip: ClientIpSource::peer(),
            cookie: SessionCookie::insecure(),
            admin: admin.expect("a token"),
        };
        let router = router(app.clone(), &settings).expect("a router");
        Instance { app, router }
    }

    /// Returns how many seconds the entry with this key has left. The key may end with `*`.
    pub(crate) fn ttl(&self, key: &str) -> Option<i64> {
        let mut redis = connection(&self.redis);
        let key = format!("requirements_{key}");
        let keys: Vec<String> = redis::cmd("KEYS").arg(key).query(&mut redis).expect("keys");
        let key = keys.first()?;
        Some(redis::cmd("TTL").arg(key).query(&mut redis).expect("a TTL"))
    }

    /// Returns all keys and values in Redis.
    pub(crate) fn everything(&self) -> Vec<u8> {
        let mut redis = connection(&self.redis);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).expect("keys");
        let dumps = keys.iter().map(|key| {
            let kind: String = redis::cmd("TYPE")
                .arg(key)
                .query(&mut redis)
                .expect("a type");
            let value: redis::RedisResult<Vec<Vec<u8>>> = match &*kind {
                "string" => redis::cmd("MGET").arg(key).query(&mut redis),
                "zset" => redis::cmd("ZRANGE")
                    .arg(key)
                    .arg(&[0, -1])
                    .query(&mut redis),
                // It has expired since.
                "none" => return Vec::new(),
                other => panic!("{key} is a {other}: read it, too"),
            };
            [key.clone().into_bytes(), value.expect("a value").concat()].concat()
        });
        dumps.collect::<Vec<_>>().concat()
    }
}

fn connection(redis: &RedisServer) -> redis::Connection {
    let client = redis::Client::open(redis.url());
    let connection = client.and_then(|client| client.get_connection());
    connection.expect("a connection")
}

impl Instance {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    /// Logs in with the password of the demo. Returns the cookie.
    pub(crate) async fn log_in(&self, name: &str) -> String {
        let body = format!(r#"{{"name": "{name}", "password": "{name}-demo"}}"#);
        let answer = self
            .send(Method::POST, "/api/login", &[], Some(&body))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookie = answer.headers[header::SET_COOKIE].to_str().expect("ASCII");
        cookie.split(';').next().expect("a cookie").to_owned()
    }

    /// Sends a request of the user with this cookie.
    pub(crate) async fn as_user(
        &self,
        cookie: &str,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        self.send(method, path, &[("cookie", cookie)], body).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
        let request = request.extension(ConnectInfo(peer));
        let request = request.body(Body::from(body.unwrap_or_default().to_owned()));
        let answered = self.router.clone().call(request.expect("a request"));
        // Annotated functions use the cache of this instance.
        let response = self.app.cache.run(answered).await;
        let (parts, body) = response.expect("infallible").into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(body.into()).expect("UTF-8");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }
}

/// Polls until a condition holds.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(Duration::from_secs(30), what, holds);
}

/// Polls until a condition holds, for at most this time.
pub(crate) fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
