//! Captures logs, for tests that assert on them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{self, Interest};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}

/// Captures what this thread logs, up to a level, until it is dropped.
///
/// One subscriber serves the whole process and asks each thread whether it listens. A default subscriber of one thread
/// would miss lines: `tracing` caches for each call site whether a subscriber is interested. While there is only one
/// subscriber, the first thread at that site decides, and it may run another test.
#[derive(Debug)]
pub(crate) struct Log(());

#[derive(Debug)]
struct Heard {
    most: Level,
    lines: Vec<Line>,
}

/// An event or a new span.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
    is_span: bool,
}

impl Log {
    #[must_use]
    pub(crate) fn listen(most: Level) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            subscriber::set_global_default(Router).expect("the only subscriber");
        });
        HEARD.set(Some(Heard {
            most,
            lines: Vec::new(),
        }));
        Self(())
    }

    /// Returns what was logged since the last call.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<Line> {
        HEARD.with_borrow_mut(|heard| {
            let heard = heard.as_mut().expect("the log is not dropped");
            std::mem::take(&mut heard.lines)
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level, self.target)?;
        for (field, value) in &self.fields {
            write!(f, " {field}={value}")?;
        }
        Ok(())
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

struct Router;

impl Router {
    fn hear(metadata: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
        let mut line = Line {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            fields: BTreeMap::new(),
            is_span: metadata.is_span(),
        };
        record(&mut line);
        HEARD.with_borrow_mut(|heard| {
            if let Some(heard) = heard {
                heard.lines.push(line);
            }
        });
    }
}

impl Subscriber for Router {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        HEARD.with_borrow(|heard| {
            heard
                .as_ref()
                .is_some_and(|heard| *metadata.level() <= heard.most)
        })
    }

    fn event(&self, event: &Event<'_>) {
        Self::hear(event.metadata(), |line| event.record(line));
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::hear(span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    /// Adds the fields to the newest span. Spans are not told apart.
    fn record(&self, _: &Id, values: &Record<'_>) {
        HEARD.with_borrow_mut(|heard| {
            let lines = heard.iter_mut().flat_map(|heard| &mut heard.lines);
            if let Some(span) = lines.rev().find(|line| line.is_span) {
                values.record(span);
            }
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
