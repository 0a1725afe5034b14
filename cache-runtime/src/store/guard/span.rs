//! A span around every operation in Redis, with the names of OpenTelemetry's conventions for databases.

use tracing::field::Empty;
use tracing::{Span, trace_span};

use super::Op;
use crate::error::ErrorKind;
use crate::metrics::operation_label;

/// Returns a span for an operation. Without a subscriber at this level, it is empty and costs one comparison.
///
/// `otel.name` and `otel.kind` are read by the crate `tracing-opentelemetry`. The span has no key, because keys may contain personal
/// data.
pub(super) fn around(op: &Op<'_>) -> Span {
    trace_span!(
        target: "cache_runtime::redis",
        "redis",
        otel.name = command(op.name),
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = command(op.name),
        cache.operation = %operation_label(op.name),
        cache.function = op.site.name,
        "error.type" = Empty,
    )
}

/// Records that the operation failed.
pub(super) fn fail(span: &Span, kind: ErrorKind) {
    if span.is_disabled() {
        return;
    }
    span.record(
        "error.type",
        match kind {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Connection => "connection",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Stalled => "stalled",
            ErrorKind::Command => "command",
            ErrorKind::Foreign => "wrong_type",
            ErrorKind::Config | ErrorKind::Input | ErrorKind::Encode | ErrorKind::Refused => {
                "_OTHER"
            }
        },
    );
}

/// Returns the main command of an operation. All operations that are not listed run a script.
fn command(operation: &str) -> &'static str {
    match operation {
        "get" => "GET",
        "get many" => "MGET",
        "lease" | "set" => "SET",
        "delete" | "delete each" => "UNLINK",
        "scan" | "keys" => "SCAN",
        "exists" | "ttl" => "GETRANGE",
        "info" => "INFO",
        _ => "EVALSHA",
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use crate::Cache;
    use crate::store::support::ask;
    use crate::testing::RedisServer;
    use crate::testing::log::{Line, Log};

    fn spans(lines: Vec<Line>) -> Vec<Line> {
        let is_span = |line: &Line| line.target == "cache_runtime::redis";
        lines.into_iter().filter(is_span).collect()
    }

    #[tokio::test]
    async fn operations_in_redis_have_spans_with_the_names_of_opentelemetry() {
        let server = RedisServer::start().expect("redis-server starts");
        let cache = Cache::connect(server.config()).await.expect("connects");
        let log = Log::listen(Level::TRACE);

        cache.set("a", &1, 60_u64).await;
        cache.get::<u8>("a").await;

        let spans = spans(log.take());
        let shown = |field: &str| -> Vec<String> {
            let values = spans.iter().map(|span| span.fields[field].clone());
            values.collect()
        };
        assert_eq!(shown("db.system.name"), ["redis", "redis"]);
        assert_eq!(shown("db.operation.name"), ["SET", "GET"]);
        assert_eq!(shown("otel.name"), ["SET", "GET"]);
        assert_eq!(shown("cache.operation"), ["set", "get"]);
        let has_error = |span: &Line| span.fields.contains_key("error.type");
        assert!(!spans.iter().any(has_error), "{spans:?}");
    }

    #[tokio::test]
    async fn a_failed_operation_has_the_type_of_its_error() {
        let server = RedisServer::start().expect("redis-server starts");
        let cache = Cache::connect(server.config()).await.expect("connects");
        let () = ask(&server, &["RPUSH", "test_list", "x"]);
        let log = Log::listen(Level::TRACE);

        cache.get::<u8>("list").await;

        let spans = spans(log.take());
        let errors: Vec<_> = spans
            .iter()
            .map(|span| span.fields.get("error.type").map(String::as_str))
            .collect();
        assert_eq!(errors, [Some("wrong_type")], "{spans:?}");
    }

    #[tokio::test]
    async fn the_operation_is_spelled_as_in_the_label_of_metrics() {
        let server = RedisServer::start().expect("redis-server starts");
        let cache = Cache::connect(server.config()).await.expect("connects");
        let () = ask(&server, &["ACL", "SETUSER", "default", "-unlink"]);
        let log = Log::listen(Level::TRACE);

        cache.delete_many(&["a", "b"]).await;

        let spans = spans(log.take());
        let operations: Vec<_> = spans
            .iter()
            .map(|span| &*span.fields["cache.operation"])
            .collect();
        assert_eq!(operations, ["delete", "delete_each"]);
        let label = "cache_operation_duration_seconds_count{operation=\"delete_each\"} 1";
        assert!(cache.prometheus().contains(label));
    }

    #[tokio::test]
    async fn there_is_no_span_in_memory_or_below_the_level() {
        let server = RedisServer::start().expect("redis-server starts");
        let cache = Cache::connect(server.config()).await.expect("connects");

        let log = Log::listen(Level::DEBUG);
        cache.get::<u8>("a").await;
        let below = spans(log.take());
        drop(log);
        let log = Log::listen(Level::TRACE);
        Cache::memory().get::<u8>("a").await;
        let in_memory = spans(log.take());

        assert!(below.is_empty(), "{below:?}");
        assert!(in_memory.is_empty(), "{in_memory:?}");
    }
}
