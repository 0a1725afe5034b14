//! What operators see: metrics and health.

mod exposition;
mod promtool;
mod scrape;
mod service;
