use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", local_outage = "serve")]
async fn find(id: i64) -> i64 {
    id
}

fn main() {}
