use cache_runtime::cache_evict;

#[cache_evict(key = "event:<id>", grace = "10m")]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
