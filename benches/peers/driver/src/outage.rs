//! What callers see when Redis is killed, and when it does not answer.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use peer::{Command, Outage, Reply};

use crate::Options;
use crate::process::{Place, Process};
use crate::race::now;
use crate::report::{Table, count, duration};
use crate::server::Server;

const CALLERS: u64 = 5;
const PAUSE_MILLIS: u64 = 20;
const BEFORE: Duration = Duration::from_secs(1);
const FIRST: u64 = 30_000;

pub(crate) fn measure(options: &Options) -> Result<()> {
    let (down, after) = (options.either(20, 6), options.either(12, 6));
    println!("## Outages\n");
    println!(
        "{CALLERS} tasks of each crate call for one key each, with a pause of {PAUSE_MILLIS} ms after each call, all crates at the same time. \
         The body takes no time, so that a call costs what the cache adds. The outage takes {down} s. *Longest call* and *median call* are \
         of the calls that were under way during the outage. *Returned* says what they returned. *Caches again* is the time from \
         the return of the server to the first value that the cache served; it was watched for {after} s. Less is better.\n"
    );
    let (down, after) = (Duration::from_secs(down), Duration::from_secs(after));

    println!("### The server is killed\n");
    println!("Its port refuses connections. It returns empty.\n");
    let mut server = Server::start()?;
    let mut peers = begin(options, &server.url());
    sleep(BEFORE);
    let failed = now();
    server.kill()?;
    sleep(down);
    server.restart()?;
    let back = now();
    sleep(after);
    end(&mut peers, failed, back)?;

    println!("### The server does not answer\n");
    println!(
        "It is stopped (`SIGSTOP`): connections are accepted, commands are not answered. It then continues with all its data.\n"
    );
    let server = Server::start()?;
    let mut peers = begin(options, &server.url());
    sleep(BEFORE);
    let failed = now();
    server.stop()?;
    sleep(down);
    server.resume()?;
    let back = now();
    sleep(after);
    end(&mut peers, failed, back)
}

type Peers = Vec<(&'static str, Result<Process>)>;

fn begin(options: &Options, url: &str) -> Peers {
    let start = |entry, first| {
        let mut peer = Process::start(options, entry, url, Place::Anywhere)?;
        peer.prepare(200, first, CALLERS)?;
        let watch = Command::Watch {
            first,
            callers: CALLERS,
            pause_millis: PAUSE_MILLIS,
        };
        peer.ask(watch)?;
        Ok(peer)
    };
    // Setups of one library share keys, so each has ids of its own.
    let firsts = (FIRST..).step_by(CALLERS as usize);
    let peers = options.roster.in_redis().zip(firsts);
    peers
        .map(|(entry, first)| (entry.label, start(entry, first)))
        .collect()
}

fn end(peers: &mut Peers, failed: u64, back: u64) -> Result<()> {
    let mut table = Table::begin(&[
        "",
        "longest call",
        "median call",
        "calls",
        "returned",
        "caches again",
    ]);
    for (label, peer) in peers {
        let outage = match peer {
            Ok(process) => process.ask(Command::Unwatch { failed, back }),
            Err(error) => {
                table.missing(label, error);
                continue;
            }
        };
        match outage {
            Ok(Reply::Outage(outage)) => table.row(label, &cells(&outage)),
            Ok(_) => bail!("another reply to the end of an outage"),
            Err(error) => table.missing(label, &error),
        }
    }
    table.end();
    Ok(())
}

fn cells(outage: &Outage) -> Vec<String> {
    let Outage {
        worst,
        median,
        hits,
        loads,
        errors,
        pending,
        cached_again,
    } = *outage;
    let kinds = [
        (loads, "loaded"),
        (hits, "cached"),
        (errors, "errors"),
        (pending, "not yet"),
    ];
    let returned: Vec<_> = kinds
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, kind)| format!("{} {kind}", count(*number)))
        .collect();
    vec![
        duration(worst as f64),
        duration(median as f64),
        count(hits + loads + errors + pending),
        returned.join(", "),
        cached_again.map_or("not within the time".to_owned(), |nanos| {
            duration(nanos as f64)
        }),
    ]
}
