use cache_runtime::tag;

fn main() {
    let template = "row:<id>";
    let _ = tag!(template);
}
