//! Runs the service: `cargo run -p event-service`. `event-service --help` lists the other commands.

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use cache_runtime::catalog::Catalog;
use cache_runtime::http::{SessionLayer, admin};
use cache_runtime::limit::{Policy, RateLimiter};
use cache_runtime::session::{DebugTokens, SessionStore};
use cache_runtime::{Cache, Mode};
use event_service::db::Db;
use event_service::http::{App, router};
use event_service::server::{self, Limits};
use event_service::settings::{Settings, cache_config};
use event_service::{guesses, warm};
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Faster than the system's allocator when many small values are allocated by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long a debug token is valid.
const DEBUG_TOKEN: Duration = Duration::from_secs(60 * 60);

/// How long running requests may take after the process is told to stop.
const GRACE: Duration = Duration::from_secs(10);

const HELP: &str = "\
Usage: event-service [warm | catalog [--json] | acl | debug-token]

Without a command it serves HTTP.

Commands:
  warm               fills the cache in Redis with the most requested data, then exits
  catalog [--json]   prints what is cached and which functions evict it; fails if anything looks like a mistake
  acl                prints the command that creates a Redis user with the permissions that the service needs
  debug-token        prints a token for the header `Cache-Debug` that is valid for 1 hour; needs CACHE_SESSION_KEYS

Variables: BIND, DATABASE_URL, SLOW_DB_MS, WARM_EVERY, TRUSTED_PROXIES, TRUSTED_ORIGINS, INSECURE_COOKIE,
ADMIN_TOKEN, ADMIN_READ_TOKEN, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_REQUESTS, HEAD_TIMEOUT, BODY_TIMEOUT,
WRITE_TIMEOUT, LOGIN_WAIT, RUST_LOG, REDIS_URL, CACHE_…; see examples/event-service/README.md
";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments
        .iter()
        .map(|text| text.to_string_lossy())
        .collect();
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    let ended = match arguments[..] {
        [] => {
            tracing_subscriber::fmt()
                .with_env_filter(filter("info"))
                .init();
            serve().await
        }
        ["warm"] => {
            // Only warnings: other lines would break the progress bar.
            let log = tracing_subscriber::fmt().with_env_filter(filter("warn"));
            log.with_writer(io::stderr).init();
            warm_once().await
        }
        ["catalog"] => catalog(|catalog| Ok(catalog.to_string())),
        ["catalog", "--json"] => {
            catalog(|catalog| Ok(serde_json::to_string_pretty(catalog)? + "\n"))
        }
        ["acl"] => print_acl(),
        ["debug-token"] => print_debug_token(),
        ["-h" | "--help"] => say(HELP),
        _ => {
            let given = arguments.join(" ");
            eprintln!("event-service: unknown command `{given}`: see `event-service --help`");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("event-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

/// Prints to standard output, which may be a closed pipe.
fn say(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// `event-service warm`
async fn warm_once() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let config = cache_config()?;
    ensure!(
        config.redis.is_some(),
        "set REDIS_URL: a cache in memory is lost when this command exits"
    );
    ensure!(
        settings.database_url.is_some(),
        "set DATABASE_URL: a temporary database is not the database that the service reads"
    );
    let cache = Cache::connect(config).await?;
    cache.install()?;
    let db = Db::open(settings.database_url.as_deref(), settings.slow_db).await?;

    let summary = warm::run(&db, &cache, warm::shown()).await?;

    cache.shutdown().await;
    db.close().await;
    say(&format!("{summary}\n"))?;
    for error in &summary.errors {
        eprintln!("{error}");
    }
    ensure!(
        summary.failed == 0,
        "{} items are not in the cache",
        summary.failed
    );
    Ok(())
}

/// `event-service catalog`, under the configuration that the service would have. It does not connect to Redis.
fn catalog(write: impl FnOnce(&Catalog) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let catalog = Catalog::new(&cache_config()?);
    say(&write(&catalog)?)?;
    ensure!(catalog.findings.is_empty(), "the catalog has findings");
    Ok(())
}

/// `event-service acl`, under the configuration that the service would have. It does not connect to Redis.
fn print_acl() -> anyhow::Result<()> {
    say(&format!("{}\n", cache_config()?.acl_rule()))
}

/// `event-service debug-token`
fn print_debug_token() -> anyhow::Result<()> {
    let tokens = DebugTokens::new(&cache_config()?)?;
    say(&format!("{}\n", tokens.issue(DEBUG_TOKEN)?))
}

async fn serve() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let cache = Cache::connect(cache_config()?).await?;
    cache.install()?;
    let limiter = RateLimiter::new(
        &cache,
        [Policy::api(), Policy::auth(), Policy::payment()]
            .into_iter()
            .chain(guesses::policies()),
    )?;
    limiter.install()?;
    let store = SessionStore::new(&cache)?;
    let mut sessions = SessionLayer::new(store.clone()).cookie(settings.cookie.clone())?;
    if !settings.trusted_origins.is_empty() {
        sessions = sessions
            .trusted_origins(&settings.trusted_origins)
            .context("TRUSTED_ORIGINS is invalid")?;
    }
    let db = Db::open(settings.database_url.as_deref(), settings.slow_db).await?;
    let schedule = settings
        .warm_every
        .map(|period| warm::every(period, &db, &cache));

    let admin_config = settings
        .admin
        .clone()
        .limiter(&limiter)
        .sessions(&store)
        .job("popular", {
            let parts = (db.clone(), cache.clone());
            move || {
                let (db, cache) = parts.clone();
                async move { warm::run(&db, &cache, |_| {}).await }
            }
        });

    let (stop, overdue) = (told_to_stop()?, told_to_stop()?);
    let bind = &settings.bind;
    let listener = TcpListener::bind(bind).await.with_context(|| {
        format!("cannot listen on `{bind}`: set BIND to a free address, such as 127.0.0.1:8081")
    })?;
    tracing::info!(
        "listening on http://{}, {}",
        listener.local_addr()?,
        mode(&cache)
    );

    let app = App::new(db.clone(), cache.clone(), &limiter, &settings)?;
    let limits = Limits::new(
        settings.max_connections,
        settings.max_connections_per_address,
        settings.client_ip.clone(),
    );
    let router = router(
        app,
        &limiter,
        settings.client_ip,
        sessions,
        admin(&cache, admin_config),
        settings.max_requests,
    )?;
    tokio::select! {
        () = server::serve(listener, router, limits, settings.timeouts, stop) => {}
        () = async { overdue.await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests are still running after {GRACE:?}; shutting down without them");
        }
    }
    drop(schedule);
    cache.shutdown().await;
    db.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn mode(cache: &Cache) -> &'static str {
    match cache.stats().mode {
        Mode::Memory => "cached in memory: set REDIS_URL to use Redis",
        Mode::Redis => "cached in Redis",
        _ => "not cached until Redis is reachable",
    }
}

/// SIGTERM, as service managers send it, or Ctrl-C.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}
