//! Measures caches for Rust side by side, and prints the chapter of the book about it as Markdown.
//!
//! ```sh
//! driver <folder of the built peers> [--quick] [--only=SECTION] [peer…]
//! ```

mod cold;
mod compile;
mod hit;
mod machine;
mod memory;
mod outage;
mod process;
mod race;
mod report;
mod roster;
mod server;
mod spinner;
mod throughput;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::roster::Roster;

/// What the arguments say.
pub(crate) struct Options {
    /// The folder with two binaries for each peer. One counts allocations.
    binaries: PathBuf,
    /// Fewer rounds and shorter outages.
    pub(crate) quick: bool,
    pub(crate) roster: Roster,
    /// The one section that is measured, if not all.
    only: Option<String>,
}

impl Options {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let binaries = PathBuf::from(
            arguments
                .next()
                .context("the folder of the peers is missing")?,
        );
        let (mut quick, mut only, mut names) = (false, None, Vec::new());
        for argument in arguments {
            match argument.strip_prefix("--only=") {
                Some(section) => only = Some(section.to_owned()),
                None if argument == "--quick" => quick = true,
                None => names.push(argument),
            }
        }
        let known = only
            .as_ref()
            .is_none_or(|only| SECTIONS.iter().any(|(name, _)| name == only));
        ensure!(
            known,
            "unknown section; there are {:?}",
            SECTIONS.map(|(name, _)| name)
        );
        Ok(Self {
            roster: Roster::new(&binaries, &names)?,
            binaries,
            quick,
            only,
        })
    }

    /// Returns the binary of a peer, or its `<peer>-counting`.
    pub(crate) fn binary(&self, peer: &str) -> PathBuf {
        self.binaries.join(format!("peer-{peer}"))
    }

    /// Returns the first in a full run, and the second in a quick one.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Measures, and prints a section of the chapter.
type Section = fn(&Options) -> Result<()>;

const SECTIONS: [(&str, Section); 7] = [
    ("hit", hit::measure),
    ("throughput", throughput::measure),
    ("cold", cold::measure),
    ("race", race::measure),
    ("outage", outage::measure),
    ("memory", memory::measure),
    ("compile", compile::measure),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments
        .peek()
        .is_some_and(|argument| argument == spinner::ARGUMENT)
    {
        return spinner::spin();
    }
    let options = Options::from_arguments(arguments)?;
    println!("{INTRODUCTION}");
    machine::print(&options)?;
    options.roster.print();
    for (name, measure) in SECTIONS {
        if options.only.as_ref().is_none_or(|only| only == name) {
            eprintln!("measuring: {name}");
            measure(&options).context(name)?;
        }
    }
    Ok(())
}

/// Reads a file that is as long as it says, or whose length the system does not tell.
pub(crate) fn read(path: &str) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .with_context(|| path.to_owned())?;
    Ok(text)
}

const INTRODUCTION: &str = "\
# Compared with other crates

Other crates cache in Redis or in the process, too. This chapter measures them side by side: one run, on one machine, on the same work.
`benches/peers/run` repeats it anywhere, and `benches/peers/README.md` describes how it measures.

- Each crate is set up as its own introduction shows it. A setup that a crate documents against outages or stampedes, but does not enable
  by itself, has a line of its own.
- Each crate runs in a process of its own, built alone, so that Cargo features of one do not change another. All use the same Redis over
  TCP on this machine, and the same value, which serde describes.
- *redis-rs*, *fred* and *rustis* are Redis clients. Their lines are what a service writes by hand: `GET` and `serde_json`, and on a miss
  the body and `SET`. They return an error of Redis to the caller.
- The sizes are the length of the value as JSON. Crates that store another format move fewer bytes.
- A figure is the median of all rounds, and the quartiles are in brackets.
- A dash means that there is no figure. The reason is below the table.
";
