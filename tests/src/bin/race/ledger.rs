//! When evictions were applied, for all processes: so a call knows how old its answer is. It is a file that the processes of a
//! run share.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::service::KEYS;

/// The latest versions of a key whose evictions are remembered.
const SLOTS: usize = 64;

/// A version and when its eviction was applied.
const SLOT: usize = 16;

pub(crate) struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens the ledger, which is created if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path)?;
        file.set_len(KEYS * (SLOTS * SLOT) as u64)?;
        Ok(Self { file })
    }

    /// Returns the time that all processes of this machine share.
    pub(crate) fn now() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    /// Records that the eviction of this version has been applied by now.
    pub(crate) fn record(&self, id: u64, version: u64) -> Result<()> {
        let mut slot = [0; SLOT];
        let now = u64::try_from(Self::now().as_nanos()).unwrap_or(u64::MAX);
        slot[..8].copy_from_slice(&version.to_le_bytes());
        slot[8..].copy_from_slice(&now.to_le_bytes());
        let at = Self::start(id) + (version as usize % SLOTS * SLOT) as u64;
        Ok(self.file.write_all_at(&slot, at)?)
    }

    /// Returns how long before `began` the eviction of a later version was applied. It is zero for an answer that was current.
    pub(crate) fn age(&self, id: u64, version: u64, began: Duration) -> Result<Duration> {
        let mut slots = [0; SLOTS * SLOT];
        self.file.read_exact_at(&mut slots, Self::start(id))?;
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let later = slots.chunks_exact(SLOT).map(|slot| slot.split_at(8));
        let later = later.filter(|(evicted, _)| number(evicted) > version);
        let applied = later.map(|(_, at)| Duration::from_nanos(number(at))).min();
        Ok(applied.map_or(Duration::ZERO, |applied| began.saturating_sub(applied)))
    }

    fn start(id: u64) -> u64 {
        id * (SLOTS * SLOT) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_answer_is_the_time_since_a_later_version_was_applied() {
        let path = std::env::temp_dir().join(format!("race-ledger-{}", std::process::id()));
        let ledger = Ledger::open(&path).expect("the ledger opens");
        ledger.record(7, 3).expect("the version is recorded");
        let later = Ledger::now() + Duration::from_secs(1);

        let ages = [2, 3, 4].map(|version| ledger.age(7, version, later).expect("an age"));
        let of_another_key = ledger.age(8, 0, later).expect("an age");
        std::fs::remove_file(path).expect("the ledger is removed");

        assert!(ages[0] >= Duration::from_secs(1), "{ages:?}");
        assert_eq!([ages[1], ages[2], of_another_key], [Duration::ZERO; 3]);
    }
}
