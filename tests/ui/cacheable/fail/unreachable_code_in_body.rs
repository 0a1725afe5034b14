#![deny(unreachable_code)]

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>")]
pub async fn find(id: i64) -> Option<String> {
    return Some(id.to_string());
    None
}

fn main() {}
