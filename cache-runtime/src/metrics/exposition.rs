//! Where metrics go: into one of the text formats that Prometheus reads, or to the recorder of the crate `metrics`.
//!
//! - `text/plain; version=0.0.4`, which every version reads
//! - [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/).
//!
//! Both have the same series: a scraper that changes its mind about the format continues them. So `le` is written as OpenMetrics
//! requires it, as `1.0` and not as `1`.

use std::fmt::Write;

#[cfg(feature = "metrics")]
use super::facade;
use super::family::{Family, Labels, Type, Value};
use super::histogram::Distribution;

/// Where metrics go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
    /// No text: the recorder of the crate `metrics`. It takes single samples, so it gets no histograms.
    #[cfg(feature = "metrics")]
    Recorder,
}

/// The ends of buckets, as counted and as written.
pub(super) type Ends = [(u64, &'static str)];

/// From nanoseconds to seconds.
pub(super) const SECONDS: f64 = 1e-9;

/// From bytes to bytes.
pub(super) const BYTES: f64 = 1.0;

/// Metrics as text.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self {
            text: String::with_capacity(1 << 15),
            format,
        }
    }

    /// Begins a family. All of its samples follow at once, because it may begin only once.
    pub(super) fn family(&mut self, family: Family) -> Samples<'_> {
        match self.format {
            Format::Prometheus | Format::OpenMetrics => self.describe(family),
            #[cfg(feature = "metrics")]
            Format::Recorder => facade::describe(family),
        }
        Samples {
            text: &mut self.text,
            format: self.format,
            family,
        }
    }

    fn describe(&mut self, family: Family) {
        let Family { name, kind, help } = family;
        let text = &mut self.text;
        // The older format does not know families: it describes the name of the samples.
        let suffix = match (self.format, kind) {
            (Format::Prometheus, Type::Counter) => "_total",
            _ => "",
        };
        let type_name = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        for part in ["# HELP ", name, suffix, " ", help, "\n"] {
            text.push_str(part);
        }
        for part in ["# TYPE ", name, suffix, " ", type_name, "\n"] {
            text.push_str(part);
        }
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit()) {
            for part in ["# UNIT ", name, " ", unit, "\n"] {
                text.push_str(part);
            }
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one family.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    text: &'a mut String,
    format: Format,
    family: Family,
}

impl Samples<'_> {
    pub(super) fn add(&mut self, labels: Labels<'_>, value: impl Into<Value>) {
        let value = value.into();
        match (self.format, self.family.kind) {
            #[cfg(feature = "metrics")]
            (Format::Recorder, _) => facade::record(self.family, labels, value),
            (_, Type::Counter) => self.line("_total", labels, None, value),
            _ => self.line("", labels, None, value),
        }
    }

    /// The buckets, the sum and the count of a histogram. `scale` turns what was counted into the unit of the family.
    pub(super) fn add_histogram(
        &mut self,
        labels: Labels<'_>,
        distribution: &Distribution,
        ends: &Ends,
        scale: f64,
    ) {
        #[cfg(feature = "metrics")]
        if self.format == Format::Recorder {
            return;
        }
        for ((_, le), count) in ends.iter().zip(distribution.up_to(ends)) {
            self.line("_bucket", labels, Some(le), count.into());
        }
        // Counted from the same numbers as the buckets, so the last one is never below another.
        let count = distribution.count();
        self.line("_bucket", labels, Some("+Inf"), count.into());
        let sum = distribution.sum() as f64 * scale;
        self.line("_sum", labels, None, sum.into());
        self.line("_count", labels, None, count.into());
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: Value) {
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut separator = '{';
        for (name, value) in all {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(self.text, value);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, " {value}");
    }
}

/// Appends the value of a label.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::Histogram;

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let mut samples = exposition.family(Family::counter("a", "Some."));
        samples.add(&[], 1_u64);
        samples.add(&[("b", "\\ \" \n é")], u64::MAX);
        let mut samples = exposition.family(Family::gauge("c_bytes", "Others."));
        samples.add(&[], f64::INFINITY);
        samples.add(&[], f64::NAN);
        samples.add(&[], 0.25);
        let histogram = Histogram::new();
        histogram.record_number(1_000_000);
        histogram.record_number(2_000_000);
        let mut times = Distribution::new();
        times.read(&histogram);
        let mut samples = exposition.family(Family::histogram("d_seconds", "Times."));
        samples.add_histogram(&[("e", "f")], &times, &[(1_000_000, "0.001")], SECONDS);
        exposition.finish()
    }

    #[test]
    fn the_older_format_describes_samples() {
        assert_eq!(
            written(Format::Prometheus),
            "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\na_total{b=\"\\\\ \\\" \\n é\"} 18446744073709551615\n\
             # HELP c_bytes Others.\n# TYPE c_bytes gauge\nc_bytes +Inf\nc_bytes NaN\nc_bytes 0.25\n\
             # HELP d_seconds Times.\n# TYPE d_seconds histogram\nd_seconds_bucket{e=\"f\",le=\"0.001\"} 1\n\
             d_seconds_bucket{e=\"f\",le=\"+Inf\"} 2\nd_seconds_sum{e=\"f\"} 0.003\nd_seconds_count{e=\"f\"} 2\n"
        );
    }

    #[test]
    fn openmetrics_describes_families_and_has_an_end() {
        let older = written(Format::Prometheus);
        let openmetrics = written(Format::OpenMetrics);

        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(&openmetrics), samples(&older));
        assert!(openmetrics.starts_with("# HELP a Some.\n# TYPE a counter\na_total 1\n"));
        assert!(openmetrics.contains("# TYPE c_bytes gauge\n# UNIT c_bytes bytes\n"));
        assert!(openmetrics.contains("# UNIT d_seconds seconds\n"));
        assert!(openmetrics.ends_with("\n# EOF\n"));
    }
}
