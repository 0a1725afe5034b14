use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", tag = "events:*")]
async fn find(id: i64) -> i64 {
    id
}

fn main() {}
