use super::limit::Limiting;
use super::*;

const FIND: &str = "async fn find(&self, id: i64, name: &str) -> Result<Event, Error> {}";

fn checked(attribute: Attribute, arguments: &str) -> Result<Plan, String> {
    let function = syn::parse_str(FIND).expect("a function");
    let mut report = Report::default();
    let plan = check(
        attribute,
        arguments.parse().expect("tokens"),
        &function,
        &mut report,
    );
    match report.into_tokens() {
        Some(errors) => Err(errors.to_string()),
        None => Ok(plan.expect("a plan without errors")),
    }
}

fn ttl(ttl: &str) -> Result<Option<TtlArg>, String> {
    match checked(Cacheable, &format!("key = \"a:<id>:<name>\", ttl = {ttl}"))?.work {
        Work::Cacheable(_, storing) => Ok(storing.ttl),
        _ => panic!("expected `cacheable`"),
    }
}

#[test]
fn a_ttl_is_seconds_text_or_an_expression() {
    for (written, millis) in [
        ("1800", 1_800_000),
        ("\"1h 30m\"", 5_400_000),
        ("\"5ms\"", 5),
        ("30 * 60", 1_800_000),
    ] {
        assert!(
            matches!(ttl(written), Ok(Some(TtlArg::Millis(found))) if found == millis),
            "{written}"
        );
    }
    assert!(matches!(ttl("self.ttl()"), Ok(Some(TtlArg::Asked(_)))));
    assert!(matches!(ttl("HOUR * 2"), Ok(Some(TtlArg::Asked(_)))));
}

#[test]
fn an_invalid_ttl_is_refused() {
    for written in [
        "0",
        "-1",
        "1.5",
        "\"\"",
        "\"soon\"",
        "\"100us\"",
        "\"101years\"",
        "99999999999999999999",
    ] {
        assert!(ttl(written).is_err(), "{written}");
    }
}

#[test]
fn a_too_long_ttl_is_reported_with_the_longest() {
    for written in [
        "\"101years\"",
        "\"999999999999years\"",
        "\"18446744073709551616s\"",
        "\"18446744073709551615s 1000ms\"",
        "3155760001",
        "99999999999999999999",
    ] {
        let error = ttl(written).err().expect(written);
        assert!(error.contains("`ttl` must be at most 100 years"), "{error}");
    }
    assert!(ttl("\"100years\"").is_ok());
    assert!(ttl("3155760000").is_ok());
}

fn storing(arguments: &str) -> Result<StoreArgs, String> {
    match checked(Cacheable, &format!("key = \"a:<id>:<name>\", {arguments}"))?.work {
        Work::Cacheable(_, storing) => Ok(storing),
        _ => panic!("expected `cacheable`"),
    }
}

#[test]
fn jitter_is_a_whole_percentage_up_to_50() {
    for (written, percent) in [("0", 0), ("10", 10), ("\"10%\"", 10), ("50", 50)] {
        let storing = storing(&format!("ttl_jitter = {written}")).expect(written);
        assert_eq!(storing.ttl_jitter, Some(percent), "{written}");
    }
    for written in ["51", "-1", "0.1", "\"10\"", "\"51%\"", "300", "jitter()"] {
        assert!(
            storing(&format!("ttl_jitter = {written}")).is_err(),
            "{written}"
        );
    }
}

#[test]
fn a_closure_over_the_value_takes_one_parameter() {
    for name in ["ttl", "unless"] {
        for (closure, is_right) in [("|event| 5", true), ("|| 5", false), ("|a, b| 5", false)] {
            let found = storing(&format!("{name} = {closure}"));
            assert_eq!(found.is_ok(), is_right, "{name} = {closure}");
        }
    }
}

#[test]
fn a_background_refresh_needs_a_grace_or_a_policy() {
    const OWNED: &str = "async fn find(id: i64) -> Event {}";
    let function: Function = syn::parse_str(OWNED).expect("a function");

    for (beside, is_right) in [
        ("", false),
        (", grace = \"10m\"", true),
        (", policy = \"events\"", true),
    ] {
        let arguments = format!("key = \"a:<id>\", refresh = \"background\"{beside}");
        let mut report = Report::default();
        check(
            Cacheable,
            arguments.parse().expect("tokens"),
            &function,
            &mut report,
        );
        assert_eq!(report.into_tokens().is_none(), is_right, "{beside}");
    }
}

#[test]
fn a_fence_needs_a_key_or_a_tag_known_before_the_body() {
    for (arguments, is_right) in [
        ("key = \"a:<id>\", fence", true),
        ("key = \"a:<id>\", pattern = \"b:<return>:*\", fence", true),
        ("key = \"a:<return>\", fence", false),
        ("tag = \"a:<id>\", fence", true),
        ("pattern = \"b:*\", fence", false),
        ("all_entries, fence", false),
    ] {
        assert_eq!(
            checked(CacheEvict, arguments).is_ok(),
            is_right,
            "{arguments}"
        );
    }
}

#[test]
fn every_mistake_is_reported() {
    let errors = checked(
        Cacheable,
        "key = \"a:<idd>:<name>\", tll = 5, pattern = \"x\", version = 0, \"y\", version = 1",
    )
    .err()
    .expect("errors");

    assert_eq!(errors.matches("compile_error").count(), 6, "{errors}");
}

#[test]
fn a_tag_is_a_text_or_a_list() {
    for (written, is_right) in [
        ("\"events\"", true),
        ("\"name:<name>\"", true),
        ("[\"events\", \"cache:<id>:<name.len()>\"]", true),
        ("\"organizer:<return.organizer_id>\"", true),
        ("\"organizer:<id>:<return.organizer_id>\"", true),
        ("\"<return.organizer_id>\"", false),
        ("\"organizer-<return.organizer_id>\"", false),
        ("\":<return.organizer_id>\"", false),
        ("[\"events\", \"events\"]", false),
        ("\"events:*\"", false),
        ("\"events all\"", false),
        ("\"<idd>\"", false),
        ("\"\"", false),
        ("[]", false),
        ("events", false),
    ] {
        for attribute in [Cacheable, CachePut] {
            let found = checked(
                attribute,
                &format!("key = \"a:<id>:<name>\", tag = {written}"),
            );
            assert_eq!(found.is_ok(), is_right, "{attribute:?}: {written}");
        }
    }
    let tags = storing("tag = [\"events\", \"name:<name>\"]").expect("two tags");
    assert_eq!(tags.tags.len(), 2);
}

#[test]
fn an_eviction_names_tags_as_it_names_keys() {
    for (arguments, is_right) in [
        ("tag = \"events\"", true),
        ("tag = [\"events\", \"name:<name>\"], key = \"a\"", true),
        ("tag = \"<return.name>\"", true),
        ("tag = \"events\", fence, before, always", true),
        ("tag = \"name:<return.name>\", fence", false),
        ("tag = \"name:<return.name>\", before", false),
        ("tag = \"name:<return.name>\", always", false),
        ("tag = \"events\", all_entries", false),
        ("tag = \"events:*\"", false),
    ] {
        assert_eq!(
            checked(CacheEvict, arguments).is_ok(),
            is_right,
            "{arguments}"
        );
    }
}

#[test]
fn local_is_a_time_and_its_outage_has_two_values() {
    for (arguments, expected) in [
        ("local = 5", Some((5_000, false))),
        ("local = \"500ms\"", Some((500, false))),
        ("local = 5, local_outage = \"bypass\"", Some((5_000, false))),
        ("local = 5, local_outage = \"serve\"", Some((5_000, true))),
        ("local = 0", None),
        ("local", None),
        ("local = self.time", None),
        ("local = 5, local_outage = \"keep\"", None),
        ("local_outage = \"serve\"", None),
    ] {
        let found = storing(arguments).ok().map(|storing| {
            let local = storing.local.expect("a local time");
            (local.millis, local.serves_in_outage)
        });
        assert_eq!(found, expected, "{arguments}");
    }
    for attribute in [CachePut, CacheEvict] {
        let error = checked(attribute, "key = \"a\", local = 5")
            .err()
            .expect("`local` only on `cacheable`");
        assert!(error.contains("belongs to `#[cacheable]`; "), "{error}");
    }
}

#[test]
fn only_cacheable_must_use_or_ignore_every_argument() {
    for (arguments, is_right) in [
        ("key = \"a:<id>:<name>\"", true),
        ("key = \"a:<id>\", ignore = [name]", true),
        ("key = \"a:<id>\", ignore = name", true),
        ("key = \"a:<id>\"", false),
        ("key = \"a:<id>\", condition = name.is_empty()", false),
        ("key = \"a:<id>\", ttl = name.len() as u32", false),
        ("key = \"a:<id>\", unless = |_| name.is_empty()", false),
        ("key = \"a:<id>\", ignore = []", false),
        ("key = \"a:<id>\", ignore = [\"name\"]", false),
        ("key = \"a:<id>\", ignore = [self.name]", false),
        ("key = \"a:<id>\", ignore = name, ignore = name", false),
        ("key = \"a:<id>\", ignore", false),
    ] {
        let found = checked(Cacheable, arguments);
        assert_eq!(found.is_ok(), is_right, "{arguments}");
    }
    for attribute in [CachePut, CacheEvict] {
        assert!(checked(attribute, "key = \"a:<id>\"").is_ok());
        let error = checked(attribute, "key = \"a:<id>\", ignore = [name]")
            .err()
            .expect("an unknown `ignore` on a put and on an eviction");
        assert!(error.contains("belongs to `#[cacheable]`"), "{error}");
    }
}

fn limiting(arguments: &str) -> Result<Limiting, String> {
    let function = syn::parse_str(FIND).expect("a function");
    let mut report = Report::default();
    let limiting = limit::check(arguments.parse().expect("tokens"), &function, &mut report);
    match report.into_tokens() {
        Some(errors) => Err(errors.to_string()),
        None => Ok(limiting.expect("arguments without errors")),
    }
}

#[test]
fn only_valid_policy_names_are_accepted() {
    let longest = "x".repeat(64);
    for (written, is_right) in [
        ("\"payment\"", true),
        ("[\"a.b\", \"A_9-\"]", true),
        (&format!("\"{longest}\""), true),
        (&format!("\"{longest}x\""), false),
        ("\"\"", false),
        ("\"a b\"", false),
        ("\"a:b\"", false),
        ("\"pâte\"", false),
        ("[\"a\", \"a\"]", false),
        ("[]", false),
        ("PAYMENT", false),
    ] {
        let found = limiting(&format!("policy = {written}, key = \"<id>\""));
        assert_eq!(found.is_ok(), is_right, "{written}");
    }
}

#[test]
fn a_cost_is_a_positive_number_or_an_expression() {
    for (written, is_right) in [
        ("1", true),
        ("4294967295", true),
        ("2 * 3", true),
        ("name.len() as u32", true),
        ("0", false),
        ("-1", false),
        ("4294967296", false),
        ("1.5", false),
        ("\"1\"", false),
    ] {
        let found = limiting(&format!("policy = \"a\", key = \"<id>\", cost = {written}"));
        assert_eq!(found.is_ok(), is_right, "{written}");
    }
}

#[test]
fn a_rate_limit_accepts_only_its_own_arguments() {
    for argument in [
        "all_entries",
        "always",
        "before",
        "cache = self.cache",
        "condition = id > 0",
        "fence",
        "grace = 1",
        "ignore = [id]",
        "local = 1",
        "local_outage = \"serve\"",
        "none_ttl = 1",
        "pattern = \"a:*\"",
        "refresh = \"background\"",
        "tag = \"a\"",
        "ttl = 1",
        "ttl_jitter = 1",
        "unless = is_bad",
        "version = 1",
    ] {
        let error = limiting(&format!("policy = \"a\", key = \"<id>\", {argument}"))
            .err()
            .expect(argument);
        assert!(error.contains(" belongs to "), "{error}");
        assert!(
            !error.contains("; \""),
            "the error ends with advice: {error}"
        );
    }
    for attribute in [Cacheable, CachePut, CacheEvict] {
        for argument in ["cost = 5", "limiter = self.limiter"] {
            let error = checked(attribute, &format!("key = \"a\", {argument}"))
                .err()
                .expect(argument);
            assert!(error.contains("belongs to `#[rate_limit]`; "), "{error}");
            assert!(
                !error.contains("; \""),
                "the error ends with advice: {error}"
            );
        }
    }
}

#[test]
fn every_mistake_in_a_rate_limit_is_reported() {
    let errors = limiting(
        "policy = \"a b\", key = \"<idd>\", cost = 0, ttl = 5, limit = 5, polcy = \"a\", policy = \"b\"",
    )
    .err()
    .expect("errors");

    assert_eq!(errors.matches("compile_error").count(), 7, "{errors}");
    let errors = limiting("").err().expect("errors");
    assert_eq!(errors.matches("compile_error").count(), 2, "{errors}");
}
