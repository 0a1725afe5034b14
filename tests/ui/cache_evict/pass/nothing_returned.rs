use cache_runtime::cache_evict;

#[cache_evict(key = ["event:<id>", "events"], pattern = "page:<id>:*", before, always)]
async fn remove(id: i64) {
    drop(id);
}

fn main() {
    drop(remove(1));
}
