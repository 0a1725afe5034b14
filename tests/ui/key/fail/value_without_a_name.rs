use cache_runtime::key;

fn main() {
    let id = 1;
    let _ = key!("row:<id>", id);
}
