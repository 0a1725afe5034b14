use cache_runtime::cacheable;

#[cacheable(key = "event:<id>")]
async fn find(id: i64) {
    drop(id);
}

fn main() {}
