use async_trait::async_trait;
use cache_runtime::cacheable;

#[async_trait]
trait Find {
    async fn find(&self, name: &str) -> Option<String>;
}

struct Events;

#[async_trait]
impl Find for Events {
    #[cacheable(key = "event:<name>", grace = "10m", refresh = "background")]
    async fn find(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }
}

fn main() {}
