use cache_runtime::cacheable;

fn grace() -> u64 {
    600
}

#[cacheable(key = "event:<id>", grace = grace())]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
