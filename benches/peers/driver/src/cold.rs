//! Concurrent calls of one key that is not cached.

use std::time::Duration;

use anyhow::{Result, bail};
use peer::{Command, Reply};

use crate::Options;
use crate::process::{Place, Process};
use crate::report::{Spread, Table, count, duration};
use crate::roster::Entry;
use crate::server::Server;

const CALLERS: u64 = 1_000;
const BODY: Duration = Duration::from_millis(100);
/// Both processes have read their command by then.
const HEAD_START: Duration = Duration::from_millis(50);
const FIRST: u64 = 10_000;

pub(crate) fn measure(options: &Options) -> Result<()> {
    println!("## Cold calls\n");
    println!(
        "{} tasks in each process call for the same key, which is not cached, at the same time. The body takes {} ms. How many bodies ran \
         in all, and the longest call. Fewer bodies are better: each is a query of the database.\n",
        count(CALLERS),
        BODY.as_millis()
    );
    let mut table = Table::begin(&[
        "",
        "bodies, 1 process",
        "longest call",
        "bodies, 2 processes",
        "longest call",
    ]);
    for entry in options.roster.in_redis() {
        match cells(options, entry) {
            Ok(cells) => table.row(entry.label, &cells),
            Err(error) => table.missing(entry.label, &error),
        }
    }
    table.end();
    Ok(())
}

fn cells(options: &Options, entry: Entry) -> Result<Vec<String>> {
    // One for each, because setups of one library share keys.
    let server = Server::start()?;
    let mut processes = Vec::new();
    for _ in 0..2 {
        let mut process = Process::start(options, entry, &server.url(), Place::Anywhere)?;
        // The first call of a process may connect.
        process.prepare(200, FIRST, 1)?;
        let millis = BODY.as_millis() as u64;
        process.ask(Command::Body { bytes: 200, millis })?;
        processes.push(process);
    }
    let mut cells = Vec::new();
    let mut id = FIRST;
    for together in 1..=processes.len() {
        let (mut bodies, mut worst) = (Spread::default(), Spread::default());
        for _ in 0..options.either(5, 3) {
            id += 1;
            let (ran, longest) = rush(&mut processes[..together], id)?;
            bodies.push(ran as f64);
            worst.push(longest as f64);
        }
        cells.push(count(bodies.median() as u64));
        cells.push(duration(worst.median()));
    }
    Ok(cells)
}

/// Returns how many bodies ran in all processes, and the longest call.
fn rush(processes: &mut [Process], id: u64) -> Result<(u64, u64)> {
    let at = crate::race::now() + HEAD_START.as_nanos() as u64;
    for process in &mut *processes {
        process.send(Command::Rush {
            id,
            callers: CALLERS,
            at,
        })?;
    }
    let (mut bodies, mut longest) = (0, 0);
    for process in processes {
        match process.reply()? {
            Reply::Rush { errors, .. } if errors > 0 => bail!("{errors} calls failed"),
            Reply::Rush { loads, worst, .. } => {
                bodies += loads;
                longest = longest.max(worst);
            }
            _ => bail!("another reply to a rush"),
        }
    }
    Ok((bodies, longest))
}
