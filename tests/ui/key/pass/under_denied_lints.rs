#![deny(warnings, unused_qualifications, missing_docs, unused_results)]
//! What the macro writes is quiet under strict lints.

use cache_runtime::key;

struct Row {
    id: u64,
}

impl Row {
    fn key(&self) -> String {
        key!("row:<self.id>")
    }
}

fn main() {
    let (name, r#type) = ("a", "b");
    let _ = key!("all");
    let _ = key!("row:<name>:<type>:<id>", id = Row { id: 1 }.id);
    let _ = Row { id: 1 }.key();
}
