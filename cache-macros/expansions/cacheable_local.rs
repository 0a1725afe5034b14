async fn find(id: i64) -> Result<Arc<Event>, Error> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::find"),
            "event:<id>",
        )
        .reads()
        .value("Arc<Event>")
        .tags("events")
        .local_millis(5000)
        .local_outage_serve()
        .numbers("id");
    ::cache_runtime::__private::register!(__CACHE_SITE);
    let __cache_call = {
        let mut __cache_call = ::cache_runtime::__private::ReadCall::new(&__CACHE_SITE);
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.key("event:")
        {
            __cache_key.value(&id);
        }
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.tag("events")
        {
            __cache_key;
        }
        __cache_call
    };
    let __cache_body = ::core::pin::pin!(
        async move { if false { if let ::core::option::Option::Some(__cache_never) =
        ::core::option::Option::None:: < Result < Arc < Event >, Error > > { return
        __cache_never; } } query(id). await }
    );
    let mut __cache_call = ::cache_runtime::__private::cacheable_local(
        __cache_call,
        if false {
            ::core::option::Option::Some(
                ::cache_runtime::__private::locally_storable(
                    ::cache_runtime::__private::Returns::<
                        Result<Arc<Event>, Error>,
                    >::new()
                        .__outcome(),
                ),
            )
        } else {
            ::core::option::Option::None
        },
        ::cache_runtime::__private::keep,
        ::cache_runtime::__private::no_own_ttl,
        ::cache_runtime::__private::no_tags,
    );
    ::cache_runtime::__private::Bodied {
        call: &mut __cache_call,
        body: __cache_body,
    }
        .await
}
