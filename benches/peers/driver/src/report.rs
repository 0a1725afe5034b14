//! Tables, and figures in them.

use std::fmt;

/// What stands for a feature that a crate does not have.
pub(crate) const DASH: &str = "–";

/// A table in Markdown.
pub(crate) struct Table {
    columns: usize,
    notes: Vec<String>,
}

impl Table {
    /// Prints the head.
    pub(crate) fn begin(columns: &[&str]) -> Self {
        println!("| {} |", columns.join(" | "));
        println!("|---{}|", "|---:".repeat(columns.len() - 1));
        Self {
            columns: columns.len(),
            notes: Vec::new(),
        }
    }

    /// Prints a row. Cells that are missing are empty.
    pub(crate) fn row(&self, label: &str, cells: &[String]) {
        let mut row = vec![label.to_owned()];
        row.extend_from_slice(cells);
        row.resize(self.columns, String::new());
        println!("| {} |", row.join(" | "));
    }

    /// Prints the row of a peer: its ratios, or why it has none.
    pub(crate) fn ratios<P>(&mut self, label: &str, peer: &anyhow::Result<P>, ratios: &[Spread]) {
        match peer {
            Ok(_) => {
                let cells = ratios.iter().map(|ratio| format!("{ratio:.2}"));
                self.row(label, &cells.collect::<Vec<_>>());
            }
            Err(error) => self.missing(label, error),
        }
    }

    /// Prints a row without figures. The reason is printed below the table.
    pub(crate) fn missing(&mut self, label: &str, reason: &anyhow::Error) {
        self.row(label, &[DASH.to_owned()]);
        let reason = format!("{reason:#}");
        let reason = reason
            .strip_prefix(&format!("{label}: "))
            .unwrap_or(&reason);
        self.note(label, reason.trim_end_matches('.'));
    }

    /// Prints a sentence about a row below the table.
    pub(crate) fn note(&mut self, label: &str, text: &str) {
        self.notes.push(format!("- {label}: {text}."));
    }

    /// Prints what is below the table.
    pub(crate) fn end(self) {
        println!();
        for note in &self.notes {
            println!("{note}");
        }
        if !self.notes.is_empty() {
            println!();
        }
    }
}

/// The figures of several rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Returns the figure that `share` of the others are below, or one further from the median.
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = share * sorted.len().saturating_sub(1) as f64;
        let place = if share < 0.5 {
            place.floor()
        } else {
            place.ceil()
        };
        sorted.get(place as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Prints `median (quartile to quartile)`, with the precision that is asked for.
impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = formatter.precision().unwrap_or(2);
        let (lower, median, upper) = (self.at(0.25), self.median(), self.at(0.75));
        write!(
            formatter,
            "{median:.digits$} ({lower:.digits$} to {upper:.digits$})"
        )
    }
}

/// Returns nanoseconds in the unit that suits them.
pub(crate) fn duration(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 1e3 => format!("{nanos:.0} ns"),
        nanos if nanos < 1e6 => format!("{:.0} µs", nanos / 1e3),
        nanos if nanos < 1e9 => format!("{:.0} ms", nanos / 1e6),
        nanos => format!("{:.1} s", nanos / 1e9),
    }
}

/// Returns a whole number with separators.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_quartiles() {
        let spread = Spread(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(format!("{spread:.1}"), "3.0 (2.0 to 4.0)");
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(duration(101_400_000.0), "101 ms");
        assert_eq!(duration(9_440_000_000.0), "9.4 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }
}
