use cache_runtime::cacheable;

#[cacheable(key = "list:<kind>", ignore = [clock])]
async fn list(kind: &str) -> String {
    kind.to_owned()
}

fn main() {}
