use cache_runtime::cache_put;

#[cache_put(key = "event:<id>", local = "5s")]
async fn save(id: i64) -> i64 {
    id
}

fn main() {}
