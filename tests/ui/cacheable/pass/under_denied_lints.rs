#![deny(warnings, missing_docs, clippy::all, clippy::pedantic, unused)]
//! Nothing that the attribute generates is the user's to be warned about.

use cache_runtime::cacheable;

/// Finds an event.
#[cacheable(key = "event:<id>:<page>", ignore = [name], ttl = ttl(), condition = id > 0, unless = |event| event.is_none())]
pub async fn find(id: i64, page: u32, mut name: String) -> Result<Option<String>, std::fmt::Error> {
    name.push('!');
    Ok(Some(name))
}

fn ttl() -> u64 {
    60
}

fn main() {}
