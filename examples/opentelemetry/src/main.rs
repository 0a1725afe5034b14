//! Calls a cached function, and prints what a collection exports: `cargo run -p opentelemetry-example`.
//!
//! With `REDIS_URL` it uses that server, and otherwise the memory of the process.

use std::error::Error;

use cache_runtime::{Cache, Config, cacheable};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_example::register;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_stdout::MetricExporter;

#[cacheable(key = "square:<n>", ttl = "1m")]
async fn square(n: u64) -> u64 {
    n * n
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    // The reader collects every 60 s, and at the shutdown.
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(MetricExporter::default())
        .build();
    register(&provider.meter("cache-runtime"), &cache);

    for n in [1, 2, 2, 2] {
        square(n).await;
    }

    provider.shutdown()?;
    cache.shutdown().await;
    Ok(())
}
