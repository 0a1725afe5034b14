use cache_runtime::cacheable;

#[cacheable(key = "list:<kin>", ignore = [db, nw], tll = 5)]
async fn list(db: &str, now: u64, kind: &str, page: u32) -> String {
    format!("{db}, {now}, {kind}, page {page}")
}

fn main() {}
