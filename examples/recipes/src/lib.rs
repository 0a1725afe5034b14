//! Small programs in `examples/`, each with one way to use cache-runtime. The README lists them.

/// The messages, the server and the client of `proto/events.proto`, for the example `tonic`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod events {
    tonic::include_proto!("events");
}
