#![deny(warnings, unused_qualifications, missing_docs, unused_results)]
//! What the macro writes is quiet under strict lints. A tag may begin with a word that is reserved in keys.

use cache_runtime::tag;

fn main() {
    let name = "a";
    let _ = tag!("all");
    let _ = tag!("session:<name>:<id>", id = 1);
}
