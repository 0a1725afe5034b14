use cache_runtime::key;

fn main() {
    let _ = key!("row:<id>", id = 1, id = 2);
}
