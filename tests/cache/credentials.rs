//! Passwords that change while the cache runs.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, Credentials, Login, Mode};
use redis::aio::MultiplexedConnection;

use crate::support::{Table, connect, raw, row, server, until};

/// Sets the only password of the user `app`.
async fn set_password(raw: &mut MultiplexedConnection, password: &str) {
    let rules = [
        "app",
        "reset",
        "on",
        &format!(">{password}"),
        "~*",
        "&*",
        "+@all",
    ];
    let () = redis::cmd("ACL")
        .arg("SETUSER")
        .arg(&rules)
        .query_async(raw)
        .await
        .expect("the rules are valid");
}

/// Ends the connections of that user.
async fn kill(raw: &mut MultiplexedConnection) {
    let _: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "USER", "app"])
        .query_async(raw)
        .await
        .expect("the server answers");
}

async fn is_in(cache: &Cache, table: &Table, mode: Mode) {
    until(&format!("the cache is in {mode:?}"), async || {
        row(cache, table, 1).await;
        cache.stats().mode == mode
    })
    .await;
}

async fn reason(cache: &Cache) -> String {
    cache.health().await.fallback_reason.unwrap_or_default()
}

fn config(server: &RedisServer) -> Config {
    server.config().pool_min(2).username("app")
}

/// A file that is removed on drop.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let file = Self(path);
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("the file is written");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_password_is_read_from_its_file_for_every_connection() {
    let server = server();
    let mut raw = raw(&server).await;
    set_password(&mut raw, "old").await;
    let file = File::new("password", "old\n");
    let cache = connect(config(&server).password_file(file.0.clone())).await;
    let table = Table::default();
    is_in(&cache, &table, Mode::Redis).await;

    set_password(&mut raw, "new").await;
    kill(&mut raw).await;
    is_in(&cache, &table, Mode::Fallback).await;
    until("the reason is known", async || {
        reason(&cache).await.contains("credentials")
    })
    .await;
    fs::remove_file(&file.0).expect("the file is there");
    until("the reason is known", async || {
        reason(&cache)
            .await
            .contains("`REDIS_PASSWORD_FILE` cannot be read")
    })
    .await;

    file.write("new\n");
    is_in(&cache, &table, Mode::Redis).await;
}

#[tokio::test]
async fn a_function_provides_a_token_for_every_connection() {
    let server = server();
    let mut raw = raw(&server).await;
    set_password(&mut raw, "token-1").await;
    let token = Arc::new(Mutex::new(Ok("token-1")));
    let panics = Arc::new(AtomicBool::new(false));
    let provide = {
        let (token, panics) = (Arc::clone(&token), Arc::clone(&panics));
        move || {
            assert!(!panics.load(Ordering::SeqCst), "as asked for");
            let token = *token.lock().expect("nobody panicked");
            async move { token.map(|token| Login::new("app", token)) }
        }
    };
    let set = |next: Result<&'static str, &'static str>| {
        *token.lock().expect("nobody panicked") = next;
    };
    let cache = connect(
        server
            .config()
            .pool_min(2)
            .credentials(Credentials::new(provide)),
    )
    .await;
    let table = Table::default();
    is_in(&cache, &table, Mode::Redis).await;

    set(Err("the token service is away"));
    set_password(&mut raw, "token-2").await;
    kill(&mut raw).await;
    is_in(&cache, &table, Mode::Fallback).await;
    until("the reason is known", async || {
        reason(&cache)
            .await
            .contains("the function of `credentials` returned an error: the token service is away")
    })
    .await;
    panics.store(true, Ordering::SeqCst);
    until("the reason is known", async || {
        reason(&cache).await.contains("panicked")
    })
    .await;

    panics.store(false, Ordering::SeqCst);
    set(Ok("token-2"));
    is_in(&cache, &table, Mode::Redis).await;
    assert!(!format!("{:?} {}", cache.health().await, server.config()).contains("token-2"));
}

#[tokio::test]
async fn a_function_that_does_not_return_delays_no_caller() {
    let server = server();
    let forever = Credentials::new(std::future::pending::<Result<Login, std::fmt::Error>>);
    let limit = std::time::Duration::from_millis(200);

    let cache = connect(server.config().connect_timeout(limit).credentials(forever)).await;

    let table = Table::default();
    row(&cache, &table, 1).await;
    until("the reason is known", async || {
        reason(&cache)
            .await
            .contains("the function of `credentials` did not return within 200ms")
    })
    .await;
}
