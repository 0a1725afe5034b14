use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ignore = [source], grace = "10m", refresh = "background")]
async fn find<S: AsRef<str> + Send>(id: i64, source: S) -> Option<String> {
    Some(format!("{id} {}", source.as_ref()))
}

fn main() {}
