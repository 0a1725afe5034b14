use cache_runtime::cacheable;

#[cacheable(key = "event:<name>")]
async fn find(name: &str) -> &str {
    name
}

fn main() {}
