//! Metrics for the recorder of the crate `metrics`.

use ::metrics::{Key, KeyName, Label, Level, Metadata, SharedString, Unit, with_recorder};

use super::family::{Family, Labels, Type, Value};

const METADATA: Metadata<'_> = Metadata::new("cache_runtime", Level::INFO, Some("cache_runtime"));

/// The name of the samples.
fn name(family: Family) -> String {
    match family.kind {
        Type::Counter => format!("{}_total", family.name),
        Type::Gauge | Type::Histogram => family.name.to_owned(),
    }
}

/// Counters of the crate `metrics` are whole numbers, so a counter of seconds is a gauge there, which keeps its fraction.
fn kind(family: Family) -> Type {
    match family.kind {
        Type::Counter if family.unit() == Some("seconds") => Type::Gauge,
        kind => kind,
    }
}

pub(super) fn describe(family: Family) {
    let name = KeyName::from(name(family));
    let unit = match family.unit() {
        Some("seconds") => Some(Unit::Seconds),
        Some("bytes") => Some(Unit::Bytes),
        _ => None,
    };
    let help = SharedString::from(family.help);
    with_recorder(|recorder| match kind(family) {
        Type::Counter => recorder.describe_counter(name, unit, help),
        Type::Gauge => recorder.describe_gauge(name, unit, help),
        Type::Histogram => {}
    });
}

pub(super) fn record(family: Family, labels: Labels<'_>, value: Value) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    let key = Key::from_parts(name(family), labels);
    with_recorder(|recorder| match kind(family) {
        Type::Counter => recorder
            .register_counter(&key, &METADATA)
            .absolute(value.whole()),
        Type::Gauge => recorder.register_gauge(&key, &METADATA).set(value.real()),
        Type::Histogram => {}
    });
}
