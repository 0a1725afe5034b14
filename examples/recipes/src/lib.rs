//! Small programs in `examples/`, each with one way to use cache-runtime. The README lists them.

/// The messages, the server and the client of `proto/events.proto`, for the example `tonic`.
pub mod events {
    tonic::include_proto!("events");
}
