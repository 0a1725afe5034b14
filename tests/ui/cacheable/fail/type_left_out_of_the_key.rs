use cache_runtime::cacheable;

#[cacheable(key = "ids:<id>")]
async fn ids<T: Default>(id: i64) -> Vec<Option<T>>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    (0..id).map(|_| Some(T::default())).collect()
}

fn main() {}
