//! Hits per second of many tasks.

use anyhow::{Result, bail};

use crate::Options;
use crate::hit::SIZES;
use crate::machine::Rounds;
use crate::process::{Place, Process};
use crate::report::{Spread, Table};
use crate::roster::BARE;
use crate::server::Server;

const KEYS: u64 = 100;
const TASKS: [u64; 2] = [50, 1_000];
const TRIES: u32 = 5;

/// Returns the calls of a block, which takes about 0.1 s.
fn calls(bytes: usize) -> u64 {
    match bytes {
        ..1_000 => 20_000,
        1_000..10_000 => 12_000,
        _ => 3_000,
    }
}

pub(crate) fn measure(options: &Options) -> Result<()> {
    println!("## Throughput\n");
    println!(
        "Tasks on two worker threads call for {KEYS} cached keys as fast as they can. The rate of a block is divided by that of redis-rs \
         before and after it: one connection that all tasks share. More is better.\n"
    );
    let server = Server::start()?;
    let url = server.url();
    let mut bare = Process::start(options, BARE, &url, Place::Anywhere)?;
    let mut others = Vec::new();
    for entry in options.roster.in_redis().filter(|entry| *entry != BARE) {
        others.push((entry, Process::start(options, entry, &url, Place::Anywhere)));
    }
    let cases = SIZES.len() * TASKS.len();
    let mut rates = vec![Spread::default(); cases];
    let mut ratios = vec![vec![Spread::default(); cases]; others.len()];
    let mut rounds = Rounds::default();
    for (size, (bytes, first, _)) in SIZES.into_iter().enumerate() {
        bare.prepare(bytes, first, KEYS)?;
        for (_, process) in &mut others {
            if let Ok(peer) = process
                && let Err(error) = peer.prepare(bytes, first, KEYS)
            {
                *process = Err(error);
            }
        }
        for (number, tasks) in TASKS.into_iter().enumerate() {
            let case = size * TASKS.len() + number;
            for _ in 0..options.either(7, 3) {
                rounds.run(|| {
                    for ((_, process), ratios) in others.iter_mut().zip(&mut ratios) {
                        let Ok(peer) = process else { continue };
                        let before = rate(&mut bare, bytes, first, tasks)?;
                        let between = match rate(peer, bytes, first, tasks) {
                            Ok(rate) => rate,
                            Err(error) => {
                                *process = Err(error);
                                continue;
                            }
                        };
                        let after = rate(&mut bare, bytes, first, tasks)?;
                        ratios[case].push(2.0 * between / (before + after));
                        rates[case].push((before + after) / 2.0 / 1e3);
                    }
                    Ok(())
                })?;
            }
        }
    }

    let mut columns = vec![String::new()];
    for (_, _, size) in SIZES {
        columns.extend(TASKS.map(|tasks| format!("{size}, {} tasks", crate::report::count(tasks))));
    }
    let mut table = Table::begin(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    table.row(
        "redis-rs, 1,000 hits/s",
        &rates
            .iter()
            .map(|rate| format!("{rate:.0}"))
            .collect::<Vec<_>>(),
    );
    for ((entry, process), ratios) in others.iter().zip(&ratios) {
        table.ratios(entry.label, process, ratios);
    }
    table.end();
    rounds.print();
    Ok(())
}

/// Returns hits per second.
fn rate(peer: &mut Process, bytes: usize, first: u64, tasks: u64) -> Result<f64> {
    let calls = calls(bytes);
    // On a busy machine some calls wait so long that the library gives up and the body runs.
    for _ in 0..TRIES {
        let hits = peer.hits(first, KEYS, calls, tasks)?;
        if hits.loads + hits.errors <= calls / 100 {
            return Ok(calls as f64 / (hits.nanos as f64 / 1e9));
        }
    }
    bail!(
        "{}: more than 1 % of the calls were no hits",
        peer.entry.label
    )
}
