use cache_runtime::cache_evict;

#[cache_evict(key = "event:<id>")]
fn change(id: i64) {
    drop(id);
}

fn main() {}
