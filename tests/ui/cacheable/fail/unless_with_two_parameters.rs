use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", unless = |id, title| true)]
async fn find(id: i64) -> Vec<i64> {
    vec![id]
}

fn main() {}
