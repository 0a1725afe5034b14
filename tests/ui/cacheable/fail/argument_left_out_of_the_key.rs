use cache_runtime::cacheable;

#[cacheable(key = "list:<kind>")]
async fn list(kind: &str, page: u32) -> String {
    format!("{kind}, page {page}")
}

fn main() {}
