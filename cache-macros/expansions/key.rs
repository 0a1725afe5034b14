fn key(&self, id: i64, event: &Event) -> String {
    match (&(event.name()),) {
        (name,) => {
            ::cache_runtime::__private::key_text(
                &mut |__cache_key| {
                    __cache_key
                        .text("event:")
                        .value(&id)
                        .text(":")
                        .value_before(&name, '-')
                        .text("-")
                        .value(&self.tenant);
                },
            )
        }
    }
}
