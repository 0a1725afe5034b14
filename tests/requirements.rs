//! Every requirement in `docs/requirements.md` is shown by tests that exist, or by commands of this repository.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the first and the last cell of each row, without the heads of tables.
fn rows() -> Vec<(String, String)> {
    let page = read("docs/requirements.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim));
    let ends = cells.map(|mut cells| {
        (
            cells.next().unwrap_or_default().to_owned(),
            cells.last().unwrap_or_default().to_owned(),
        )
    });
    ends.filter(|(requirement, _)| requirement != "requirement")
        .collect()
}

/// Returns what is in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns the file in which a test of a service is, and its name.
fn test(path: &str) -> Option<(String, &str)> {
    let mut parts = path.split("::");
    let service = match parts.next()? {
        "service" => "event-service",
        "requirements" => "requirements-service",
        _ => return None,
    };
    let file = format!("examples/{service}/tests/service/{}.rs", parts.next()?);
    Some((file, parts.next()?))
}

#[test]
fn every_requirement_is_shown_by_something_that_exists() {
    let manifest = read("tests/Cargo.toml");
    let rows = rows();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for (requirement, shown_by) in rows {
        let mut proofs = 0;
        for proof in quoted(&shown_by) {
            if let Some((file, name)) = test(proof) {
                let declared = format!("fn {name}(");
                assert!(
                    read(&file).contains(&declared),
                    "{requirement}: {file} has no test `{name}`"
                );
                proofs += 1;
            } else if let Some((_, bench)) = proof.split_once("--bench ") {
                let name = bench.split(' ').next().unwrap_or_default();
                assert!(
                    manifest.contains(&format!("name = \"{name}\"")),
                    "{requirement}: no benchmark `{name}`"
                );
                proofs += 1;
            } else if proof.starts_with("cargo run --release -p tests --bin race") {
                proofs += 1;
            }
        }
        assert!(proofs > 0, "nothing shows: {requirement}");
    }
}
