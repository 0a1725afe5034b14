use cache_runtime::cache_evict;

#[cache_evict(key = "row:<id>", any_type)]
async fn remove<T>(id: i64, row: T) {
    drop((id, row));
}

fn main() {}
