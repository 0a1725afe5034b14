//! What documents and manifests name exists: the tests and commands that show requirements, and the variables and routes of a
//! deployment.

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

#[test]
fn the_manifests_name_variables_and_routes_of_the_service() {
    let manifest = read("examples/kubernetes/requirements-service.yaml");
    let known = [
        "docs/book/src/reference/configuration.md",
        "examples/requirements-service/src/settings.rs",
    ]
    .map(read);
    let (_, data) = manifest.split_once("\ndata:\n").expect("a ConfigMap");
    let (data, deployment) = data.split_once("\n---\n").expect("a Deployment");
    let configured = data
        .lines()
        .filter_map(|line| line.trim_start().split_once(": "));
    let configured = configured
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('#'));
    let secret = deployment
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- name: "));
    let secret = secret.filter(|name| {
        name.chars()
            .all(|letter| letter.is_ascii_uppercase() || letter == '_')
    });
    let names: Vec<_> = configured.chain(secret).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(
            known.iter().any(|text| text.contains(name)),
            "{name} is no variable of the service"
        );
    }

    let routes = read("examples/requirements-service/src/http.rs");
    let probes: Vec<_> = deployment
        .match_indices("path: /")
        .filter_map(|(at, _)| deployment[at + 6..].split([',', '\n']).next())
        .collect();
    assert!(probes.contains(&"/readyz"), "{probes:?}");
    for path in probes.iter().filter(|path| !path.starts_with("/secrets")) {
        assert!(
            routes.contains(&format!("\"{path}\"")),
            "{path} is no route of the service"
        );
    }
}
