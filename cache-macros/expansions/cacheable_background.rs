async fn find(self: Arc<Self>, id: i64) -> Event {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::find"),
            "event:<id>",
        )
        .reads()
        .value("Event")
        .computed_ttl()
        .grace_millis(600000)
        .ttl_jitter(10)
        .background()
        .numbers("id")
        .own_cache();
    ::cache_runtime::__private::register!(__CACHE_SITE);
    let __cache_call = {
        let mut __cache_call = ::cache_runtime::__private::ReadCall::by(
            &__CACHE_SITE,
            ::core::convert::AsRef::<
                ::cache_runtime::__private::Cache,
            >::as_ref(&(self.cache)),
        );
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.key("event:")
        {
            __cache_key.value(&id);
        }
        __cache_call
    };
    let __cache_body = ::cache_runtime::__private::background(async move {
        if false {
            if let ::core::option::Option::Some(__cache_never) = ::core::option::Option::None::<
                Event,
            > {
                return __cache_never;
            }
        }
        self.query(id).await
    });
    ::cache_runtime::__private::cacheable_background(
            __cache_call,
            {
                ::cache_runtime::__private::storable(
                    ::cache_runtime::__private::Returns::<Event>::new().__outcome(),
                )
            },
            move |event| event.draft,
            move |event| ::cache_runtime::__private::ttl_of((|| event.ttl)()),
            ::cache_runtime::__private::no_tags,
            __cache_body,
        )
        .await
}
