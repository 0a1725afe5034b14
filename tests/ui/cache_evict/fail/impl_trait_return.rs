use cache_runtime::cache_evict;

#[cache_evict(key = "event:<id>")]
async fn change(id: i64) -> impl ToString {
    id
}

fn main() {}
