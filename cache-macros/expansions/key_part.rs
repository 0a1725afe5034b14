#[automatically_derived]
impl<'a, T: ?Sized> ::cache_runtime::__private::KeyPart for Id<'a, T> {
    fn write_key(&self, __cache_key: &mut ::cache_runtime::__private::KeyWriter<'_>) {
        __cache_key.value::<&'a str>(&self.0);
    }
}
#[automatically_derived]
impl<K, const N: usize> crate::cache::__private::KeyPart for Filter<K, N>
where
    K: Kind,
    Option<K>: crate::cache::__private::KeyPart,
{
    fn write_key(&self, __cache_key: &mut crate::cache::__private::KeyWriter<'_>) {
        __cache_key
            .hashed(|__cache_key| {
                __cache_key
                    .value::<Option<K>>(&self.kind)
                    .value::<[u8; N]>(&self.r#type);
            });
    }
}
#[automatically_derived]
impl ::cache_runtime::__private::KeyPart for Kind {
    fn write_key(&self, __cache_key: &mut ::cache_runtime::__private::KeyWriter<'_>) {
        __cache_key
            .value(
                match self {
                    Self::Concert => "Concert",
                    Self::r#Final => "Final",
                },
            );
    }
}
#[automatically_derived]
impl ::cache_runtime::__private::KeyPart for All {
    fn write_key(&self, __cache_key: &mut ::cache_runtime::__private::KeyWriter<'_>) {
        let _ = __cache_key;
    }
}
