use cache_runtime::cacheable;

#[cacheable(ttl = 0, vresion = 2)]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
