async fn pay(user: i64, payment: Payment, bank: &Bank) -> Result<Receipt, Error> {
    if let ::core::option::Option::Some(__limit_limited) = {
        static __LIMIT_SITE: ::cache_runtime::__private::LimitSite = ::cache_runtime::__private::LimitSite::new(
                ::core::concat!(::core::module_path!(), "::pay"),
                &["payment", "api"],
            )
            .own_limiter();
        ::cache_runtime::__private::register_limit!(__LIMIT_SITE);
        let __limit_call = ::cache_runtime::__private::LimitCall::by(
                &__LIMIT_SITE,
                ::core::convert::AsRef::<
                    ::cache_runtime::__private::RateLimiter,
                >::as_ref(&(bank.limiter)),
                |__limit_key| {
                    __limit_key.value(&user).text(":").value(&payment.shop);
                },
            )
            .cost(|| { payment.items() });
        ::cache_runtime::__private::limited(__limit_call).await
    } {
        return ::cache_runtime::__private::refused::<
            Result<Receipt, Error>,
        >(__limit_limited);
    }
    let transfer = bank.prepare(payment).await?;
    transfer.commit().await
}
