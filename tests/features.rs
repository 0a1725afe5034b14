//! Every feature of the runtime is documented, and every documented feature exists. So do the tests that `ARCHITECTURE.md` names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect(path)
}

/// Returns the features in the manifest of the runtime.
fn features() -> BTreeSet<String> {
    let manifest = read("cache-runtime/Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").expect("features");
    let (features, _) = features.split_once("\n[").expect("the next section");
    let names = features.lines().filter_map(|line| line.split_once(" = "));
    let names = names.map(|(name, _)| name.to_owned());
    names.filter(|name| name != "default").collect()
}

#[test]
fn the_table_of_the_crate_lists_exactly_the_features_of_its_manifest() {
    let text = read("cache-runtime/src/lib.rs");
    let (_, table) = text.split_once("//! # Features\n").expect("the section");
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("//! |---"))
        .skip(1)
        .map_while(|line| line.strip_prefix("//! | `")?.split('`').next());

    let listed: BTreeSet<String> = rows.map(str::to_owned).collect();

    assert!(listed.contains("admin"), "{listed:?}");
    assert_eq!(listed, features());
}

/// Returns the text of all files with code below this folder.
fn code(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            text += &code(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).expect("the file can be read");
        }
    }
    text
}

#[test]
fn the_tests_against_bugs_of_other_caches_exist() {
    let text = read("ARCHITECTURE.md");
    let (_, table) = text
        .split_once("## Bugs of other caches\n")
        .expect("the section");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---"));
    let rows: Vec<_> = rows
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let code = ["cache-runtime/src", "tests"].map(|folder| code(&root.join(folder)));

    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let tests: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let named = format!("fn {test}(");
            let exists = code.iter().any(|code| code.contains(&named));
            assert!(exists, "there is no test `{test}`");
        }
    }
}

#[test]
fn the_readme_names_every_feature() {
    let text = read("README.md");

    for feature in features() {
        let is_named = [format!("`{feature}`"), format!("\"{feature}\"")]
            .iter()
            .any(|name| text.contains(name.as_str()));
        assert!(is_named, "the README does not name the feature `{feature}`");
    }
}
