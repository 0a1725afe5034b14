use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", limiter = id)]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
