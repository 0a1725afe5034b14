//! No two files of the runtime import each other, directly or through other files. So a file can be read and moved with only
//! its parent and the files that it imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file as the path of its module.
type Module = Vec<String>;

type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_files_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cache-runtime/src");
    let files = files(&root);
    assert!(files.len() > 100, "only {} files were found", files.len());

    let circles = circles(&imports(&files));

    assert!(
        circles.is_empty(),
        "these files import each other: {circles:#?}; move the shared code into a file below both"
    );
}

#[test]
fn circles_are_found_in_every_form_of_import() {
    let file = |path: &str, text: &str| (module(path), text.to_owned());
    let files = BTreeMap::from([
        file("cache", "mod a;\nmod b;\nmod c;\nuse self::a::A;"),
        file("cache/a", "use super::{b::{B, Other as Name}, Cache};"),
        file("cache/b", "use crate::cache::c::*;"),
        file("cache/c", "pub(crate) use super::a::A as Renamed;"),
        file(
            "cache/d",
            "use super::a::A;\n#[cfg(test)]\nmod tests {\n    use super::super::e::E;\n}",
        ),
        file("cache/e", "use super::d::D;"),
    ]);

    assert_eq!(circles(&imports(&files)), ["cache/a cache/b cache/c"]);
}

/// Returns the files below `root` with their text, without files that contain only tests.
fn files(root: &Path) -> BTreeMap<Module, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            let path = folder.join(entry.file_name());
            if path.file_stem().is_some_and(|name| name == "tests") {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path()).expect("the file can be read");
                let path = path.with_extension("");
                files.insert(module(&path.to_string_lossy()), text);
            }
        }
    }
    files
}

fn module(path: &str) -> Module {
    path.split('/').map(str::to_owned).collect()
}

/// Returns the files that each file imports from, without its parents and the files below it.
fn imports(files: &BTreeMap<Module, String>) -> Imports {
    let imports = files.iter().map(|(module, text)| {
        let own = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let imported = used(own)
            .flat_map(paths)
            .filter_map(|path| target(files, module, &path))
            .filter(|other| !module.starts_with(other) && !other.starts_with(module));
        (module.clone(), imported.collect())
    });
    imports.collect()
}

/// Returns the text after each `use` at the beginning of a line.
fn used(text: &str) -> impl Iterator<Item = &str> {
    ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
        .into_iter()
        .flat_map(move |word| {
            let starts = text.match_indices(word);
            starts.filter_map(move |(at, _)| {
                let is_first = at == 0 || text[..at].ends_with('\n');
                is_first.then(|| text[at + word.len()..].split(';').next())?
            })
        })
}

/// Expands `a::{b, c::{d}}` to `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![
            tree.split(" as ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        ];
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let (mut depth, mut branches) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(String::new());
                continue;
            }
            _ => {}
        }
        branches.last_mut().expect("a branch").push(letter);
    }
    let branches = branches.iter().filter(|branch| !branch.trim().is_empty());
    branches
        .flat_map(|branch| paths(branch))
        .map(|path| format!("{}{path}", before.trim()))
        .collect()
}

/// Returns the file to which a path in `module` leads.
fn target(files: &BTreeMap<Module, String>, module: &Module, path: &str) -> Option<Module> {
    let mut words = path.split("::").map(str::trim).peekable();
    let mut found = match words.next()? {
        "crate" => Module::new(),
        "self" => module.clone(),
        "super" => {
            let mut parent = module.clone();
            parent.pop();
            while words.next_if_eq(&"super").is_some() {
                parent.pop();
            }
            parent
        }
        _ => return None,
    };
    found.extend(words.map(str::to_owned));
    while !found.is_empty() && !files.contains_key(&found) {
        found.pop();
    }
    (!found.is_empty()).then_some(found)
}

/// Returns the circles, each as one line with its files.
fn circles(imports: &Imports) -> Vec<String> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|file| (file, reached(imports, file)))
        .collect();
    let circles: BTreeSet<String> = reached
        .iter()
        .filter(|(file, others)| others.contains(*file))
        .map(|(file, others)| {
            let circle = others.iter().filter(|other| reached[*other].contains(file));
            circle
                .map(|other| other.join("/"))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    circles.into_iter().collect()
}

fn reached<'a>(imports: &'a Imports, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = imports[from].iter().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(&imports[file]);
        }
    }
    reached
}
