use cache_runtime::cacheable;

#[cacheable(key = "event:<id>")]
struct Event {
    id: i64,
}

fn main() {}
