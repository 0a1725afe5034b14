//! The race itself races: its guarded service has no stale entry, and the usual code without guards is caught.

use std::process::Command;

fn race(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_race"))
        .args(["--seconds", "3"])
        .args(arguments)
        .output()
        .expect("the race starts");
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

#[test]
fn many_readers_that_read_in_batches_leave_no_stale_entry() {
    let (succeeded, report) = race(&["--mode", "mixed", "--readers", "200"]);

    assert!(succeeded, "{report}");
    let batched = report
        .lines()
        .find_map(|line| line.trim().strip_prefix("reads in batches:"));
    assert!(batched.is_some_and(|count| count.trim() != "0"), "{report}");
}

#[test]
fn code_without_guards_is_caught() {
    let (succeeded, report) = race(&["--mode", "key", "--unsafe"]);

    assert!(!succeeded, "{report}");
    // Hundreds of them. Entries that are still stale at a rest are few, and a busy machine may have none.
    let missed = "MISSED reads of an older version";
    assert!(report.contains(missed), "{report}");
}
