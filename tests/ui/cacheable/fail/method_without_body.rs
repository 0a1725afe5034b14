use cache_runtime::cacheable;

trait Events {
    #[cacheable(key = "event:<id>")]
    async fn find(&self, id: i64) -> Option<String>;
}

fn main() {}
