use cache_runtime::key;

fn main() {
    let _ = key!("session:<id>", id = 1);
}
