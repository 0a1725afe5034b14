//! The figures of benchmarks and how they are printed.

use std::fmt::{self, Display};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The cached value of the benchmarks: an event of about 200 bytes of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    id: u64,
    title: String,
    location: String,
    organizer_id: u64,
    starts_at: i64,
    tickets_left: u32,
    tags: Vec<String>,
}

impl Event {
    /// Returns the same event for the same `id` in every process.
    pub fn sample(id: u64) -> Self {
        Self {
            id,
            title: format!("An evening with the string quartet of district {id}"),
            location: "Concert hall, north wing".into(),
            organizer_id: id % 200,
            starts_at: 1_900_000_000,
            tickets_left: 250,
            tags: vec!["music".into(), "evening".into()],
        }
    }

    /// The same with as many tags as make it about `bytes` of JSON.
    pub fn of_size(id: u64, bytes: usize) -> Self {
        const SAMPLE: usize = 200;
        const TAG: &str = "chamber music";
        let missing = bytes.saturating_sub(SAMPLE) / (TAG.len() + 3);
        let mut event = Self::sample(id);
        event.tags.extend(vec![TAG.to_owned(); missing]);
        event
    }
}

/// The median and the quartiles of the measurements of several blocks.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// A quarter of the blocks are below this.
    pub lower: f64,
    /// Half of the blocks are below this.
    pub median: f64,
    /// A quarter of the blocks are above this.
    pub upper: f64,
}

impl Spread {
    /// Computes the spread of the measurements of all blocks.
    pub fn of(blocks: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = blocks.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * sorted.len() as f64) as usize;
            sorted.get(index).copied().unwrap_or(f64::NAN)
        };
        Self {
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
        }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lower,
            median,
            upper,
        } = self;
        let digits = f.precision().unwrap_or(3);
        write!(
            f,
            "{median:.digits$} (quartiles {lower:.digits$} to {upper:.digits$})"
        )
    }
}

/// Prints figures next to their limits and records missed limits.
#[derive(Debug, Default)]
pub struct Figures {
    missed: u32,
}

impl Figures {
    /// Prints the subject of the following figures.
    #[expect(clippy::print_stdout, reason = "a benchmark's result")]
    pub fn heading(&self, what: impl Display) {
        println!("{what}");
    }

    /// Prints a figure without a limit.
    #[expect(clippy::print_stdout, reason = "a benchmark's result")]
    pub fn note(&self, what: &str, measured: impl Display) {
        println!("         {what}: {measured}");
    }

    /// Prints a figure with its limit, and whether the limit was met.
    #[expect(clippy::print_stdout, reason = "a benchmark's result")]
    pub fn check(&mut self, what: &str, measured: impl Display, limit: &str, met: bool) {
        let verdict = if met { "ok    " } else { "MISSED" };
        println!("  {verdict} {what}: {measured}; {limit}");
        self.missed += u32::from(!met);
    }

    /// Returns a failure if a limit was missed.
    pub fn finish(self) -> ExitCode {
        if self.missed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Returns the average time of a call.
pub async fn time<F: Future>(calls: u32, mut call: impl FnMut(u32) -> F) -> Duration {
    let start = Instant::now();
    for index in 0..calls {
        std::hint::black_box(call(index).await);
    }
    start.elapsed() / calls
}
