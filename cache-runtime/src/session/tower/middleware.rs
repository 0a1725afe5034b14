//! The store behind the middleware that it is for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use tokio::sync::Notify;
use tower::ServiceExt;
use tower_sessions::cookie::Cookie;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

use super::tests::Bench;
use crate::store::support::ask;

const HOUR: Duration = Duration::from_secs(3600);

/// A service with sessions that live an hour without use.
struct Service {
    app: Router,
    bench: Bench,
    is_there: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Service {
    async fn both() -> [Self; 2] {
        Bench::both().await.map(Self::on)
    }

    fn on(bench: Bench) -> Self {
        let [is_there, go_on] = [(); 2].map(|()| Arc::new(Notify::new()));
        let slow = {
            let (is_there, go_on) = (Arc::clone(&is_there), Arc::clone(&go_on));
            async move |session: Session| {
                let _: Option<String> = session.get("user").await.unwrap();
                is_there.notify_one();
                go_on.notified().await;
                session.insert("late", true).await.unwrap();
            }
        };
        let expiry = Expiry::OnInactivity(HOUR.try_into().unwrap());
        let sessions = SessionManagerLayer::new(bench.store.clone()).with_expiry(expiry);
        let app = Router::new()
            .route("/set/{value}", get(set))
            .route("/get", get(read))
            .route("/cycle", get(cycle))
            .route("/flush", get(flush))
            .route("/clear", get(clear))
            .route("/slow", get(slow))
            .layer(sessions);
        Self {
            app,
            bench,
            is_there,
            go_on,
        }
    }

    async fn send(&self, path: &str, cookie: &str) -> Answer {
        let request = Request::get(path).header(COOKIE, cookie);
        let request = request.body(Body::empty()).unwrap();
        Answer::read(self.app.clone().oneshot(request).await.unwrap()).await
    }

    fn sessions(&self) -> Option<i64> {
        let server = self.bench.server.as_ref()?;
        Some(ask(server, &["DBSIZE"]))
    }
}

async fn set(
    axum::extract::Path(value): axum::extract::Path<String>,
    session: Session,
) -> Result<(), StatusCode> {
    session.insert("user", value).await.map_err(unavailable)
}

async fn read(session: Session) -> Result<String, StatusCode> {
    let user: Option<String> = session.get("user").await.map_err(unavailable)?;
    Ok(user.unwrap_or_else(|| "nobody".to_owned()))
}

async fn cycle(session: Session) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(unavailable)
}

async fn flush(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(unavailable)
}

async fn clear(session: Session) {
    session.clear().await;
}

fn unavailable(_: tower_sessions::session::Error) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

/// What the browser sees.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    /// As it is to be sent back.
    cookie: Option<String>,
    text: String,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let cookie = response.headers().get(SET_COOKIE).map(|line| {
            let cookie = Cookie::parse(line.to_str().unwrap()).unwrap();
            format!("{}={}", cookie.name(), cookie.value())
        });
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        Self {
            status,
            cookie,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_request_reads_the_data_of_the_previous_request() {
    for service in Service::both().await {
        let cookie = service.send("/set/ada", "").await.cookie.unwrap();
        assert_eq!(service.send("/get", &cookie).await.text, "ada");

        let again = service.send("/set/eve", &cookie).await.cookie.unwrap();

        assert_eq!(again, cookie);
        assert_eq!(service.send("/get", &cookie).await.text, "eve");
    }
}

#[tokio::test]
async fn cycling_the_id_ends_the_old_id_and_keeps_the_data() {
    for service in Service::both().await {
        let old = service.send("/set/ada", "").await.cookie.unwrap();

        let new = service.send("/cycle", &old).await.cookie.unwrap();

        assert_ne!(new, old);
        assert_eq!(service.send("/get", &new).await.text, "ada");
        assert_eq!(service.send("/get", &old).await.text, "nobody");
        assert!(matches!(service.sessions(), None | Some(1)));
    }
}

#[tokio::test]
async fn a_flushed_session_is_removed_from_the_client_and_the_store() {
    for service in Service::both().await {
        let cookie = service.send("/set/ada", "").await.cookie.unwrap();

        let answer = service.send("/flush", &cookie).await;

        assert_eq!(answer.cookie.as_deref(), Some("id="));
        assert_eq!(service.send("/get", &cookie).await.text, "nobody");
        assert!(matches!(service.sessions(), None | Some(0)));
    }
}

#[tokio::test]
async fn an_id_invented_by_a_client_is_not_used() {
    for service in Service::both().await {
        let made_up = "id=AAAAAAAAAAAAAAAAAAAAAA";

        let cookie = service.send("/set/ada", made_up).await.cookie.unwrap();

        assert_ne!(cookie, made_up);
        assert_eq!(service.send("/get", made_up).await.text, "nobody");
    }
}

#[tokio::test]
async fn an_unused_session_expires_after_1_h() {
    for service in Service::both().await {
        let cookie = service.send("/set/ada", "").await.cookie.unwrap();
        // The dates of the application use the system clock, which keeps running.
        service.bench.clock.advance(HOUR / 2);
        assert_eq!(service.send("/get", &cookie).await.text, "ada");

        service.bench.clock.advance(HOUR);
        let answer = service.send("/get", &cookie).await;

        assert_eq!(answer.text, "nobody");
        assert_eq!(answer.cookie.as_deref(), Some("id="));
    }
}

#[tokio::test]
async fn a_change_extends_a_session() {
    let service = Service::on(Bench::new().await);
    let cookie = service.send("/set/ada", "").await.cookie.unwrap();
    let server = service.bench.server();
    let [name] = <[String; 1]>::try_from(ask::<Vec<String>>(server, &["KEYS", "*"])).unwrap();
    let _: i64 = ask(server, &["PEXPIRE", &name, "60000"]);

    service.send("/set/eve", &cookie).await;

    let left: u64 = ask(server, &["PTTL", &name]);
    assert!(left > 3_000_000, "{left}");
}

#[tokio::test]
async fn a_request_that_ends_after_a_logout_fails_and_stores_nothing() {
    for service in Service::both().await {
        let cookie = service.send("/set/ada", "").await.cookie.unwrap();

        let slow = service.send("/slow", &cookie);
        let logout = async {
            service.is_there.notified().await;
            service.send("/flush", &cookie).await;
            service.go_on.notify_one();
        };
        let (answer, ()) = tokio::join!(slow, logout);

        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.cookie, None);
        assert_eq!(service.send("/get", &cookie).await.text, "nobody");
    }
}

#[tokio::test]
async fn clearing_an_expired_session_is_not_an_error() {
    for service in Service::both().await {
        let cookie = service.send("/set/ada", "").await.cookie.unwrap();
        service.send("/flush", &cookie).await;

        let answer = service.send("/clear", &cookie).await;

        assert_eq!(answer.status, StatusCode::OK);
        assert!(matches!(service.sessions(), None | Some(0)));
    }
}

#[tokio::test]
async fn an_outage_is_an_error_and_changes_no_cookie() {
    let mut service = Service::on(Bench::new().await);
    let cookie = service.send("/set/ada", "").await.cookie.unwrap();

    service.bench.server.as_mut().unwrap().kill();

    for path in ["/get", "/set/eve", "/cycle", "/flush"] {
        let answer = service.send(path, &cookie).await;
        assert!(answer.status.is_server_error(), "{path}: {answer:?}");
        assert_eq!(answer.cookie, None, "{path}");
    }
}

#[tokio::test]
async fn an_idle_time_requires_always_save() {
    for (is_always_saved, is_moved) in [(true, true), (false, false)] {
        let bench = Bench::new().await;
        let sessions = SessionManagerLayer::new(bench.store.clone())
            .with_expiry(Expiry::OnInactivity(HOUR.try_into().unwrap()))
            .with_always_save(is_always_saved);
        let app = Router::new()
            .route("/set/{value}", get(set))
            .route("/get", get(read))
            .layer(sessions);
        let send = async |path: &str, cookie: &str| {
            let request = Request::get(path).header(COOKIE, cookie);
            let request = request.body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap()
        };
        let entered = send("/set/ada", "").await;
        let cookie = entered.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        let cookie = cookie.split(';').next().unwrap();
        let [key] = &ask::<Vec<String>>(bench.server(), &["KEYS", "*"])[..] else {
            panic!("there is one session");
        };
        let () = ask(bench.server(), &["PEXPIRE", key, "1000000"]);

        send("/get", cookie).await;

        let ttl: u64 = ask(bench.server(), &["PTTL", key]);
        assert_eq!(ttl > 3_000_000, is_moved, "{ttl} ms");
    }
}
