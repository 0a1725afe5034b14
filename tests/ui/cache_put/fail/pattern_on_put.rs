use cache_runtime::cache_put;

#[cache_put(key = "event:<id>", pattern = "event:*")]
async fn save(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
