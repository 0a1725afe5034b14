//! Session cookies in a cookie jar like that of a browser, across changes of their domain and path.

use super::*;
use crate::http::SessionCookie;

/// A cookie jar as in RFC 6265bis: cookies with different domains, paths or hosts are distinct, and all that match are sent,
/// longer paths first.
#[derive(Default)]
struct Jar(Vec<Kept>);

#[derive(Clone, Debug)]
struct Kept {
    name: String,
    value: String,
    domain: String,
    is_host_only: bool,
    path: String,
}

impl Jar {
    /// Stores the cookies of a response, like a browser at this host.
    fn take(&mut self, host: &str, response: &Response) {
        for line in set_cookies(response) {
            let mut parts = line.split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let mut kept = Kept {
                name: name.to_owned(),
                value: value.to_owned(),
                domain: host.to_owned(),
                is_host_only: true,
                path: "/".to_owned(),
            };
            let mut is_removal = false;
            for part in parts {
                match part.split_once('=') {
                    Some(("Path", path)) => kept.path = path.to_owned(),
                    Some(("Domain", domain)) => {
                        kept.domain = domain.to_owned();
                        kept.is_host_only = false;
                    }
                    Some(("Max-Age", age)) => is_removal = age == "0",
                    _ => {}
                }
            }
            let is_below = host.ends_with(&format!(".{}", kept.domain));
            if host != kept.domain && !is_below {
                continue;
            }
            self.0.retain(|known| {
                (&known.name, &known.domain, known.is_host_only, &known.path)
                    != (&kept.name, &kept.domain, kept.is_host_only, &kept.path)
            });
            if !is_removal {
                self.0.push(kept);
            }
        }
    }

    fn sent(&self, host: &str, path: &str) -> Option<String> {
        let is_sent = |kept: &&Kept| {
            let is_below = !kept.is_host_only && host.ends_with(&format!(".{}", kept.domain));
            let rest = path.strip_prefix(&kept.path);
            let is_path = rest.is_some_and(|rest| {
                kept.path.ends_with('/') || rest.is_empty() || rest.starts_with('/')
            });
            (host == kept.domain || is_below) && is_path
        };
        let mut sent: Vec<_> = self.0.iter().filter(is_sent).collect();
        sent.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        let pairs: Vec<_> = sent
            .iter()
            .map(|kept| format!("{}={}", kept.name, kept.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    async fn send(&mut self, app: &Router, host: &str, method: Method, path: &str) -> Response {
        let cookies = self.sent(host, path);
        let mut request = with(
            method,
            path,
            &cookies.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let headers = request.headers_mut();
        headers.insert(header::HOST, host.parse().unwrap());
        let response = send(app, request).await;
        self.take(host, &response);
        response
    }
}

fn deployed(cache: &Cache, cookie: SessionCookie) -> Router {
    app(layer(cache).cookie(cookie).unwrap())
}

fn named() -> SessionCookie {
    SessionCookie::default().name("__Secure-session")
}

#[tokio::test]
async fn a_changed_domain_or_path_locks_out_no_user() {
    let forms = || {
        [
            named(),
            named().domain("example.com"),
            named().domain("app.example.com"),
            named().path("/whoami"),
            named().domain("example.com").path("/whoami"),
        ]
    };
    for host in ["app.example.com", "app.example.com:8443"] {
        let name = "app.example.com";
        for before in forms() {
            for after in forms() {
                let cache = in_memory(OLD);
                let mut jar = Jar::default();
                let old = deployed(&cache, before.clone());
                assert_eq!(
                    jar.send(&old, name, Method::POST, "/login/ada")
                        .await
                        .status(),
                    200
                );
                assert_eq!(
                    jar.send(&old, name, Method::GET, "/whoami").await.status(),
                    200
                );

                let new = deployed(&cache, after.clone());
                for login in 0..3 {
                    let told = format!("{before:?} to {after:?} at {host}, login {login}");
                    let entered = jar.send(&new, name, Method::POST, "/login/ada").await;
                    assert_eq!(entered.status(), 200, "{told}");
                    let known = jar.send(&new, name, Method::GET, "/whoami").await;
                    assert_eq!(known.status(), 200, "{told}: {:?}", jar.0);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_login_and_a_logout_remove_the_former_cookie() {
    for end in ["/login/ada", "/logout"] {
        for (before, after) in [
            (named().domain("example.com"), named()),
            (named(), named().domain("example.com")),
            (
                named().domain("example.com"),
                named().path("/").domain("app.example.com"),
            ),
        ] {
            let cache = in_memory(OLD);
            let mut jar = Jar::default();
            let host = "app.example.com";
            let (old, new) = (deployed(&cache, before), deployed(&cache, after));
            jar.send(&old, host, Method::POST, "/login/ada").await;

            jar.send(&new, host, Method::POST, end).await;

            let left = usize::from(end != "/logout");
            assert_eq!(jar.0.len(), left, "{end}: {:?}", jar.0);
            let status = jar.send(&new, host, Method::GET, "/whoami").await.status();
            assert_eq!(status.is_success(), left == 1);
        }
    }
}

#[tokio::test]
async fn a_token_of_an_ended_session_is_ignored() {
    let app = app_in_memory();
    let dead = cookie_of(&enter(&app, "eve", &[]).await);
    send(&app, with(Method::POST, "/logout", &[&dead])).await;
    let alive = cookie_of(&enter(&app, "ada", &[]).await);

    assert_eq!(status(&app, &[&dead, &alive]).await, 200);
    assert_eq!(status(&app, &[&alive, &dead]).await, 200);
    assert_eq!(status(&app, &[&dead]).await, 401);

    let logout = send(&app, with(Method::POST, "/logout-all", &[&dead, &alive])).await;
    assert_eq!(logout.status(), 200);
    assert_eq!(status(&app, &[&dead, &alive]).await, 401);
}

#[tokio::test]
async fn the_newer_of_two_sessions_counts_and_a_logout_ends_both() {
    let clock = Clock::stopped();
    let config = Config::default()
        .session_keys(keys(OLD))
        .clock(clock.clone());
    let app = app(layer(&Cache::local(config)));
    let older = enter(&app, "ada", &[]).await;
    clock.advance(Duration::from_secs(1));
    let newer = enter(&app, "ada", &[]).await;
    let [older, newer] = [older, newer].map(|token| cookie_of(&token));
    let id =
        async |cookies: &[&str]| text(send(&app, with(Method::GET, "/twice", cookies)).await).await;
    let expected = id(&[&newer]).await;

    assert_eq!(id(&[&older, &newer]).await, expected);
    assert_eq!(id(&[&newer, &older]).await, expected);

    send(&app, with(Method::POST, "/logout", &[&older, &newer])).await;
    assert_eq!(status(&app, &[&older]).await, 401);
    assert_eq!(status(&app, &[&newer]).await, 401);
}

#[tokio::test]
async fn only_the_last_few_tokens_are_looked_up() {
    let server = RedisServer::start().unwrap();
    let (_cache, app) = on_redis(&server).await;
    let alive = cookie_of(&enter(&app, "ada", &[]).await);
    let mut sent = Vec::new();
    for _ in 0..20 {
        let dead = cookie_of(&enter(&app, "eve", &[]).await);
        send(&app, with(Method::POST, "/logout", &[&dead])).await;
        sent.push(dead);
    }
    sent.push(alive);
    let sent: Vec<_> = sent.iter().map(String::as_str).collect();
    let () = ask(&server, &["CONFIG", "RESETSTAT"]);

    assert_eq!(status(&app, &sent).await, 200);

    let info: String = ask(&server, &["INFO", "commandstats"]);
    let scripts = info
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"));
    assert!(scripts.unwrap().contains("calls=8,"), "{scripts:?}");
}

#[tokio::test]
async fn two_tokens_are_unavailable_during_an_outage() {
    let server = RedisServer::start().unwrap();
    let (_cache, app) = on_redis(&server).await;
    let one = cookie_of(&enter(&app, "ada", &[]).await);
    let two = cookie_of(&enter(&app, "ada", &[]).await);
    drop(server);

    assert_eq!(status(&app, &[&one, &two]).await, 503);
}
