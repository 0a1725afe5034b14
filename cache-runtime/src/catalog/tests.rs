//! The catalog and the findings of small programs.

use serde_json::json;

use super::*;
use crate::config::TtlPolicy;

static FIND: Site = Site::new("shop::find", "article:<id>")
    .reads()
    .value("Article")
    .numbers("id");
static SAVE: Site = Site::new("shop::save", "article:<article.id>")
    .puts()
    .value("Arc<Article>");
static PAGES: Site = Site::new("shop::pages", "articles:page:<page>")
    .reads()
    .value("Vec<Article>")
    .policy("lists");
static CHANGE: Site = Site::new("shop::change", "article:<id>, articles:*").evicts(1);
static CLEAR: Site = Site::new("shop::clear", "all_entries");

fn catalog(config: &Config, sites: &[&'static Site]) -> Catalog {
    Catalog::of(config, sites.iter().copied())
}

/// Returns the codes and functions of the findings under the default configuration.
fn found(sites: &[&'static Site]) -> Vec<String> {
    let findings = catalog(&Config::default(), sites).findings.into_iter();
    findings
        .map(|finding| format!("{} {}", finding.code, finding.functions.join(" ")))
        .collect()
}

fn lists() -> Config {
    let policy = TtlPolicy::default()
        .ttl(Duration::from_secs(300))
        .none_ttl(Duration::from_secs(5));
    Config::default().policy("lists", policy)
}

#[test]
fn functions_are_listed_with_who_evicts_them_and_whom_they_evict() {
    let catalog = catalog(&lists(), &[&CLEAR, &CHANGE, &PAGES, &SAVE, &FIND]);

    let names: Vec<_> = catalog
        .functions
        .iter()
        .map(|function| function.name)
        .collect();
    assert_eq!(
        names,
        [
            "shop::find",
            "shop::save",
            "shop::pages",
            "shop::change",
            "shop::clear"
        ]
    );
    let [find, save, pages, change, clear] = &catalog.functions[..] else {
        panic!("there are five")
    };
    assert!(find.file.ends_with("catalog/tests.rs") && find.line < save.line);
    let by = |function: &Function| {
        let by = function.evicted_by.iter();
        by.map(|by| (by.function, by.target.template, by.target.kind))
            .collect::<Vec<_>>()
    };
    let cleared = ("shop::clear", "all_entries", TargetKind::All);
    assert_eq!(
        by(find),
        [("shop::change", "article:<id>", TargetKind::Key), cleared]
    );
    assert_eq!(
        by(pages),
        [("shop::change", "articles:*", TargetKind::Pattern), cleared]
    );
    assert_eq!(by(change), []);
    assert_eq!(change.evicts, ["shop::find", "shop::save", "shop::pages"]);
    assert_eq!(clear.evicts, change.evicts);
    assert_eq!(catalog.findings, []);
}

#[test]
fn times_are_those_of_the_attribute_the_policy_or_the_configuration() {
    static OWN: Site = Site::new("shop::own", "own")
        .reads()
        .policy("lists")
        .own_cache();
    static COMPUTED: Site = Site::new("shop::computed", "computed")
        .reads()
        .computed_ttl();
    static WRITTEN: Site = Site::new("shop::written", "written")
        .reads()
        .policy("lists")
        .ttl_millis(1_500)
        .grace_millis(500);
    let config = lists().default_ttl(Duration::from_secs(60));

    let catalog = catalog(&config, &[&FIND, &PAGES, &OWN, &COMPUTED, &WRITTEN]);

    let times = |name: &str| {
        let function = catalog
            .functions
            .iter()
            .find(|function| function.name == name);
        let stores = function
            .and_then(|function| function.stores.clone())
            .expect(name);
        (
            stores.ttl_seconds,
            stores.ttl_from,
            stores.none_ttl_seconds,
            stores.grace_seconds,
        )
    };
    assert_eq!(
        times("shop::find"),
        (Some(60.0), TtlFrom::Default, None, None)
    );
    assert_eq!(
        times("shop::pages"),
        (Some(300.0), TtlFrom::Policy, Some(5.0), None)
    );
    assert_eq!(times("shop::own"), (None, TtlFrom::OwnCache, None, None));
    assert_eq!(
        times("shop::computed"),
        (None, TtlFrom::Computed, None, None)
    );
    assert_eq!(
        times("shop::written"),
        (Some(1.5), TtlFrom::Attribute, Some(5.0), Some(0.5))
    );
}

#[test]
fn an_eviction_that_matches_nothing_is_found_with_the_nearest_key() {
    static WRONG: Site = Site::new(
        "shop::wrong",
        "artcle:*, articles:<id>, feeds:*, article:latest",
    )
    .evicts(1)
    .own_cache();

    let catalog = catalog(&lists(), &[&FIND, &SAVE, &PAGES, &CHANGE, &WRONG]);

    let messages = catalog.findings.iter().map(|finding| {
        assert_eq!(
            (finding.code, &finding.functions[..]),
            (Code::UnmatchedEviction, &["shop::wrong"][..])
        );
        let target = finding.message.split('`').nth(1);
        (target, finding.advice.split('`').nth(1))
    });
    let expected = [
        (Some("artcle:*"), Some("article:<id>")),
        (Some("articles:<id>"), Some("article:<id>")),
        (Some("feeds:*"), None),
    ];
    assert_eq!(messages.collect::<Vec<_>>(), expected);
    assert_eq!(
        found(&[&WRONG, &CLEAR]),
        [""; 0],
        "it evicts entries of another program"
    );
}

#[test]
fn a_target_that_only_a_text_can_match_does_not_match_an_integer() {
    static LATEST: Site = Site::new("shop::renew", "article:latest").evicts(1);

    assert_eq!(found(&[&FIND, &LATEST]), ["unmatched-eviction shop::renew"]);
    assert_eq!(found(&[&SAVE, &LATEST]), [""; 0]);
}

#[test]
fn entries_that_live_long_must_be_evicted_or_put() {
    static HOUR: Site = Site::new("shop::hour", "hour")
        .reads()
        .ttl_millis(3_600_000);
    static GRACE: Site = Site::new("shop::grace", "grace")
        .reads()
        .ttl_millis(3_600_000)
        .grace_millis(1);
    static COMPUTED: Site = Site::new("shop::computed", "computed")
        .reads()
        .computed_ttl();
    static DAY: Site = Site::new("shop::day", "article:<id>")
        .reads()
        .ttl_millis(86_400_000);
    static PUT: Site = Site::new("shop::put", "article:<id>")
        .puts()
        .ttl_millis(86_400_000);

    assert_eq!(found(&[&HOUR, &COMPUTED]), [""; 0]);
    assert_eq!(found(&[&GRACE]), ["never-evicted shop::grace"]);
    assert_eq!(found(&[&DAY]), ["never-evicted shop::day"]);
    for evicting in [&CHANGE, &CLEAR, &PUT] {
        assert!(!found(&[&DAY, evicting]).contains(&"never-evicted shop::day".to_owned()));
    }
    let config = Config::default().default_ttl(Duration::from_secs(7_200));
    let of_configuration = catalog(&config, &[&FIND]).findings;
    assert_eq!(of_configuration[0].code, Code::NeverEvicted);
    assert!(
        of_configuration[0].message.contains("live for 2h"),
        "{of_configuration:?}"
    );
}

#[test]
fn a_stored_none_must_be_evicted_or_replaced() {
    static NONE: Site = Site::new("shop::none", "article:<id>")
        .reads()
        .none_ttl_millis(30_000);

    assert_eq!(found(&[&NONE]), ["none-not-evicted shop::none"]);
    assert_eq!(found(&[&NONE, &CLEAR]), [""; 0]);
    assert_eq!(found(&[&NONE, &SAVE]).len(), 1, "only the types differ");
    let policy = lists();
    let of_policy = catalog(&policy, &[&PAGES]).findings;
    assert_eq!(of_policy[0].code, Code::NoneNotEvicted);
}

#[test]
fn functions_that_share_a_key_must_store_the_same_type() {
    static OTHER: Site = Site::new("shop::other", "article:<number>")
        .reads()
        .value("Summary");
    static OF_SELF: Site = Site::new("shop::own", "article:<id>")
        .puts()
        .value("Vec<Self>");
    static ELSEWHERE: Site = Site::new("shop::elsewhere", "article:<id>")
        .reads()
        .value("Token")
        .own_cache();

    assert_eq!(found(&[&FIND, &SAVE, &OF_SELF, &ELSEWHERE]), [""; 0]);
    assert_eq!(
        found(&[&FIND, &OTHER]),
        ["value-types shop::find shop::other"]
    );
}

#[test]
fn different_keys_must_not_name_the_same_entry() {
    static LATEST: Site = Site::new("shop::latest", "article:latest")
        .reads()
        .value("Article");
    static ANY: Site = Site::new("shop::any", "<kind>:latest")
        .reads()
        .value("Article");
    static BY_NAME: Site = Site::new("shop::by_name", "article:<name>")
        .reads()
        .value("Article");

    assert_eq!(
        found(&[&FIND, &LATEST, &PAGES][..2]),
        [""; 0],
        "an id is a number"
    );
    assert_eq!(
        found(&[&BY_NAME, &LATEST, &ANY]),
        [
            "overlapping-keys shop::any shop::by_name",
            "overlapping-keys shop::latest shop::any",
            "overlapping-keys shop::latest shop::by_name",
        ]
    );
}

#[test]
fn arguments_that_keys_leave_out_or_clients_choose_are_found() {
    static UNKEYED: Site = Site::new("shop::list", "list").reads().unkeyed("_page");
    static TEXT: Site = Site::new("shop::search", "search:<text>")
        .reads()
        .free_text("text");

    assert_eq!(
        found(&[&UNKEYED, &TEXT]),
        ["unkeyed-argument shop::list", "text-in-key shop::search"]
    );
}

static TAGGED: Site = Site::new("shop::tagged", "page:<page>")
    .reads()
    .value("Vec<Article>")
    .ttl_millis(86_400_000)
    .tags("articles, shop:<return.shop>")
    .tag_families(&["shop"])
    .local_millis(5_000)
    .local_outage_serve();
static RENAME: Site = Site::new("shop::rename", "article:<id>, shop:<shop>")
    .evicts(1)
    .tags("shop:<shop>");

#[test]
fn an_eviction_by_tag_evicts_the_functions_that_have_the_tag() {
    let catalog = catalog(&Config::default(), &[&FIND, &TAGGED, &RENAME]);

    let [find, tagged, rename] = &catalog.functions[..] else {
        panic!("there are three")
    };
    let target = |template, kind| Target { template, kind };
    assert_eq!(
        tagged.targets,
        [
            target("page:<page>", TargetKind::Key),
            target("articles", TargetKind::Tag),
            target("shop:<return.shop>", TargetKind::Tag),
        ]
    );
    assert_eq!(
        rename.targets,
        [
            target("article:<id>", TargetKind::Key),
            target("shop:<shop>", TargetKind::Tag),
        ]
    );
    assert_eq!(rename.evicts, ["shop::find", "shop::tagged"]);
    let by = |function: &Function| {
        function
            .evicted_by
            .iter()
            .map(|by| by.target.kind)
            .collect()
    };
    let (find, tagged): (Vec<_>, Vec<_>) = (by(find), by(tagged));
    assert_eq!(
        (find, tagged),
        (vec![TargetKind::Key], vec![TargetKind::Tag])
    );
    assert_eq!(catalog.findings, [], "what a tag evicts is evicted");
}

#[test]
fn a_tag_that_no_function_has_is_found_with_the_nearest_tag() {
    static WRONG: Site = Site::new("shop::wrong", "artcles, page:<page>")
        .evicts(0)
        .tags("artcles, page:<page>");

    let findings = catalog(&Config::default(), &[&TAGGED, &RENAME, &FIND, &WRONG]).findings;

    let found: Vec<_> = findings
        .iter()
        .map(|finding| (finding.code, &*finding.message, &finding.advice[..25]))
        .collect();
    assert_eq!(
        found,
        [
            (
                Code::UnmatchedEviction,
                "`artcles` is not a tag of an annotated function",
                "did you mean `articles`? ",
            ),
            (
                Code::UnmatchedEviction,
                "`page:<page>` is not a tag of an annotated function",
                "check its spelling; accep",
            ),
        ]
    );
}

#[test]
fn a_key_in_the_process_begins_with_a_word() {
    static ANY: Site = Site::new("shop::any", "<kind>:<id>").reads();
    static NEAR: Site = Site::new("shop::near", "<kind>:<id>")
        .reads()
        .local_millis(1_000);
    static NAMED: Site = Site::new("shop::named", "kind:<kind>")
        .reads()
        .local_millis(1_000);

    assert!(found(&[&ANY]).is_empty());
    assert_eq!(found(&[&NEAR]), ["local-tracks-all shop::near"]);
    assert!(found(&[&NAMED]).is_empty());
}

#[test]
fn different_tags_must_not_have_the_same_name() {
    static OTHER: Site = Site::new("shop::other", "other:<id>")
        .reads()
        .tags("articles, shop:<id>, shop:all");
    static ELSEWHERE: Site = Site::new("shop::elsewhere", "elsewhere:<id>")
        .reads()
        .tags("<kind>:all")
        .own_cache();

    assert_eq!(
        found(&[&TAGGED, &RENAME, &FIND, &OTHER, &ELSEWHERE]),
        ["overlapping-tags shop::tagged shop::other"]
    );
    assert_eq!(found(&[&OTHER]), ["overlapping-tags shop::other"]);
}

#[test]
fn policies_are_compared_with_the_configuration() {
    let config = Config::default().policy("list", TtlPolicy::default());

    let findings = catalog(&config, &[&PAGES, &CLEAR]).findings;

    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::UnknownPolicy, Code::UnusedPolicy]);
    assert!(
        findings[0].message.contains("did you mean `list`?"),
        "{findings:?}"
    );
    assert!(
        findings[0].advice.contains("CACHE_POLICY_LISTS_TTL"),
        "{findings:?}"
    );
}

#[test]
fn the_same_finding_is_reported_once() {
    static LONG: Site = Site::new("shop::long", "long")
        .reads()
        .ttl_millis(7_200_000);

    assert_eq!(found(&[&LONG, &LONG]), ["never-evicted shop::long"]);
}

#[test]
fn an_assertion_names_findings_and_what_is_allowed_in_vain() {
    static LONG: Site = Site::new("shop::long", "long")
        .reads()
        .ttl_millis(7_200_000);
    let catalog = catalog(&Config::default(), &[&LONG, &FIND]);

    assert_eq!(
        catalog.problems(&[]),
        "never-evicted shop::long: entries of `long` live for 2h, and no annotated function evicts or puts them\n  \
         add `#[cache_evict]` to what changes the data, or a shorter `ttl`; accept this if it may be old\n"
    );
    assert_eq!(catalog.problems(&["never-evicted long"]), "");
    assert_eq!(
        catalog.problems(&["never-evicted", "text-in-key find"]),
        "`text-in-key find` is allowed but not found; remove it from `allow`\n"
    );
}

#[test]
fn the_table_shows_both_directions_of_an_eviction() {
    let written = catalog(&lists(), &[&FIND, &PAGES, &CHANGE]).to_string();

    let lines: Vec<Vec<&str>> = written
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected: &[&[&str]] = &[
        &[
            "STORES", "AS", "KEY", "AND", "TAGS", "VALUE", "TTL", "EVICTED", "BY",
        ],
        &[
            "shop::find",
            "cacheable",
            "article:<id>",
            "Article",
            "1h",
            "(default)",
            "shop::change",
        ],
        &[
            "shop::pages",
            "cacheable",
            "articles:page:<page>",
            "Vec<Article>",
            "5m",
            "(policy)",
            "shop::change",
            "(scan)",
        ],
        &["EVICTS", "TARGET", "ENTRIES", "OF"],
        &["shop::change", "article:<id>", "shop::find"],
        &["no", "findings"],
    ];
    for line in expected {
        assert!(
            lines.contains(&line.to_vec()),
            "{line:?} is missing in:\n{written}"
        );
    }
    let tagged = catalog(&lists(), &[&TAGGED, &RENAME]).to_string();
    for text in [
        "shop:<return.shop> (tag)",
        "shop::rename (tag)",
        "shop:<shop> (tag)",
        "local 5s, also in an outage",
    ] {
        assert!(tagged.contains(text), "{text} is missing in:\n{tagged}");
    }
    assert!(
        written.contains("none 5s") && written.contains("policy lists"),
        "{written}"
    );
    assert!(
        written.lines().all(|line| line.trim_end() == line),
        "{written}"
    );
}

#[test]
fn the_catalog_as_json_has_codes_and_kinds_as_words() {
    static TEXT: Site = Site::new("shop::search", "search:<text>")
        .reads()
        .value("Article")
        .free_text("text")
        .background();
    static DROP: Site = Site::new("shop::drop", "search:*").evicts(0);

    let json =
        serde_json::to_value(catalog(&Config::default(), &[&TEXT, &DROP])).expect("it is data");

    let [search, drop] = [0, 1].map(|at| &json["functions"][at]);
    assert_eq!(
        search["targets"],
        json!([{ "template": "search:<text>", "kind": "key" }])
    );
    assert_eq!(
        search["stores"],
        json!({
            "value": "Article", "ttl_seconds": 3600.0, "ttl_from": "default", "none_ttl_seconds": null, "grace_seconds": null,
            "ttl_jitter": 0, "refreshes_in_background": true, "local_seconds": null,
            "serves_local_in_outage": false, "policy": null, "version": 0
        })
    );
    assert_eq!(
        search["evicted_by"],
        json!([{ "function": "shop::drop", "target": { "template": "search:*", "kind": "pattern" } }])
    );
    assert_eq!(
        (&drop["attribute"], &drop["stores"]),
        (&json!("cache_evict"), &json!(null))
    );
    assert_eq!(json["findings"][0]["code"], "text-in-key");
}

#[test]
fn every_code_has_a_text_of_its_own_and_is_documented() {
    let guide = include_str!("../../../docs/book/src/reference/observability.md");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();

    for code in Code::ALL {
        assert!(
            documented.contains(&code.as_str()),
            "{code} is not documented"
        );
    }
    let texts: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(texts.len(), Code::ALL.len());
}
