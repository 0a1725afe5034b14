//! Runs the service: `cargo run -p requirements-service`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use cache_runtime::{Cache, Config};
use requirements_service::db::Db;
use requirements_service::http::{App, router};
use requirements_service::settings::{Settings, cache_defaults};
use requirements_service::warm;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long running requests may take after the process is told to stop.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("requirements-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let cache = Cache::connect(Config::from_env_over(cache_defaults())?).await?;
    cache.install()?;
    let db = Db::open(settings.database_url.as_deref(), settings.demo_data).await?;
    let app = App::new(db.clone(), cache.clone());
    let router = router(app.clone(), &settings)?;
    let bind = &settings.bind;
    let listener = TcpListener::bind(bind).await.with_context(|| {
        format!("cannot listen on `{bind}`: set BIND to a free address, such as 127.0.0.1:8082")
    })?;
    let (stop, overdue) = (told_to_stop()?, told_to_stop()?);
    tracing::info!("listening on http://{}", listener.local_addr()?);

    // It answers while it warms, but load balancers do not choose it yet.
    let warming = warm::run(app.db.clone(), app.cache.clone());
    let warming = tokio::spawn(warm::ready_after(app, warming));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, service).with_graceful_shutdown(stop).into_future() => served?,
        () = async { overdue.await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests are still running after {GRACE:?}; shutting down without them");
        }
    }
    warming.abort();
    cache.shutdown().await;
    db.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// SIGTERM, as service managers send it, or Ctrl-C.
fn told_to_stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}
