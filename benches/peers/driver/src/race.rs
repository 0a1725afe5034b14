//! An eviction while the old row is being loaded.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use peer::{Command, Reply};

use crate::Options;
use crate::process::{Place, Process};
use crate::report::{DASH, Table};
use crate::roster::Entry;
use crate::server::Server;

/// Long enough for an eviction in another process.
const BODY_MILLIS: u64 = 150;
const FIRST: u64 = 20_000;

pub(crate) fn measure(options: &Options) -> Result<()> {
    println!("## An eviction during a load\n");
    println!(
        "A body reads its row and takes {BODY_MILLIS} ms. In this time the row changes, and the entry is evicted in the way that the crate \
         documents. How many times the cache then served the old row, in either of two processes. None is better: the old row is served \
         until its TTL ends.\n"
    );
    let mut table = Table::begin(&[
        "",
        "evicted by the process that loads",
        "evicted by another process",
    ]);
    for entry in options.roster.in_redis() {
        match race(options, entry) {
            Ok(Race::Lacking(reason)) => {
                table.row(entry.label, &[DASH.to_owned(), DASH.to_owned()]);
                table.note(entry.label, &reason);
            }
            Ok(Race::Stale(cells)) => table.row(entry.label, &cells),
            Err(error) => table.missing(entry.label, &error),
        }
    }
    table.end();
    Ok(())
}

/// What a race ended with.
enum Race {
    /// How often the old row was served.
    Stale(Vec<String>),
    /// Why there is no eviction.
    Lacking(String),
}

fn race(options: &Options, entry: Entry) -> Result<Race> {
    // One for each, because setups of one library share keys.
    let server = Server::start()?;
    let mut loading = Process::start(options, entry, &server.url(), Place::Anywhere)?;
    let mut other = Process::start(options, entry, &server.url(), Place::Anywhere)?;
    for process in [&mut loading, &mut other] {
        process.prepare(200, FIRST, 1)?;
        process.ask(Command::Body {
            bytes: 200,
            millis: BODY_MILLIS,
        })?;
    }
    let tries = options.either(5, 3);
    let mut cells = Vec::new();
    let mut id = FIRST;
    for elsewhere in [false, true] {
        let mut stale = 0;
        for _ in 0..tries {
            id += 1;
            loading.ask(Command::Begin { id })?;
            let changed = now();
            let evicting = if elsewhere { &mut other } else { &mut loading };
            if let Reply::Lacking(reason) = evicting.ask(Command::Evict { id })? {
                return Ok(Race::Lacking(reason));
            }
            loading.ask(Command::End)?;
            // Only what is cached counts: the call that was under way may return what it read.
            let read = read_at(&mut loading, id)?.min(read_at(&mut other, id)?);
            stale += u32::from(read < changed);
        }
        cells.push(format!("{stale} of {tries}"));
    }
    Ok(Race::Stale(cells))
}

fn read_at(process: &mut Process, id: u64) -> Result<u64> {
    match process.ask(Command::Call { id })? {
        Reply::Value { read_at } => Ok(read_at),
        _ => bail!("another reply to a call"),
    }
}

/// Returns the nanoseconds since the Unix epoch, as the processes of the peers see them.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
