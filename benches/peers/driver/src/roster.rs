//! Which peers there are.

use std::path::Path;

use anyhow::{Result, bail};
use peer::Setup;

/// A row of the tables.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    /// What the tables call it.
    pub(crate) label: &'static str,
    /// The folder of the peer, and what the arguments call it.
    pub(crate) folder: &'static str,
    pub(crate) setup: Setup,
}

const fn entry(label: &'static str, folder: &'static str, setup: Setup) -> Entry {
    Entry {
        label,
        folder,
        setup,
    }
}

/// What every other is compared with.
pub(crate) const BARE: Entry = entry("redis-rs", "bare", Setup::Redis);

const ENTRIES: [Entry; 23] = [
    BARE,
    entry("redis-rs, connection manager", "bare", Setup::Hardened),
    entry("fred", "fred", Setup::Redis),
    entry("fred, reconnect policy", "fred", Setup::Hardened),
    entry("rustis", "rustis", Setup::Redis),
    entry("cache-runtime", "ours", Setup::Redis),
    entry("cached", "cached", Setup::Redis),
    entry("cached, connection manager", "cached", Setup::Hardened),
    entry("hitbox", "hitbox", Setup::Redis),
    entry("hitbox, concurrency manager", "hitbox", Setup::Hardened),
    entry("cachekit-rs", "cachekit", Setup::Redis),
    entry("accelerator", "accelerator", Setup::Redis),
    entry("oxcache", "oxcache", Setup::Redis),
    entry("multi-tier-cache", "multi-tier-cache", Setup::Redis),
    entry("cache-runtime, `local`", "ours", Setup::Memory),
    entry("moka", "moka", Setup::Memory),
    entry("quick_cache", "quick_cache", Setup::Memory),
    entry("cached", "cached", Setup::Memory),
    entry("hitbox, hitbox-moka", "hitbox", Setup::Memory),
    entry("cachekit-rs", "cachekit", Setup::Memory),
    entry("accelerator", "accelerator", Setup::Memory),
    entry("oxcache", "oxcache", Setup::Memory),
    entry("multi-tier-cache", "multi-tier-cache", Setup::Memory),
];

/// The peers of this run.
pub(crate) struct Roster {
    entries: Vec<Entry>,
    not_built: Vec<&'static str>,
}

impl Roster {
    /// Takes all peers, or those with these names and the one that all are compared with.
    pub(crate) fn new(binaries: &Path, names: &[String]) -> Result<Self> {
        if let Some(name) = names
            .iter()
            .find(|name| !ENTRIES.iter().any(|entry| entry.folder == **name))
        {
            bail!("there is no peer `{name}`");
        }
        let mut roster = Self {
            entries: Vec::new(),
            not_built: Vec::new(),
        };
        for entry in ENTRIES {
            let wanted = names.is_empty()
                || entry.folder == BARE.folder
                || names.iter().any(|name| name == entry.folder);
            if !wanted {
                continue;
            }
            if binaries.join(format!("peer-{}", entry.folder)).exists() {
                roster.entries.push(entry);
            } else if entry.folder == BARE.folder {
                bail!(
                    "`{}` is not built, and all are compared with it",
                    BARE.folder
                );
            } else if !roster.not_built.contains(&entry.folder) {
                roster.not_built.push(entry.folder);
            }
        }
        Ok(roster)
    }

    /// Returns the entries that use Redis.
    pub(crate) fn in_redis(&self) -> impl Iterator<Item = Entry> {
        self.entries
            .iter()
            .copied()
            .filter(|entry| entry.setup != Setup::Memory)
    }

    /// Returns the entries that keep values in the process.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = Entry> {
        self.entries
            .iter()
            .copied()
            .filter(|entry| entry.setup == Setup::Memory)
    }

    /// Returns the folder of each peer once.
    pub(crate) fn folders(&self) -> Vec<&'static str> {
        let mut folders: Vec<_> = self.entries.iter().map(|entry| entry.folder).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Prints which peers were left out.
    pub(crate) fn print(&self) {
        for folder in &self.not_built {
            println!("`{folder}` is left out, because it did not build on this machine.\n");
        }
    }
}
