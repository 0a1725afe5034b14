use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ttl = 60)]
async fn find(id: i64) -> Option<String> {
    if id == 0 {
        return "none";
    }
    Some(id.to_string())
}

fn main() {}
