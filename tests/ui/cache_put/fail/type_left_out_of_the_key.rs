use cache_runtime::cache_put;

#[cache_put(key = "row:<id>")]
async fn save<T>(id: i64, row: T) -> T {
    drop(id);
    row
}

fn main() {}
