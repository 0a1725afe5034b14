//! Every feature of the runtime is documented, and every documented feature exists.

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
