use cache_runtime::cacheable;

#[cacheable(key = "event:<Row>:<id>")]
async fn find(id: i64) -> i64 {
    id
}

fn main() {}
