use cache_runtime::cache_put;

#[cache_put(key = "event:<id>")]
async fn save(id: i64) {
    drop(id);
}

fn main() {}
