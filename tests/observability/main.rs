//! What operators see: metrics, health and the catalog.

mod catalog;
mod exposition;
mod health;
mod operations;
mod promtool;
mod recorder;
mod scrape;
mod service;
mod views;
