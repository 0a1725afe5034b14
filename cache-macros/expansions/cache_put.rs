async fn initiate(payment: Payment, gateway: &Gateway) -> Result<Receipt, Error> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            ::core::concat!(::core::module_path!(), "::initiate"),
            "payment:<payment.shop>-<payment.tx()>",
        )
        .puts()
        .value("Receipt")
        .policy("payments")
        .computed_ttl()
        .version(2)
        .own_cache();
    ::cache_runtime::__private::register!(__CACHE_SITE);
    let __cache_call = {
        let mut __cache_call = ::cache_runtime::__private::ReadCall::by(
                &__CACHE_SITE,
                ::core::convert::AsRef::<
                    ::cache_runtime::__private::Cache,
                >::as_ref(&(gateway.cache)),
            )
            .when(|| { payment.cents > 0 })
            .ttl(|| ::core::convert::Into::<
                ::cache_runtime::__private::Ttl,
            >::into(gateway.ttl()));
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call
            .key("payment:")
        {
            __cache_key.value_before(&payment.shop, '-').text("-").value(&payment.tx());
        }
        __cache_call
    };
    let __cache_body = ::core::pin::pin!(
        async move { if false { if let ::core::option::Option::Some(__cache_never) =
        ::core::option::Option::None:: < Result < Receipt, Error > > { return
        __cache_never; } } gateway.initiate(payment). await }
    );
    let mut __cache_call = ::cache_runtime::__private::cache_put(
        __cache_call,
        if false {
            ::core::option::Option::Some(
                ::cache_runtime::__private::storable(
                    ::cache_runtime::__private::Returns::<Result<Receipt, Error>>::new()
                        .__outcome(),
                ),
            )
        } else {
            ::core::option::Option::None
        },
    );
    ::cache_runtime::__private::Bodied {
        call: &mut __cache_call,
        body: __cache_body,
    }
        .await
}
