//! The process of a peer.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use peer::{Command, Hits, Reply};

use crate::Options;
use crate::roster::Entry;

/// A block of work takes far less. Some libraries take tens of seconds to find that a server is gone.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// Where a peer runs.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// One thread on the given core.
    Core(usize),
    /// Two worker threads anywhere.
    Anywhere,
}

/// A running peer. It ends when this is dropped.
pub(crate) struct Process {
    pub(crate) entry: Entry,
    child: Child,
    input: ChildStdin,
    replies: Receiver<String>,
}

impl Process {
    /// Starts the peer and lets it connect.
    pub(crate) fn start(options: &Options, entry: Entry, url: &str, place: Place) -> Result<Self> {
        Self::launch(options.binary(entry.folder), entry, url, place)
    }

    /// Starts the peer that counts allocations.
    pub(crate) fn start_counting(options: &Options, entry: Entry, url: &str) -> Result<Self> {
        let binary = options.binary(&format!("{}-counting", entry.folder));
        Self::launch(binary, entry, url, Place::Core(0))
    }

    fn launch(binary: PathBuf, entry: Entry, url: &str, place: Place) -> Result<Self> {
        let (mut program, workers) = match place {
            Place::Core(core) => (pinned(core, binary), "0"),
            Place::Anywhere => (Program::new(binary), "2"),
        };
        let mut child = program
            .args([url, workers])
            // Otherwise oxcache wants TLS, even to its own machine.
            .env("OXCACHE_ALLOW_INSECURE_REDIS", "I_UNDERSTAND_THE_RISKS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", entry.label))?;
        let input = child.stdin.take().context("the input of the peer")?;
        let output = child.stdout.take().context("the output of the peer")?;
        let (lines, replies) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Self {
            entry,
            child,
            input,
            replies,
        };
        process.ask(Command::Connect(entry.setup))?;
        Ok(process)
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Reply> {
        self.send(command)?;
        self.reply()
    }

    pub(crate) fn send(&mut self, command: Command) -> Result<()> {
        let line = serde_json::to_string(&command)?;
        writeln!(self.input, "{line}").with_context(|| format!("{} has ended", self.entry.label))
    }

    pub(crate) fn reply(&mut self) -> Result<Reply> {
        let label = self.entry.label;
        let line = match self.replies.recv_timeout(REPLY_LIMIT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("{label} did not reply within {REPLY_LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("{label} has ended"),
        };
        // Some libraries write to the standard output, too.
        match serde_json::from_str(&line) {
            Ok(Reply::Failed(error)) => bail!("{label}: {error}"),
            Ok(reply) => Ok(reply),
            Err(_) => self.reply(),
        }
    }

    /// Sets the value, and calls until all keys are cached.
    pub(crate) fn prepare(&mut self, bytes: usize, first: u64, keys: u64) -> Result<()> {
        self.ask(Command::Body { bytes, millis: 0 })?;
        self.ask(Command::Fill { first, keys })?;
        Ok(())
    }

    /// Runs a block of calls, all of which must be hits.
    pub(crate) fn hits(&mut self, first: u64, keys: u64, calls: u64, tasks: u64) -> Result<Hits> {
        let command = Command::Hits {
            first,
            keys,
            calls,
            tasks,
        };
        let Reply::Hits(hits) = self.ask(command)? else {
            bail!("another reply to a block of hits");
        };
        Ok(hits)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the program, on one core if the system has `taskset`.
fn pinned(core: usize, binary: PathBuf) -> Program {
    if !crate::machine::can_pin() {
        return Program::new(binary);
    }
    let mut program = Program::new("taskset");
    program.arg("-c").arg(core.to_string()).arg(binary);
    program
}
