use std::sync::Arc;

use cache_runtime::cacheable;

trait Find: Send + Sync {
    fn name(&self) -> String;

    #[cacheable(key = "event:<id>", grace = "10m", refresh = "background")]
    async fn find(self: Arc<Self>, id: i64) -> Option<String> {
        Some(format!("{id} {}", self.name()))
    }
}

fn main() {}
