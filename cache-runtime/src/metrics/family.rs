//! Metrics of one name, and the values of their samples.

use std::fmt;

/// Metrics of one name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Without the suffix `_total`.
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// Ends with a full stop. Without quotes and backslashes, which the formats escape differently.
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// The names and values of labels.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Family {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        let kind = Type::Counter;
        Self { name, kind, help }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        let kind = Type::Gauge;
        Self { name, kind, help }
    }

    pub(super) const fn histogram(name: &'static str, help: &'static str) -> Self {
        let kind = Type::Histogram;
        Self { name, kind, help }
    }

    /// What the name ends with, if that is a unit.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let (_, last) = self.name.rsplit_once('_')?;
        ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| *unit == last)
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

#[cfg(feature = "metrics")]
impl Value {
    pub(super) fn whole(self) -> u64 {
        match self {
            Self::Whole(whole) => whole,
            Self::Real(real) => real as u64,
        }
    }

    pub(super) fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

impl From<u64> for Value {
    fn from(whole: u64) -> Self {
        Self::Whole(whole)
    }
}

impl From<usize> for Value {
    fn from(whole: usize) -> Self {
        Self::Whole(whole as u64)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Self {
        Self::Real(real)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Real(f64::INFINITY) => f.write_str("+Inf"),
            Self::Real(real) => real.fmt(f),
        }
    }
}
