use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ttl = |id, title| 60_u64)]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
