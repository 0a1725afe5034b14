/// Finds an event.
pub async fn find<'a>(pool: &'a Pool, id: i64) -> Result<Option<Event>, Error> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::find"),
            "event:<id>",
        )
        .reads()
        .value("Event")
        .ttl_millis(1800000)
        .none_ttl_millis(30000)
        .numbers("id");
    ::cache_runtime::__private::register!(__CACHE_SITE);
    let __cache_call = {
        let mut __cache_call = ::cache_runtime::__private::ReadCall::new(&__CACHE_SITE);
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.key("event:")
        {
            __cache_key.value(&id);
        }
        __cache_call
    };
    let __cache_body = ::core::pin::pin!(
        async move { if false { if let ::core::option::Option::Some(__cache_never) =
        ::core::option::Option::None:: < Result < Option < Event >, Error > > { return
        __cache_never; } } let row = pool.query(id). await ?; Ok(row.map(Event::from)) }
    );
    let mut __cache_call = ::cache_runtime::__private::cacheable_with_rules(
        __cache_call,
        if false {
            ::core::option::Option::Some(
                ::cache_runtime::__private::storable(
                    ::cache_runtime::__private::Returns::<
                        Result<Option<Event>, Error>,
                    >::new()
                        .__outcome(),
                ),
            )
        } else {
            ::core::option::Option::None
        },
        |event| event.is_none(),
        ::cache_runtime::__private::no_own_ttl,
        ::cache_runtime::__private::no_tags,
    );
    ::cache_runtime::__private::Bodied {
        call: &mut __cache_call,
        body: __cache_body,
    }
        .await
}
