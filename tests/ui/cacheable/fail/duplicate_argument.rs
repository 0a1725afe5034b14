use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ttl = 60, ttl = 90)]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
