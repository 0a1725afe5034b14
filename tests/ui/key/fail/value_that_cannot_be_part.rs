use cache_runtime::key;

fn main() {
    let _ = key!("row:<price>", price = 1.5);
}
