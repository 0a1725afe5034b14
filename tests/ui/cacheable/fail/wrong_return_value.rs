use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ttl = 60)]
async fn find(id: i64) -> Option<String> {
    let title = id.to_string();
    title.len()
}

fn main() {}
