//! How store operations went, by operation. The table has the size of the list below, whatever is called.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use super::histogram::{Distribution, Histogram};
use super::{STRIPES, Times, stripe};
use crate::error::ErrorKind;

/// The operations by their names in the log, the most frequent first. A name that is missing here counts as the last one.
const NAMES: [&str; 26] = [
    "get",
    "get many",
    "lease",
    "tags",
    "fill",
    "confirm",
    "rate limit",
    "session",
    "delete",
    "fence",
    "put",
    "set",
    "refresh",
    "renew",
    "release",
    "throttle",
    "scan",
    "delete each",
    "delete stale",
    "delete dead",
    "delete unreadable",
    "exists",
    "ttl",
    "expire",
    "keys",
    "info",
];

/// The name in the statistics for what is not in the list.
const OTHER: &str = "other";

/// Why an operation had no result, in the order of their counters.
const FAILURES: [&str; 3] = ["error", "timeout", "released"];

/// One kind of store operation, in this process since the start.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.set("stock:7", &12, 60).await;
///
/// let operations = cache.stats().operations;
/// assert!(!operations.is_empty());
/// for operation in operations {
///     println!("{}: {} timeouts, p99 {:?} µs", operation.operation, operation.timeouts, operation.time.p99_micros);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OperationStats {
    /// The name of the operation as in the log, such as `get`.
    pub operation: &'static str,
    /// How long it took for its caller, including failures.
    #[serde(flatten)]
    pub time: Times,
    /// How often it failed for any reason except a timeout.
    pub errors: u64,
    /// How often it did not get an answer in time.
    pub timeouts: u64,
    /// How often it gave up early because Redis answered no operation.
    pub released: u64,
    /// How often it took `slow_threshold` or longer.
    pub slow: u64,
}

/// Counts all operations of a cache.
#[derive(Debug)]
pub(crate) struct Operations {
    /// One for each name, and one for the others.
    kinds: [[Stripe; STRIPES]; NAMES.len() + 1],
}

/// What the threads of one stripe count.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    time: Histogram,
    failed: [AtomicU64; FAILURES.len()],
    slow: AtomicU64,
}

impl Stripe {
    const fn new() -> Self {
        Self {
            time: Histogram::new(),
            failed: [const { AtomicU64::new(0) }; FAILURES.len()],
            slow: AtomicU64::new(0),
        }
    }
}

/// Returns the name of an operation as a label of metrics and a field of spans.
pub(crate) fn label(operation: &str) -> impl fmt::Display {
    Label(operation)
}

/// Makes no text of its own: the fields of spans are evaluated for every operation if a dependency enables `tracing/log`.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.split(' ');
        f.write_str(words.next().unwrap_or_default())?;
        words.try_for_each(|word| write!(f, "_{word}"))
    }
}

impl Operations {
    /// An operation ended after `took`, as a success if there is no `failure`.
    pub(crate) fn record(
        &self,
        operation: &str,
        took: Duration,
        failure: Option<ErrorKind>,
        is_slow: bool,
    ) {
        let kind = NAMES.iter().position(|name| *name == operation);
        let stripe = &self.kinds[kind.unwrap_or(NAMES.len())][stripe()];
        stripe.time.record(took);
        if let Some(failure) = failure {
            let reason = match failure {
                ErrorKind::Timeout => 1,
                ErrorKind::Stalled => 2,
                _ => 0,
            };
            stripe.failed[reason].fetch_add(1, Relaxed);
        }
        if is_slow {
            stripe.slow.fetch_add(1, Relaxed);
        }
    }

    /// What was counted so far, by operation.
    pub(crate) fn read(&self) -> Vec<Operation> {
        let names = NAMES.iter().copied().chain([OTHER]);
        names
            .zip(&self.kinds)
            .map(|(name, stripes)| {
                let mut operation = Operation {
                    name,
                    time: Distribution::new(),
                    failed: [0; FAILURES.len()],
                    slow: 0,
                };
                for stripe in stripes {
                    operation.time.read(&stripe.time);
                    for (sum, counter) in operation.failed.iter_mut().zip(&stripe.failed) {
                        *sum += counter.load(Relaxed);
                    }
                    operation.slow += stripe.slow.load(Relaxed);
                }
                operation
            })
            .collect()
    }
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            kinds: array::from_fn(|_| array::from_fn(|_| Stripe::new())),
        }
    }
}

/// What was counted of one operation at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    name: &'static str,
    pub(super) time: Distribution,
    failed: [u64; FAILURES.len()],
    pub(super) slow: u64,
}

impl Operation {
    /// The name as the value of a label.
    pub(super) fn label(&self) -> String {
        label(self.name).to_string()
    }

    /// How often it failed, by reason.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.into_iter().zip(self.failed)
    }

    /// Returns [`None`] if it was never called.
    pub(super) fn stats(&self) -> Option<OperationStats> {
        let [errors, timeouts, released] = self.failed;
        let time = self.time.times();
        (time.count > 0).then_some(OperationStats {
            operation: self.name,
            time,
            errors,
            timeouts,
            released,
            slow: self.slow,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn operations_count_by_name_and_unknown_names_together() {
        let operations = Operations::default();
        let ms = Duration::from_millis(1);

        operations.record("get", ms, None, false);
        operations.record("get", ms, Some(ErrorKind::Timeout), true);
        operations.record("get", ms, Some(ErrorKind::Stalled), false);
        operations.record("a", ms, Some(ErrorKind::Command), false);
        operations.record("b", ms, None, false);

        let stats: Vec<_> = operations
            .read()
            .iter()
            .filter_map(Operation::stats)
            .map(|stats| {
                let OperationStats {
                    operation,
                    time,
                    errors,
                    timeouts,
                    released,
                    slow,
                } = stats;
                (operation, time.count, errors, timeouts, released, slow)
            })
            .collect();
        assert_eq!(stats, [("get", 3, 0, 1, 1, 1), (OTHER, 2, 1, 0, 0, 0)]);
    }

    /// The names stand where operations are called, as the first text after one of these words.
    #[test]
    fn every_operation_in_the_source_is_listed() {
        const CALLS: [&str; 6] = [
            ".ask(",
            ".op(",
            "Op::new(",
            ".replace(",
            "fresh_for(",
            "Site::new(",
        ];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = ["cache", "session", "limit"]
            .into_iter()
            .flat_map(|folder| {
                let files = fs::read_dir(root.join(folder)).expect("a folder");
                files.map(|file| file.expect("a file").path())
            });
        let mut found = 0;
        let is_source = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_some_and(|name| name != "tests")
        };
        for file in files.filter(is_source) {
            let text = fs::read_to_string(&file).expect("a text");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in CALLS {
                for rest in code.split(call).skip(1) {
                    let name = match call {
                        // A record is named by its template, the second text.
                        "Site::new(" => rest
                            .split('"')
                            .nth(3)
                            .filter(|name| !name.is_empty() && !name.contains('<')),
                        _ => rest
                            .trim_start()
                            .strip_prefix('"')
                            .and_then(|rest| rest.split('"').next()),
                    };
                    if let Some(name) = name {
                        assert!(
                            NAMES.contains(&name),
                            "`{name}` in {} is not listed",
                            file.display()
                        );
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 30, "only {found} operations were found");
    }
}
