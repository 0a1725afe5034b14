async fn find(organizer: String, id: i64) -> Result<Option<Event>, Error> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::find"),
            "event:<organizer>:<id>",
        )
        .reads()
        .value("Event")
        .ttl_millis(1800000)
        .tags("events, organizer:<organizer>, place:<organizer>:<return.place.id()>")
        .tag_families(&["place"])
        .numbers("id");
    ::cache_runtime::__private::register!(__CACHE_SITE);
    let __cache_held = (::std::borrow::ToOwned::to_owned(&organizer),);
    let __cache_call = {
        let mut __cache_call = ::cache_runtime::__private::ReadCall::new(&__CACHE_SITE);
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.key("event:")
        {
            __cache_key.value(&organizer).text(":").value(&id);
        }
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.tag("events")
        {
            __cache_key;
        }
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call
            .tag("organizer:")
        {
            __cache_key.value(&organizer);
        }
        __cache_call
    };
    let __cache_body = ::core::pin::pin!(
        async move { if false { if let ::core::option::Option::Some(__cache_never) =
        ::core::option::Option::None:: < Result < Option < Event >, Error > > { return
        __cache_never; } } query(organizer, id). await }
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
        ::cache_runtime::__private::keep,
        ::cache_runtime::__private::no_own_ttl,
        |__cache_return, __cache_tags| {
            __cache_tags
                .tag(
                    &mut |__cache_key| {
                        __cache_key
                            .text("place:")
                            .value(&__cache_held.0)
                            .text(":")
                            .value(&__cache_return.place.id());
                    },
                );
        },
    );
    ::cache_runtime::__private::Bodied {
        call: &mut __cache_call,
        body: __cache_body,
    }
        .await
}
