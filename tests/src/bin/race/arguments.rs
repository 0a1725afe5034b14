//! The arguments of the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const USAGE: &str = "usage: race [--seconds N] [--mode key|pattern|put|mixed] [--readers N] [--seed N] [--redis URL | --chaos [--cluster] | --failovers | --calm] [--unsafe | --tag | --local]";

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
    /// Several processes race while these happen.
    pub(crate) faults: Option<Faults>,
    /// Whether the Redis that fails is a cluster.
    pub(crate) is_cluster: bool,
    pub(crate) seed: u64,
}

/// Which faults happen, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Faults {
    /// All kinds, about one a second.
    Many,
    /// Replicas take the place of primaries, and some of them lack evictions that their primary acknowledged.
    Failovers,
    /// Only kinds that hardly disturb calls, with more time between two than values in a process may be old. A process whose
    /// connections are opened again all the time confirms its values so often that reports of changes hardly matter.
    Few,
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
            faults: None,
            is_cluster: false,
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
                "--chaos" => parsed.faults = Some(Faults::Many),
                "--failovers" => {
                    (parsed.faults, parsed.is_cluster) = (Some(Faults::Failovers), true);
                }
                "--calm" => parsed.faults = Some(Faults::Few),
                "--cluster" => parsed.is_cluster = true,
                "--seed" => parsed.seed = value()?.parse().context(USAGE)?,
                _ => bail!("`{word}` is not an argument; {USAGE}"),
            }
        }
        if parsed.faults.is_some() && parsed.redis.is_some() {
            bail!(
                "`--chaos`, `--failovers` and `--calm` disturb their Redis, so they start one; leave out `--redis`"
            );
        }
        if parsed.faults == Some(Faults::Few) && !parsed.entries.local {
            bail!("`--calm` has faults for processes that keep values; add `--local`");
        }
        if parsed.is_cluster && matches!(parsed.faults, None | Some(Faults::Few)) {
            bail!(
                "`--cluster` is for `--chaos`; without it, give the cluster as `--redis redis+cluster://…`"
            );
        }
        if parsed.guard == Guard::Nothing && parsed.entries != Entries::default() {
            bail!("`--unsafe` uses no attributes; leave out `--tag` and `--local`");
        }
        Ok(parsed)
    }
}
