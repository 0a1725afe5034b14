//! One hit in Redis: its time and its allocations.

use anyhow::{Result, ensure};

use crate::Options;
use crate::machine::{self, Rounds};
use crate::process::{Place, Process};
use crate::report::{Spread, Table};
use crate::roster::BARE;
use crate::server::Server;
use crate::spinner::Spinners;

/// The sizes of values, with the first id of each.
pub(crate) const SIZES: [(usize, u64, &str); 3] = [
    (200, 1_000, "200 B"),
    (2_000, 2_000, "2 KB"),
    (20_000, 3_000, "20 KB"),
];
const KEYS: u64 = 100;
/// About 15 ms.
const CALLS: u64 = 300;
const COUNTED_CALLS: u64 = 500;

pub(crate) fn measure(options: &Options) -> Result<()> {
    time(options)?;
    allocations(options)
}

fn time(options: &Options) -> Result<()> {
    println!("## One hit\n");
    println!(
        "One task calls for {KEYS} cached keys in turn. Each block of {CALLS} calls of a crate is between two blocks of redis-rs, and its \
         time is divided by theirs.{} Less is better.\n",
        if machine::can_pin() {
            " The server has one core and the clients have the other, and both are kept awake."
        } else {
            ""
        }
    );
    let server = Server::start_pinned()?;
    let _spinners = Spinners::start()?;
    let place = Place::Core(machine::two_cores()[0]);
    let url = server.url();
    let mut bare = Process::start(options, BARE, &url, place)?;
    let mut others = Vec::new();
    for entry in options.roster.in_redis().filter(|entry| *entry != BARE) {
        others.push((entry, Process::start(options, entry, &url, place)));
    }

    let mut micros = vec![Spread::default(); SIZES.len()];
    let mut ratios = vec![vec![Spread::default(); SIZES.len()]; others.len()];
    let mut rounds = Rounds::default();
    for (size, (bytes, first, _)) in SIZES.into_iter().enumerate() {
        bare.prepare(bytes, first, KEYS)?;
        for (_, process) in &mut others {
            if let Ok(peer) = process
                && let Err(error) = peer
                    .prepare(bytes, first, KEYS)
                    .and_then(|()| warm(peer, first))
            {
                *process = Err(error);
            }
        }
        warm(&mut bare, first)?;
        for _ in 0..options.either(15, 5) {
            rounds.run(|| {
                // The first block after a pause is slower.
                block(&mut bare, first)?;
                for ((_, process), ratios) in others.iter_mut().zip(&mut ratios) {
                    let Ok(peer) = process else { continue };
                    let before = block(&mut bare, first)?;
                    let between = block(peer, first)?;
                    let after = block(&mut bare, first)?;
                    ratios[size].push(2.0 * between / (before + after));
                    micros[size].push((before + after) / 2.0 / 1e3);
                }
                Ok(())
            })?;
        }
    }

    let mut table = Table::begin(&["", "200 B", "2 KB", "20 KB"]);
    let cells: Vec<_> = micros.iter().map(|micros| format!("{micros:.1}")).collect();
    table.row("redis-rs, µs", &cells);
    for ((entry, process), ratios) in others.iter().zip(&ratios) {
        table.ratios(entry.label, process, ratios);
    }
    table.end();
    rounds.print();
    Ok(())
}

/// The first calls of a process are slower.
fn warm(peer: &mut Process, first: u64) -> Result<()> {
    for _ in 0..3 {
        block(peer, first)?;
    }
    Ok(())
}

/// Returns the nanoseconds of a call.
fn block(peer: &mut Process, first: u64) -> Result<f64> {
    let hits = peer.hits(first, KEYS, CALLS, 1)?;
    ensure!(
        hits.loads == 0 && hits.errors == 0,
        "{}: not all calls were hits",
        peer.entry.label
    );
    Ok(hits.nanos as f64 / CALLS as f64)
}

fn allocations(options: &Options) -> Result<()> {
    println!("### Allocations of a hit\n");
    println!(
        "By the whole process, the fewest of 5 blocks of {COUNTED_CALLS} calls. Less is better.\n"
    );
    let server = Server::start()?;
    let mut table = Table::begin(&["", "200 B", "2 KB", "20 KB"]);
    for entry in options.roster.in_redis() {
        let counted = (|| {
            let mut peer = Process::start_counting(options, entry, &server.url())?;
            SIZES
                .iter()
                .map(|&(bytes, first, _)| {
                    peer.prepare(bytes, first, KEYS)?;
                    let fewest = fewest(&mut peer, first)?;
                    ensure!(fewest > 0.0, "allocations are not counted");
                    Ok(format!("{fewest:.1}"))
                })
                .collect::<Result<Vec<_>>>()
        })();
        match counted {
            Ok(counted) => table.row(entry.label, &counted),
            Err(error) => table.missing(entry.label, &error),
        }
    }
    table.end();
    Ok(())
}

/// Returns the allocations of a call, without what a library does in the background now and then.
pub(crate) fn fewest(peer: &mut Process, first: u64) -> Result<f64> {
    let mut fewest = u64::MAX;
    for _ in 0..5 {
        fewest = fewest.min(peer.hits(first, KEYS, COUNTED_CALLS, 1)?.allocations);
    }
    Ok(fewest as f64 / COUNTED_CALLS as f64)
}
