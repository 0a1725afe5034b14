use cache_runtime::key;

fn main() {
    let _ = key!("row:<return.id>");
}
