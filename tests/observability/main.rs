//! What operators see: metrics and health.

mod exposition;
mod health;
mod operations;
mod promtool;
mod recorder;
mod scrape;
mod service;
