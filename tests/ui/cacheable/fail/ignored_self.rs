use cache_runtime::cacheable;

struct Lists(String);

impl Lists {
    #[cacheable(key = "list:<kind>", ignore = [self])]
    async fn list(&self, kind: &str) -> String {
        format!("{} {kind}", self.0)
    }
}

fn main() {}
