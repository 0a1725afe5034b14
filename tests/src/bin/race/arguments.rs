//! The arguments of the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const USAGE: &str = "usage: race [--seconds N] [--mode key|pattern|put|mixed] [--readers N] [--seed N] [--redis URL | --chaos] [--unsafe | --tag | --local]";

/// How writers update the cache.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Mode {
    Key,
    Pattern,
    Put,
    /// Each writer uses all of them in turn.
    Mixed,
}

/// What prevents late fills.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Guard {
    /// The attributes of this crate.
    Attributes,
    /// The usual code without attributes: get, and after a miss read the table and set without a condition. To write, update the
    /// table and delete the key.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) duration: Duration,
    pub(crate) mode: Mode,
    /// The readers of each process, if not the usual few. Reads of 100 leave in batches.
    pub(crate) readers: Option<u64>,
    pub(crate) redis: Option<String>,
    pub(crate) guard: Guard,
    pub(crate) entries: Entries,
    pub(crate) chaos: bool,
    pub(crate) seed: u64,
}

/// What entries have, beside a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entries {
    /// Entries have tags, and `key` and `mixed` evict by tag in place of by key.
    pub(crate) tagged: bool,
    /// Processes keep values in their memory.
    pub(crate) local: bool,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            duration: Duration::from_secs(10),
            mode: Mode::Mixed,
            readers: None,
            redis: None,
            guard: Guard::Attributes,
            entries: Entries::default(),
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
                        other => bail!("`{other}` is not a mode; {USAGE}"),
                    }
                }
                "--readers" => parsed.readers = Some(value()?.parse().context(USAGE)?),
                "--redis" => parsed.redis = Some(value()?),
                "--unsafe" => parsed.guard = Guard::Nothing,
                "--tag" => parsed.entries.tagged = true,
                "--local" => parsed.entries.local = true,
                "--chaos" => parsed.chaos = true,
                "--seed" => parsed.seed = value()?.parse().context(USAGE)?,
                _ => bail!("`{word}` is not an argument; {USAGE}"),
            }
        }
        if parsed.chaos && parsed.redis.is_some() {
            bail!("`--chaos` kills its Redis, so it starts one itself; leave out `--redis`");
        }
        if parsed.guard == Guard::Nothing && parsed.entries != Entries::default() {
            bail!("`--unsafe` uses no attributes; leave out `--tag` and `--local`");
        }
        Ok(parsed)
    }
}
