async fn publish(tenant: String, draft: Draft) -> Result<Event, Error> {
    static __CACHE_SITE: crate::cache::__private::Site = crate::cache::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::publish"),
            "draft:<draft.id>, event:<tenant>:<return.id>, events:*:page:?, events, place:<tenant>:<return.place>",
        )
        .evicts(2)
        .tags("events, place:<tenant>:<return.place>");
    crate::cache::__private::register!(__CACHE_SITE);
    let __cache_held = (
        ::std::borrow::ToOwned::to_owned(&tenant),
        ::std::borrow::ToOwned::to_owned(&tenant),
    );
    let __cache_call = crate::cache::__private::EvictCall::new(&__CACHE_SITE)
        .key(
            &mut |__cache_key| {
                __cache_key.text("draft:").value(&draft.id);
            },
        )
        .pattern(
            &mut |__cache_pattern| {
                __cache_pattern.text("events:").any().text(":page:").one();
            },
        )
        .tag(
            &mut |__cache_key| {
                __cache_key.text("events");
            },
        );
    let __cache_body = ::core::pin::pin!(
        async move { if false { if let ::core::option::Option::Some(__cache_never) =
        ::core::option::Option::None:: < Result < Event, Error > > { return
        __cache_never; } } draft.publish(tenant). await }
    );
    let mut __cache_call = crate::cache::__private::cache_evict(
        __cache_call,
        if false {
            ::core::option::Option::Some(
                crate::cache::__private::Returns::<Result<Event, Error>>::new()
                    .__outcome(),
            )
        } else {
            ::core::option::Option::None
        },
        |__cache_return, __cache_call| {
            __cache_call
                .key(
                    &mut |__cache_key| {
                        __cache_key
                            .text("event:")
                            .value(&__cache_held.0)
                            .text(":")
                            .value(&__cache_return.id);
                    },
                )
                .tag(
                    &mut |__cache_key| {
                        __cache_key
                            .text("place:")
                            .value(&__cache_held.1)
                            .text(":")
                            .value(&__cache_return.place);
                    },
                )
        },
    );
    crate::cache::__private::Bodied {
        call: &mut __cache_call,
        body: __cache_body,
    }
        .await
}
