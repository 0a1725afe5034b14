use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", condition = !fresh)]
async fn find(id: i64, fresh: bool) -> i64 {
    if fresh { id } else { 0 }
}

fn main() {}
