//! Several caches in one process: one for entries, one for sessions, and one in memory for credentials:
//! `cargo run -p recipes --example several_caches`.
//!
//! Sessions must survive when memory is full, and cached values need not. So a second Redis with `maxmemory-policy noeviction` has the
//! sessions: `SESSIONS_REDIS_URL`. Without it, sessions are in the same Redis.

use std::env;

use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::{Cache, Config, cacheable};

struct Gateway {
    /// In the memory of this process: a token is a credential, which other programs must not find in Redis.
    tokens: Cache,
}

impl Gateway {
    /// `cache = …` names the cache of this function. Functions without it use the installed one.
    #[cacheable(key = "token:<user>", ttl = "50m", cache = self.tokens)]
    async fn token(&self, user: u32) -> String {
        println!("request for the token of {user}");
        format!("token-{user}")
    }
}

#[cacheable(key = "profile:<user>", ttl = "1h")]
async fn profile(user: u32) -> String {
    println!("query for the profile of {user}");
    format!("User {user}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let config = Config::from_env()?;
    let (entries, sessions) = match env::var("SESSIONS_REDIS_URL") {
        Ok(url) => {
            // `redis_url` resets the user, the password or its file, and TLS. What the URL does not name must be set again.
            let durable = Cache::connect(config.clone().redis_url(&url)?).await?;
            // Without the keys of sessions, because a Redis that evicts and has sessions is worth a warning.
            (Cache::connect(config.session_keys(None)).await?, durable)
        }
        Err(_) => {
            let shared = Cache::connect(config).await?;
            (shared.clone(), shared)
        }
    };
    entries.install()?; // the other one is not installed

    let store = SessionStore::<()>::new(&sessions)?;
    let gateway = Gateway {
        tokens: Cache::memory(),
    };

    for _ in 0..2 {
        println!("{} with {}", profile(7).await, gateway.token(7).await);
    }
    let session = store.create(NewSession::new(7, "ada")).await?;
    println!("session of user {}", session.data().user_id);

    println!(
        "profile among the entries: {}",
        entries.exists("profile:7").await
    );
    println!(
        "token among the entries: {}",
        entries.exists("token:7").await
    );

    entries.shutdown().await;
    sessions.shutdown().await;
    Ok(())
}
