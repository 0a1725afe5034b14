//! Reads commands, does them, and writes replies.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::watch::Watch;
use crate::{Command, Evicted, Held, Peer, Reply, body, work};

/// Runs the process of a peer: `peer-… <url of Redis> <worker threads>`. No worker threads: all on the main thread.
///
/// Ends when the standard input ends.
pub fn serve<P: Peer>() -> ExitCode {
    match run::<P>() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run<P: Peer>() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("the url of Redis is missing")?;
    let workers = arguments
        .next()
        .context("the number of worker threads is missing")?;
    let runtime = runtime(workers.parse().context("the number of worker threads")?)?;

    // A thread of its own, so that what a library does in the background goes on between the commands.
    let (lines, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    runtime
        .block_on(async {
            let mut session = Session::<P>::new(url);
            while let Some(line) = commands.recv().await {
                let reply = match serde_json::from_str(&line) {
                    Ok(command) => session.carry_out(command).await,
                    Err(error) => Err(error.into()),
                };
                let reply = reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
                let mut output = std::io::stdout().lock();
                serde_json::to_writer(&mut output, &reply)?;
                writeln!(output)?;
                output.flush()?;
            }
            Ok(())
        })
        // The threads of the runtime end with the process: a library may never end its own tasks.
        .inspect(|()| runtime.shutdown_background())
}

fn runtime(workers: usize) -> Result<Runtime> {
    let mut builder = match workers {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    Ok(builder.enable_all().build()?)
}

struct Session<P> {
    url: String,
    peer: Option<Arc<P>>,
    begun: Option<JoinHandle<Result<Held>>>,
    watch: Option<Watch>,
}

impl<P: Peer> Session<P> {
    fn new(url: String) -> Self {
        Self {
            url,
            peer: None,
            begun: None,
            watch: None,
        }
    }

    async fn carry_out(&mut self, command: Command) -> Result<Reply> {
        match command {
            Command::Connect(setup) => {
                self.peer = Some(Arc::new(P::connect(setup, &self.url).await?));
                return Ok(Reply::Done);
            }
            Command::Body { bytes, millis } => {
                body::set(bytes, millis);
                return Ok(Reply::Done);
            }
            _ => {}
        }
        let peer = Arc::clone(self.peer.as_ref().context("not connected")?);
        match command {
            Command::Connect(_) | Command::Body { .. } => {}
            Command::Fill { first, keys } => work::fill(&*peer, first, keys).await?,
            Command::Hits {
                first,
                keys,
                calls,
                tasks,
            } => {
                return work::hits(&peer, first, keys, calls, tasks)
                    .await
                    .map(Reply::Hits);
            }
            Command::Rush { id, callers, at } => return work::rush(&peer, id, callers, at).await,
            Command::Begin { id } => {
                let before = body::loads();
                let mut call = tokio::spawn(async move { peer.call(id).await });
                tokio::select! {
                    () = body::row_read(before) => self.begun = Some(call),
                    done = &mut call => {
                        done??;
                        bail!("the call ended before its body read the row");
                    }
                }
            }
            Command::End => {
                let begun = self.begun.take().context("no call was begun")?;
                return Ok(value(&begun.await??));
            }
            Command::Call { id } => return Ok(value(&peer.call(id).await?)),
            Command::Evict { id } => match peer.evict(id).await? {
                Evicted::Done => {}
                Evicted::Lacking(reason) => return Ok(Reply::Lacking(reason.to_owned())),
            },
            Command::Watch {
                first,
                callers,
                pause_millis,
            } => self.watch = Some(Watch::begin(&peer, first, callers, pause_millis)),
            Command::Unwatch { failed, back } => {
                let watch = self.watch.take().context("nothing is watched")?;
                return Ok(Reply::Outage(watch.end(failed, back)));
            }
        }
        Ok(Reply::Done)
    }
}

fn value(held: &Held) -> Reply {
    Reply::Value {
        read_at: held.read_at,
    }
}
