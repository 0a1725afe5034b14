use cache_runtime::cacheable;

struct Events;

impl Events {
    #[cacheable(key = "event:<id>", grace = "10m", refresh = "background")]
    async fn find(&self, id: i64) -> Option<String> {
        Some(id.to_string())
    }
}

fn main() {}
