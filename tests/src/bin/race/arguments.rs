//! What the command line asks for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const USAGE: &str = "usage: race [--seconds N] [--mode key|pattern|put|mixed] [--redis URL | --chaos [--seed N]] [--unsafe]";

/// How writers keep the cache up to date.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Mode {
    Key,
    Pattern,
    Put,
    /// Each writer by all of them in turn.
    Mixed,
}

/// What keeps a late value out of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Guard {
    /// Our attributes.
    Attributes,
    /// What is often written by hand: look, else read the table and store without a condition; write the table, then
    /// delete.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) duration: Duration,
    pub(crate) mode: Mode,
    pub(crate) redis: Option<String>,
    pub(crate) guard: Guard,
    pub(crate) chaos: bool,
    pub(crate) seed: u64,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            duration: Duration::from_secs(10),
            mode: Mode::Mixed,
            redis: None,
            guard: Guard::Attributes,
            chaos: false,
            seed: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("`{word}` needs a value; {USAGE}"))
            };
            match word.as_str() {
                "--seconds" => {
                    parsed.duration = Duration::from_secs(value()?.parse().context(USAGE)?);
                }
                "--mode" => {
                    parsed.mode = match value()?.as_str() {
                        "key" => Mode::Key,
                        "pattern" => Mode::Pattern,
                        "put" => Mode::Put,
                        "mixed" => Mode::Mixed,
                        other => bail!("`{other}` is no mode; {USAGE}"),
                    }
                }
                "--redis" => parsed.redis = Some(value()?),
                "--unsafe" => parsed.guard = Guard::Nothing,
                "--chaos" => parsed.chaos = true,
                "--seed" => parsed.seed = value()?.parse().context(USAGE)?,
                _ => bail!("`{word}` is no argument; {USAGE}"),
            }
        }
        if parsed.chaos && parsed.redis.is_some() {
            bail!("`--chaos` kills its Redis, so it takes one of its own; leave out `--redis`");
        }
        Ok(parsed)
    }
}
