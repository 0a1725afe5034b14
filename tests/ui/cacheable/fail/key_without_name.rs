use cache_runtime::cacheable;

#[cacheable("event:<id>")]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
