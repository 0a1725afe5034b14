use cache_runtime::cache_evict;

#[cache_evict(all_entries, pattern = "event:*")]
async fn change(id: i64) -> Option<i64> {
    Some(id)
}

fn main() {}
