//! A hit in the process.

use anyhow::{Result, ensure};

use crate::Options;
use crate::hit::fewest;
use crate::machine::{self, Rounds};
use crate::process::{Place, Process};
use crate::report::{Spread, Table};
use crate::server::Server;
use crate::spinner::Spinners;

const SIZES: [(usize, u64); 2] = [(200, 40_000), (20_000, 41_000)];
const KEYS: u64 = 100;
const CALLS: u64 = 5_000;

/// What a peer is measured to be.
struct Row {
    label: &'static str,
    process: Result<Process>,
    nanos: [Spread; 2],
    shared: bool,
}

pub(crate) fn measure(options: &Options) -> Result<()> {
    println!("## A hit in the process\n");
    println!(
        "One task calls for {KEYS} keys in turn, whose values are in the memory of the process. *Gets* says whether callers share the value \
         with the cache (`Arc`) or get a value of their own, which is cloned or decoded. moka and quick_cache alone are maps: they do not \
         know of changes in other processes. Nanoseconds; less is better.\n"
    );
    let server = Server::start_pinned()?;
    let _spinners = Spinners::start()?;
    let place = Place::Core(machine::two_cores()[0]);
    let mut rows: Vec<Row> = options
        .roster
        .in_memory()
        .map(|entry| Row {
            label: entry.label,
            process: Process::start(options, entry, &server.url(), place),
            nanos: Default::default(),
            shared: false,
        })
        .collect();
    let mut rounds = Rounds::default();
    for (size, (bytes, first)) in SIZES.into_iter().enumerate() {
        for row in &mut rows {
            if let Ok(peer) = &mut row.process
                && let Err(error) = peer
                    .prepare(bytes, first, KEYS)
                    .and_then(|()| in_memory(peer, first))
            {
                row.process = Err(error);
            }
        }
        for _ in 0..options.either(15, 5) {
            rounds.run(|| {
                for row in &mut rows {
                    let Ok(peer) = &mut row.process else { continue };
                    let hits = peer.hits(first, KEYS, CALLS, 1)?;
                    ensure!(
                        hits.loads == 0 && hits.errors == 0,
                        "{}: not all calls were hits",
                        row.label
                    );
                    row.nanos[size].push(hits.nanos as f64 / CALLS as f64);
                    row.shared = hits.shared;
                }
                Ok(())
            })?;
        }
    }

    let mut table = Table::begin(&["", "200 B", "20 KB", "allocations, 200 B", "gets"]);
    for row in rows {
        let counted = row.process.and_then(|process| {
            let mut peer = Process::start_counting(options, process.entry, &server.url())?;
            let (bytes, first) = SIZES[0];
            peer.prepare(bytes, first, KEYS)
                .and_then(|()| in_memory(&mut peer, first))?;
            fewest(&mut peer, first)
        });
        let [small, large] = &row.nanos;
        match counted {
            Ok(counted) => table.row(
                row.label,
                &[
                    format!("{small:.0}"),
                    format!("{large:.0}"),
                    format!("{counted:.1}"),
                    if row.shared { "`Arc`" } else { "its own" }.to_owned(),
                ],
            ),
            Err(error) => table.missing(row.label, &error),
        }
    }
    table.end();
    rounds.print();
    Ok(())
}

/// Calls until the values are in the process: some libraries move them there with the second hit.
fn in_memory(peer: &mut Process, first: u64) -> Result<()> {
    for _ in 0..4 {
        peer.hits(first, KEYS, CALLS, 1)?;
    }
    Ok(())
}
