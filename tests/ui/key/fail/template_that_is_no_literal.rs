use cache_runtime::key;

fn main() {
    let template = "row:<id>";
    let _ = key!(template);
}
