use cache_runtime::cache_put;

#[cache_put(key = "event:<id>", grace = "10m", refresh = "background")]
async fn find(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
