use cache_runtime::cacheable;

#[cacheable(key = "event:<idd>", ttl = 0, polcy = "events")]
fn find(id: i64) -> String {
    id.to_string()
}

// The function is still there: nothing says that it is unknown.
fn caller() -> String {
    find(1)
}

fn main() {}
