use cache_runtime::cacheable;

#[cacheable(key = "event:<name>", grace = "10m", refresh = "background", unless = |found| *found == name)]
async fn find(name: String) -> String {
    name
}

fn main() {}
