//! Runs the service: `cargo run -p event-service`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use cache_runtime::{Cache, Config, Mode};
use event_service::db::Db;
use event_service::http::{App, router};
use event_service::settings::Settings;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long requests that are under way may take to end once the process is told to.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("event-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install();
    let db = Db::open(settings.database_url.as_deref(), settings.slow_db).await?;

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

    let server = axum::serve(listener, router(App::new(db.clone(), cache.clone())));
    tokio::select! {
        served = server.with_graceful_shutdown(stop) => served?,
        () = async { overdue.await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests are still under way after {GRACE:?}; leaving them");
        }
    }
    cache.shutdown().await;
    db.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn mode(cache: &Cache) -> &'static str {
    match cache.stats().mode {
        Mode::Memory => "cached in memory: set REDIS_URL to use Redis",
        Mode::Redis => "cached in Redis",
        _ => "not cached until Redis can be reached",
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
