//! Requests that are refused, and those that are not.

use std::task::Waker;

use tracing::Level;

use super::*;
use crate::testing::log::{Line, Log};

#[tokio::test]
async fn without_a_token_only_this_machine_is_served() {
    let service = of(&Cache::memory());
    let from = |peer: [u8; 4]| {
        Request::builder()
            .uri("/api/status")
            .header("host", "localhost")
            .extension(PeerAddr(SocketAddr::from((peer, 1))))
    };

    assert_eq!(send(&service, from([127, 0, 0, 1]), "").await.status, 200);
    let far = send(&service, from([192, 0, 2, 1]), "").await;
    assert_eq!(far.status, 403);
    assert!(far.detail().contains("set a token"), "{far:?}");
    // The header says what the client wants.
    let forged = from([192, 0, 2, 1]).header("x-forwarded-for", "127.0.0.1");
    assert_eq!(send(&service, forged, "").await.status, 403);
    let unknown = Request::builder()
        .uri("/api/status")
        .header("host", "localhost");
    let unknown = send(&service, unknown, "").await;
    assert!(
        unknown.status == 403 && unknown.detail().contains("unknown"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn without_a_token_clients_behind_a_local_proxy_and_rebound_names_are_refused() {
    let service = of(&Cache::memory());
    for header in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
        let got = send(
            &service,
            local("GET", "/api/status").header(header, "192.0.2.1"),
            "",
        )
        .await;
        assert!(
            got.status == 403 && got.detail().contains("proxy"),
            "{got:?}"
        );
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
    ] {
        let mut request = local("GET", "/api/status");
        if let Some(headers) = request.headers_mut() {
            headers.insert("host", HeaderValue::from_static(host));
        }
        let got = send(&service, request, "").await;
        assert!(
            got.status == 403 && got.detail().contains("addressed"),
            "{got:?}"
        );
    }
    // Not even the files of the page.
    let far = PeerAddr(SocketAddr::from(([192, 0, 2, 1], 1)));
    let style = Request::builder().uri("/style.css").extension(far);
    assert_eq!(send(&service, style, "").await.status, 403);
}

#[tokio::test]
async fn with_tokens_each_request_needs_one_and_the_right_one() {
    let service = with_tokens(&Cache::memory());

    for (request, detail) in [
        (local("GET", "/api/status"), "a token is needed"),
        (remote("GET", "/api/status", "the-token-of-nobody"), "wrong"),
        (remote("GET", "/api/status", ""), "wrong"),
        (
            remote("GET", "/api/status", &READ[..READ.len() - 1]),
            "wrong",
        ),
        (
            local("GET", "/api/status").header("authorization", format!("Basic {READ}")),
            "wrong",
        ),
        (
            local("GET", "/api/status").header("cookie", "cache_admin=99999999999.AAAA"),
            "a token is needed",
        ),
    ] {
        let got = send(&service, request, "").await;
        assert_eq!(
            (got.status, &got.headers["www-authenticate"]),
            (
                401,
                &HeaderValue::from_static("Bearer realm=\"cache admin\"")
            )
        );
        assert!(got.detail().contains(detail), "{got:?}");
    }
    for (token, role) in [(READ, "read"), (WRITE, "write")] {
        let got = send(&service, remote("GET", "/api/status", token), "").await;
        assert_eq!((got.status, &got.json()["role"]), (200, &json!(role)));
    }
}

#[tokio::test]
async fn the_read_role_cannot_change_anything() {
    let cache = Cache::memory();
    cache.set("event:1", &1, 60_u64).await;
    let service = with_tokens(&cache);

    for route in routes::ROUTES
        .iter()
        .filter(|route| route.needs == Needs::Write)
    {
        let path = route.path.replace("{name}", "x");
        let got = send(
            &service,
            remote(route.method, &path, READ),
            r#"{"all":true,"pattern":"*"}"#,
        )
        .await;
        assert_eq!(got.status, 403, "{path}");
        assert!(got.detail().contains("read role"), "{path}");
    }

    assert_eq!(cache.get::<i32>("event:1").await, Some(1));
    let got = send(
        &service,
        remote("POST", "/api/evict", WRITE),
        r#"{"all":true}"#,
    )
    .await;
    assert_eq!((got.status, cache.get::<i32>("event:1").await), (200, None));
}

#[tokio::test]
async fn pages_of_other_origins_cannot_change_anything() {
    let cache = Cache::memory();
    cache.set("event:1", &1, 60_u64).await;
    let service = of(&cache);

    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let request = local("POST", "/api/evict").header(name, value);
        let got = send(&service, request, r#"{"all":true}"#).await;
        assert!(
            got.status == 403 && got.detail().contains("another origin"),
            "{name} {got:?}"
        );
    }

    for path in ["/actuator/caches", "/actuator/caches/admin:row:%3Cid%3E"] {
        let request = local("DELETE", path).header("origin", "https://evil.example");
        assert_eq!(send(&service, request, "").await.status, 403, "{path}");
    }
    for (path, is_served) in [("/api/usage", false), ("/api/events", false), ("/", true)] {
        let request = local("GET", path).header("sec-fetch-site", "cross-site");
        assert_eq!(
            send(&service, request, "").await.status == 200,
            is_served,
            "{path}"
        );
    }

    assert_eq!(cache.get::<i32>("event:1").await, Some(1));
    let own = local("POST", "/api/evict").header("origin", "http://localhost:8080");
    assert_eq!(send(&service, own, r#"{"all":true}"#).await.status, 200);
}

#[tokio::test]
async fn a_browser_logs_in_with_a_cookie_that_scripts_cannot_read() {
    let service = with_tokens(&Cache::memory());
    let browser = |method, path| {
        let peer = PeerAddr(SocketAddr::from(([192, 0, 2, 1], 1)));
        let request = Request::builder().method(method).uri(path).extension(peer);
        request.header("host", "cache.example")
    };

    let page = send(&service, browser("GET", "/"), "").await;
    assert_eq!(page.status, 401);
    assert!(page.text.contains("type=\"password\""), "{page:?}");
    assert_eq!(
        send(&service, browser("GET", "/style.css"), "")
            .await
            .status,
        200
    );
    let wrong = send(&service, browser("POST", "/login"), "token=wrong").await;
    assert!(
        wrong.status == 401 && wrong.text.contains("This token is wrong"),
        "{wrong:?}"
    );
    assert!(!wrong.headers.contains_key("set-cookie"));
    let foreign = browser("POST", "/login").header("origin", "https://evil.example");
    assert_eq!(
        send(&service, foreign, &format!("token={READ}"))
            .await
            .status,
        403
    );

    let secure = browser("POST", "/login").header("origin", "https://cache.example");
    let login = send(&service, secure, &format!("token={READ}")).await;
    assert_eq!(
        (login.status, &login.headers["location"]),
        (303, &HeaderValue::from_static("./"))
    );
    let set = login.headers["set-cookie"].to_str().expect("ASCII");
    assert!(
        set.ends_with("; HttpOnly; SameSite=Strict; Secure"),
        "{set}"
    );
    assert!(!set.contains(READ) && !set.contains("Path"), "{set}");
    let (cookie, _) = set.split_once(';').expect("attributes");

    let with = |method, path| browser(method, path).header("cookie", format!("a=b; {cookie}"));
    let page = send(&service, with("GET", "/"), "").await;
    assert!(
        page.status == 200 && page.text.contains("id=\"view\""),
        "{page:?}"
    );
    let status = send(&service, with("GET", "/api/status"), "").await;
    assert_eq!(status.json()["role"], "read");
    // Other cookies may have any content.
    let line = [b"a=\xff; ", cookie.as_bytes()].concat();
    let beside = browser("GET", "/api/status").header("cookie", &line[..]);
    assert_eq!(send(&service, beside, "").await.json()["role"], "read");
    assert_eq!(
        send(&service, with("POST", "/api/evict"), r#"{"all":true}"#)
            .await
            .status,
        403
    );
    // With another token it is another login.
    let again = send(&service, with("POST", "/login"), &format!("token={WRITE}")).await;
    let writer = again.headers["set-cookie"].to_str().expect("ASCII");
    let writer = browser("GET", "/api/status").header("cookie", writer);
    assert_eq!(send(&service, writer, "").await.json()["role"], "write");
    // A changed time is another cookie.
    let longer = cookie.replacen("cache_admin=1", "cache_admin=2", 1);
    let changed = browser("GET", "/api/status").header("cookie", longer);
    assert_eq!(send(&service, changed, "").await.status, 401);
    let out = send(&service, with("POST", "/logout"), "").await;
    assert!(
        out.headers["set-cookie"]
            .to_str()
            .expect("ASCII")
            .contains("Max-Age=0")
    );
}

#[tokio::test]
async fn the_address_of_the_login_leads_to_the_page_with_the_form() {
    let cache = Cache::memory();
    let foreign = remote("GET", "/login", WRITE).header("sec-fetch-site", "cross-site");
    for (service, request) in [
        (with_tokens(&cache), local("GET", "/login")),
        (with_tokens(&cache), foreign),
        (of(&cache), local("GET", "/login")),
    ] {
        let got = send(&service, request, "").await;
        assert_eq!(
            (got.status, &got.headers["location"]),
            (303, &HeaderValue::from_static("./"))
        );
    }
    let far = Request::builder().uri("/login");
    assert_eq!(send(&of(&cache), far, "").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn unfinished_logins_keep_nobody_out() {
    let service = with_tokens(&Cache::memory());
    let slow = || {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        let request = remote("POST", "/login", "").body(http_body_util::StreamBody::new(frames));
        service.clone().oneshot(request.expect("a request"))
    };

    let slow = futures_util::future::join_all((0..2 * MAX_REQUESTS).map(|_| slow()));
    let operator = async {
        let more = send(&service, local("POST", "/login"), "token=x").await;
        let status = send(&service, remote("GET", "/api/status", WRITE), "").await;
        (more.status, status.status)
    };
    let (slow, operator) = tokio::join!(slow, operator);

    // Its token is wrong.
    assert_eq!(operator, (401, 200));
    for response in slow {
        assert_eq!(response.expect("it never fails").status(), 408);
    }
}

#[tokio::test]
async fn a_login_ends_after_a_working_day() {
    let clock = crate::Clock::stopped();
    let config = crate::Config {
        clock: clock.clone(),
        ..crate::Config::default()
    };
    let service = with_tokens(&Cache::local(config));
    let login = send(&service, local("POST", "/login"), &format!("token={WRITE}")).await;
    let cookie = login.headers["set-cookie"].to_str().expect("ASCII");
    assert!(!cookie.contains("Secure"), "plain HTTP on this machine");
    let with = || local("GET", "/api/status").header("cookie", cookie);

    clock.advance(Duration::from_secs(8 * 3600 - 2));
    assert_eq!(send(&service, with(), "").await.status, 200);
    clock.advance(Duration::from_secs(3));
    assert_eq!(send(&service, with(), "").await.status, 401);
}

#[tokio::test]
async fn users_come_from_a_layer_only_if_it_is_configured() {
    let cache = Cache::memory();
    let config = AdminConfig::default()
        .users_from_layer()
        .expect("no token is set");
    let service = admin(&cache, config);
    let user = |role| AdminUser {
        name: "ada".to_owned(),
        role,
    };

    let nobody = send(&service, local("GET", "/api/status"), "").await;
    assert!(
        nobody.status == 403 && nobody.detail().contains("AdminUser"),
        "{nobody:?}"
    );
    let reader = local("POST", "/api/evict").extension(user(AdminRole::Read));
    assert_eq!(send(&service, reader, r#"{"all":true}"#).await.status, 403);
    let writer = local("POST", "/api/evict").extension(user(AdminRole::Write));
    assert_eq!(send(&service, writer, r#"{"all":true}"#).await.status, 200);

    let forged = remote("GET", "/api/status", READ).extension(user(AdminRole::Write));
    let other = of(&cache);
    assert_eq!(send(&other, forged, "").await.status, 403);
}

#[test]
fn tokens_that_protect_nothing_are_refused_with_advice() {
    let config = AdminConfig::default;
    for (problem, advice) in [
        (config().read_token("short"), "16 to 512"),
        (
            config().write_token("with spaces in the middle"),
            "without spaces",
        ),
        (
            config()
                .read_token(READ)
                .and_then(|config| config.write_token(READ)),
            "two tokens",
        ),
        (
            config()
                .read_token(READ)
                .and_then(AdminConfig::users_from_layer),
            "not both",
        ),
        (
            config()
                .users_from_layer()
                .and_then(|config| config.read_token(READ)),
            "not both",
        ),
    ] {
        let problem = problem.expect_err(advice).to_string();
        assert!(problem.contains(advice), "{problem}");
    }
    assert!(!format!("{:?}", config().read_token(READ)).contains(READ));
}

#[tokio::test]
async fn malformed_calls_are_refused_with_advice() {
    let service = of(&Cache::memory());
    for (path, status, advice) in [
        ("/api/nothing", 404, "openapi.json"),
        ("/api/status?x=1", 400, "this route has none"),
        ("/api/keys?pattern=%20", 400, "white space"),
        ("/api/keys?cursor=%f", 400, "percent-encoded"),
        ("/api/entry", 400, "`key=event:1`"),
        ("/api/entry?key=event:1", 404, "api/keys"),
        ("/api/entry?key=session:1", 400, "session:"),
        (
            "/api/limits/top?policy=api&count=1000",
            400,
            "from 1 to 100",
        ),
        ("/api/limits/top?policy=api", 404, "AdminConfig::limiter"),
        ("/api/sessions?user=1", 404, "AdminConfig::sessions"),
        ("/actuator/caches/none", 404, "actuator/caches"),
        ("/api/status?a%22b=1", 400, "unknown parameter `a\"b`"),
        ("/api/entry?key=session:%22", 400, "key `session:\"` begins"),
    ] {
        let got = get(&service, path).await;
        assert_eq!(got.status, status, "{path} {got:?}");
        assert!(got.detail().contains(advice), "{path} {got:?}");
    }
    for (path, body, status, advice) in [
        ("/api/evict", "", 400, "not JSON"),
        ("/api/evict", "[]", 422, "openapi.json"),
        ("/api/evict", "[null,null,true,true]", 422, "is an array"),
        (
            "/api/evict",
            r#"{"all":true,"dry_run":true,"dry_run":false}"#,
            422,
            "duplicate field `dry_run`",
        ),
        ("/api/evict", "{}", 422, "exactly one target"),
        (
            "/api/evict",
            r#"{"key":"a","all":true}"#,
            422,
            "exactly one target",
        ),
        ("/api/evict", r#"{"kee":"a"}"#, 422, "unknown field `kee`"),
        (
            "/api/evict",
            r#"{"ke\"e":"a"}"#,
            422,
            "unknown field `ke\"e`",
        ),
        (
            "/api/evict",
            r#"{"pattern":"ratelimit:*"}"#,
            400,
            "ratelimit:",
        ),
        ("/api/evict?all=true", "{}", 400, "this route has none"),
        ("/api/switches/off", r#"{"pattern":""}"#, 400, "empty"),
        (
            "/api/switches/on",
            r#"{"pattern":"event:*"}"#,
            404,
            "not switched off",
        ),
        ("/api/jobs/none/run", "", 404, "api/jobs"),
        (
            "/api/limits/reset",
            r#"{"policy":"api","client":"ada"}"#,
            422,
            "user:42",
        ),
    ] {
        let got = send(&service, local("POST", path), body).await;
        assert_eq!(got.status, status, "{path} {body} {got:?}");
        assert!(got.detail().contains(advice), "{path} {body} {got:?}");
    }
    let long = send(
        &service,
        local("POST", "/api/evict"),
        &" ".repeat(MAX_BODY + 1),
    )
    .await;
    assert!(
        long.status == 413 && long.detail().contains("at most"),
        "{long:?}"
    );
    for (path, allowed) in [
        ("/api/evict", "POST"),
        ("/api/status", "GET, HEAD"),
        ("/login", "GET, HEAD, POST"),
        ("/actuator/caches/x", "GET, HEAD, DELETE"),
    ] {
        let method = send(&service, local("PUT", path), "").await;
        assert_eq!(
            (
                method.status,
                method.headers["allow"].to_str().expect("ASCII")
            ),
            (405, allowed)
        );
    }
}

#[tokio::test]
async fn a_change_is_logged_even_if_the_client_leaves_before_its_end() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let cache = Cache::connect(proxy.config()).await.unwrap();
    let service = admin(&cache, AdminConfig::default());
    proxy.stall();
    let log = Log::listen(Level::INFO);

    let mut request = Box::pin(send(
        &service,
        local("POST", "/api/evict"),
        r#"{"key":"a"}"#,
    ));
    let polled = request
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "{polled:?}");
    drop(request);

    let lines = of_admin(&log);
    let line = lines.first().expect("a line");
    assert!(line.fields["outcome"].starts_with("unknown"), "{line:?}");
    assert!(line.fields["what"].ends_with('a'), "{line:?}");
    assert_eq!(line.fields["action"], "evict");
}

fn of_admin(log: &Log) -> Vec<Line> {
    let mut lines = log.take();
    lines.retain(|line| line.target == "cache_runtime::admin");
    lines
}

#[tokio::test]
async fn a_change_that_fails_is_logged_with_its_target() {
    let service = of(&Cache::memory());
    let log = Log::listen(Level::INFO);

    for (path, body, what, outcome) in [
        (
            "/api/evict",
            r#"{"key":"session:1"}"#,
            "session:1",
            "400 Bad Request",
        ),
        (
            "/api/evict",
            r#"{"pattern":"a b"}"#,
            "a b",
            "400 Bad Request",
        ),
        (
            "/api/switches/on",
            r#"{"pattern":"event:*"}"#,
            "dev_event:*",
            "404 Not Found",
        ),
        ("/api/jobs/lists/run", "", "lists", "404 Not Found"),
        (
            "/api/limits/reset",
            r#"{"policy":"api","client":"user:42"}"#,
            "user:42 of api",
            "404 Not Found",
        ),
        (
            "/api/sessions/end",
            r#"{"user":"42"}"#,
            "42",
            "404 Not Found",
        ),
    ] {
        send(&service, local("POST", path), body).await;

        let lines = of_admin(&log);
        let [line] = &lines[..] else {
            panic!("{path} {lines:?}")
        };
        assert_eq!(
            (&*line.fields["what"], &*line.fields["outcome"]),
            (what, outcome)
        );
    }
}

#[tokio::test]
async fn refusals_of_the_read_role_are_logged_with_the_user_at_most_once_per_second() {
    let service = with_tokens(&Cache::memory());
    let log = Log::listen(Level::INFO);

    for _ in 0..3 {
        let got = send(
            &service,
            remote("POST", "/api/evict", READ),
            r#"{"all":true}"#,
        )
        .await;
        assert_eq!(got.status, 403);
    }

    let lines = of_admin(&log);
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(line.level, Level::WARN);
    let reason = &line.fields["reason"];
    assert!(
        reason.contains("the read token") && reason.contains("evict"),
        "{reason}"
    );
}
