use cache_runtime::key;

fn main() {
    let (kind, id) = ("a", 1);
    let _ = key!("row:<kind><id>");
}
