use cache_runtime::cache_evict;

#[cache_evict(tag = "organizer:<return>", before)]
async fn remove(id: i64) -> i64 {
    id
}

fn main() {}
