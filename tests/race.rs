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

/// Returns a number of the report.
fn count(report: &str, name: &str) -> u64 {
    let mut lines = report.lines();
    let number = lines.find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no `{name}` in {report}"))
}

#[test]
fn many_readers_that_read_in_batches_leave_no_stale_entry() {
    let (succeeded, report) = race(&["--mode", "mixed", "--readers", "200"]);

    assert!(succeeded, "{report}");
    assert!(count(&report, "reads in batches:") > 0, "{report}");
}

#[test]
fn evictions_by_tag_leave_no_stale_entry() {
    let (succeeded, report) = race(&["--mode", "mixed", "--tag"]);

    assert!(succeeded, "{report}");
    assert!(
        count(&report, "entries that an evicted tag left:") > 0,
        "{report}"
    );
}

#[test]
fn values_in_the_process_are_no_older_than_its_evictions() {
    let (succeeded, report) = race(&["--mode", "mixed", "--local"]);

    assert!(succeeded, "{report}");
    assert!(count(&report, "hits in the process:") > 0, "{report}");
}

#[test]
fn four_processes_and_their_listeners_keep_the_bound_while_the_network_fails() {
    let (succeeded, report) = race(&["--mode", "mixed", "--local", "--chaos", "--seconds", "15"]);

    assert!(succeeded, "{report}");
    assert!(count(&report, "hits in the process:") > 0, "{report}");
}

#[test]
fn four_processes_on_a_cluster_have_no_stale_entry_while_nodes_fail_and_slots_move() {
    let (succeeded, report) = race(&["--mode", "mixed", "--chaos", "--cluster", "--seconds", "12"]);

    assert!(succeeded, "{report}");
}

/// Fails if what a primary acknowledged is not applied again.
#[test]
fn four_processes_have_no_stale_entry_after_replicas_lacked_evictions() {
    let (succeeded, report) = race(&["--mode", "mixed", "--failovers", "--seconds", "12"]);

    assert!(succeeded, "{report}");
    assert!(
        report.contains("× loss of acknowledged evictions"),
        "{report}"
    );
}

/// Fails if a listener ignores the reports of Redis.
#[test]
fn four_processes_keep_the_bound_while_hardly_anything_fails() {
    for tag in [&["--local"][..], &["--local", "--tag"]] {
        let calm = [tag, &["--mode", "mixed", "--calm", "--seconds", "8"]].concat();
        let (succeeded, report) = race(&calm);

        assert!(succeeded, "{report}");
        assert!(count(&report, "hits in the process:") > 0, "{report}");
    }
}

#[test]
fn code_without_guards_is_caught() {
    let (succeeded, report) = race(&["--mode", "key", "--unsafe"]);

    assert!(!succeeded, "{report}");
    // Hundreds of them. Entries that are still stale at a rest are few, and a busy machine may have none.
    let missed = "MISSED reads of an older version";
    assert!(report.contains(missed), "{report}");
}
