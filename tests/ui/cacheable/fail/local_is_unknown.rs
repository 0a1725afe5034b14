use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", local = "5s")]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
