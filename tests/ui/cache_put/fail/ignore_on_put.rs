use cache_runtime::cache_put;

#[cache_put(key = "list:<kind>", ignore = [page])]
async fn list(kind: &str, page: u32) -> String {
    format!("{kind}, page {page}")
}

fn main() {}
