#![deny(unused_variables)]

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ignore = [page])]
pub async fn find(id: i64, page: u32) -> Option<String> {
    let title = 1;
    Some(id.to_string())
}

fn main() {}
