use cache_runtime::cache_evict;

#[cache_evict(key = ["event:<id>", "user:<usr>"])]
async fn change(id: i64, user: i64) -> i64 {
    id + user
}

fn main() {}
