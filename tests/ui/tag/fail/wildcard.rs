use cache_runtime::tag;

fn main() {
    let _ = tag!("row:*");
}
