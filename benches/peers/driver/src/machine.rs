//! What the run took place on, and whether other processes disturbed it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;

use crate::server::Server;
use crate::{Options, read};

/// The clock ticks of `/proc` in a second.
const TICKS: f64 = 100.0;
/// Other processes may use this much of a core in a round.
const QUIET: f64 = 0.12;

/// The folder of this bench.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Prints the date, the machine and the versions.
pub(crate) fn print(options: &Options) -> Result<()> {
    let server = Server::start()?;
    let cores = std::thread::available_parallelism()?;
    let processor = read("/proc/cpuinfo").unwrap_or_default();
    let model = field(&processor, "model name").unwrap_or("unknown processor");
    let version = server
        .info("redis_version")
        .unwrap_or_else(|_| "unknown".into());
    println!(
        "{}; {cores} cores, {model}, {} {}; {}; Redis {version}{}.\n",
        output("date", &["-u", "+%F %H:%M UTC"]),
        output("uname", &["-s"]),
        output("uname", &["-r"]),
        output("rustc", &["--version"]),
        options.either("", "; a quick run with few rounds"),
    );
    let lock = std::fs::read_to_string(root().join("Cargo.lock"))?;
    let own = std::fs::read_to_string(root().join("oxcache/Cargo.lock"))?;
    println!("Versions: {}.\n", versions(options, &lock, &own).join(", "));
    Ok(())
}

fn versions(options: &Options, lock: &str, own: &str) -> Vec<String> {
    let mut versions = Vec::new();
    for folder in options.roster.folders() {
        let (crates, lock): (&[&str], _) = match folder {
            "bare" => (&["redis"], lock),
            "ours" => (&["cache-runtime"], lock),
            "cachekit" => (&["cachekit-rs"], lock),
            "hitbox" => (
                &["hitbox", "hitbox-fn", "hitbox-redis", "hitbox-moka"],
                lock,
            ),
            "fred" => (&[], lock),
            "oxcache" => (&["oxcache"], own),
            _ => (&[folder], lock),
        };
        for name in crates {
            let version = locked(lock, name).unwrap_or("unknown");
            versions.push(format!("{name} {version}"));
        }
        if folder == "fred" {
            // Another peer has an older one, too.
            versions.push(format!(
                "fred {}",
                locked_last(lock, "fred").unwrap_or("unknown")
            ));
        }
    }
    let commit = output(
        "git",
        &[
            "-C",
            &root().display().to_string(),
            "rev-parse",
            "--short",
            "HEAD",
        ],
    );
    if !commit.is_empty() {
        versions.push(format!("this repository at {commit}"));
    }
    versions
}

fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    version_after(lock.split_once(&format!("name = \"{name}\"\n"))?.1)
}

fn locked_last<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    version_after(lock.rsplit_once(&format!("name = \"{name}\"\n"))?.1)
}

fn version_after(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// Returns what a program prints, or nothing if it fails.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Returns whether processes can be kept on one core.
pub(crate) fn can_pin() -> bool {
    static CAN_PIN: OnceLock<bool> = OnceLock::new();
    *CAN_PIN.get_or_init(|| {
        let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
        runs("taskset")
            && runs("chrt")
            && std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
    })
}

/// The core of the clients, and the core of the server.
pub(crate) fn two_cores() -> [usize; 2] {
    [0, 1]
}

/// Counts the rounds in which other processes used the machine.
#[derive(Default)]
pub(crate) struct Rounds {
    all: u32,
    disturbed: u32,
}

impl Rounds {
    /// Runs a round, and notes whether it was disturbed.
    pub(crate) fn run(&mut self, round: impl FnOnce() -> Result<()>) -> Result<()> {
        let (began, before) = (Instant::now(), Ticks::now());
        round()?;
        let after = Ticks::now();
        let others = after.others(&before) / TICKS / began.elapsed().as_secs_f64();
        self.all += 1;
        self.disturbed += u32::from(others > QUIET);
        Ok(())
    }

    /// Prints how many rounds there were, and how many were disturbed.
    pub(crate) fn print(&self) {
        let Self { all, disturbed } = self;
        let quiet = if *disturbed == 0 {
            "Other processes did not disturb them.".to_owned()
        } else {
            format!(
                "In {disturbed} of them, other processes used more than {:.0} % of a core.",
                QUIET * 100.0
            )
        };
        println!("{all} rounds. {quiet}\n");
    }
}

/// Processor time so far.
struct Ticks {
    all: u64,
    /// Of this process and its children.
    own: u64,
}

impl Ticks {
    fn now() -> Self {
        Self {
            own: own_ticks(),
            all: all_ticks().unwrap_or_default(),
        }
    }

    fn others(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        all.saturating_sub(self.own.saturating_sub(before.own)) as f64
    }
}

/// Returns the time of all processes, and what other virtual machines took.
fn all_ticks() -> Option<u64> {
    let stat = read("/proc/stat").ok()?;
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let [
        user,
        nice,
        system,
        _idle,
        _iowait,
        _irq,
        _softirq,
        steal,
        ..,
    ] = *fields
    else {
        return None;
    };
    Some(user + nice + system + steal)
}

fn own_ticks() -> u64 {
    let me = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = read(&format!("/proc/{pid}/stat")).ok()?;
        // The name of the program is in brackets and may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let parent: u32 = fields.get(1)?.parse().ok()?;
        // Of the process, and of its children that have ended.
        let times = fields.get(11..15)?.iter();
        let used: u64 = times.map_while(|time| time.parse::<u64>().ok()).sum();
        (pid == me || parent == me).then_some(used)
    })
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "name = \"fred\"\nversion = \"9.4.0\"\n\nname = \"fred\"\nversion = \"10.1.0\"\n\nname = \"fred-macros\"\nversion = \"0.1.0\"\n";
        assert_eq!(locked(lock, "fred"), Some("9.4.0"));
        assert_eq!(locked_last(lock, "fred"), Some("10.1.0"));
        assert_eq!(locked(lock, "redis"), None);
    }

    #[test]
    fn the_time_of_other_processes_is_all_but_our_own() {
        let (before, after) = (Ticks { all: 100, own: 60 }, Ticks { all: 300, own: 200 });
        assert_eq!(after.others(&before), 60.0);
    }
}
