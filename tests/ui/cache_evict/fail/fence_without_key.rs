use cache_runtime::cache_evict;

#[cache_evict(pattern = "events:*", fence)]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
