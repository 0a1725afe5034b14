//! Keeps cores awake. A core that has halted takes microseconds to wake, more than a library adds to a call.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::machine;

/// The argument with which the driver is a spinner.
pub(crate) const ARGUMENT: &str = "--spin";

/// Runs until the standard input ends.
pub(crate) fn spin() -> Result<()> {
    static ENDED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::Relaxed);
    });
    while !ENDED.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    Ok(())
}

/// A spinner on each of two cores, with the lowest priority: it gives way to everything else.
pub(crate) struct Spinners(Vec<Child>);

impl Spinners {
    pub(crate) fn start() -> Result<Self> {
        let mut spinners = Self(Vec::new());
        if machine::can_pin() {
            for core in machine::two_cores() {
                let spinner = Command::new("taskset")
                    .args(["-c", &core.to_string(), "chrt", "-i", "0"])
                    .arg(std::env::current_exe().context("the driver itself")?)
                    .arg(ARGUMENT)
                    .stdin(Stdio::piped())
                    .spawn()
                    .context("start a spinner")?;
                spinners.0.push(spinner);
            }
        }
        Ok(spinners)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            // Both fail only if it has already ended.
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}
