use proptest::prelude::*;

use super::*;

fn name(write: impl FnOnce(&mut KeyWriter<'_>)) -> String {
    Key::render("dev_", write).as_str().to_owned()
}

fn of<T: KeyPart>(value: T) -> String {
    name(|key| {
        key.value(&value);
    })
}

#[test]
fn a_key_is_the_prefix_the_text_and_the_values() {
    let key = Key::render("dev_", |key| {
        key.text("user:")
            .value(&7_u8)
            .text(":events:page:")
            .value("two");
    });

    assert_eq!(key.as_str(), "dev_user:7:events:page:two");
    assert_eq!(key.hash(), xxh3_64(b"dev_user:7:events:page:two"));
    assert_eq!(key.shown(false).to_string(), "dev_user:7:events:page:two");
    assert_eq!(key.shown(true).to_string(), format!("#{:016x}", key.hash()));
}

#[test]
fn a_buffer_that_is_used_again_holds_nothing_of_the_key_before() {
    Key::parse("", "a:longer:name:than:the:next")
        .map(Key::recycle)
        .expect("a valid key");

    let key = Key::render("dev_", |key| {
        key.text("user:").value(&7_u8);
    });

    assert_eq!(key.as_str(), "dev_user:7");
}

#[test]
fn a_record_has_a_reserved_root_and_an_escaped_name() {
    let record = Key::record("dev_", "warm", "the lists: *");

    assert_eq!(record.as_str(), "dev_cache:warm:the%20lists%3A%20%2A");
    assert!(is_reserved("dev_", record.as_str()));
}

#[test]
fn every_type_of_part_has_its_text() {
    let table = [
        (of(i64::MIN), "dev_-9223372036854775808"),
        (of(u128::MAX), "dev_340282366920938463463374607431768211455"),
        (of(std::num::NonZero::new(5_u16)), "dev_5"),
        (of(std::net::Ipv4Addr::LOCALHOST), "dev_127.0.0.1"),
        (
            of(std::net::IpAddr::from([0_u16, 0, 0, 0, 0, 0, 0, 1])),
            "dev_%3A%3A1",
        ),
        (of(true), "dev_true"),
        (of('ß'), "dev_ß"),
        (of(':'), "dev_%3A"),
        (
            of("a:b*c?[d]{e}<f>%\\ \n\u{a0}"),
            "dev_a%3Ab%2Ac%3F%5Bd%5D%7Be%7D%3Cf%3E%25%5C%20%0A%C2%A0",
        ),
        (of(std::borrow::Cow::Borrowed("x y")), "dev_x%20y"),
        (of(std::sync::Arc::<str>::from("x")), "dev_x"),
        (of(Box::new(&mut 3)), "dev_3"),
        (of(None::<i32>), "dev_%n"),
        (of(Some("%n")), "dev_%25n"),
        (of(Some(None::<i32>)), "dev_%s%n"),
        (of(Some(Some(Some(None::<i32>)))), "dev_%s%s%s%n"),
        (of(""), "dev_"),
    ];

    for (found, wanted) in table {
        assert_eq!(found, wanted);
    }
}

#[test]
fn a_list_begins_with_its_length() {
    let table = [
        (of([0_u8; 0]), "dev_%l0"),
        (of([""]), "dev_%l1%c"),
        (of(vec!["a:b", "c"]), "dev_%l2%ca%3Ab%cc"),
        (of(&[Some(1), None][..]), "dev_%l2%c1%c%n"),
        (of([vec![1, 2], vec![]]), "dev_%l2%c%l2%c1%c2%c%l0"),
        (of(("a", 1)), "dev_a%c1"),
        (of(("a", 1, ["b"], true)), "dev_a%c1%c%l1%cb%ctrue"),
        (of(Some(((None::<u8>, 1), "x"))), "dev_%s%n%c1%cx"),
    ];

    for (found, wanted) in table {
        assert_eq!(found, wanted);
    }
}

/// Returns all lists of up to two of these values.
fn lists<T: Clone>(values: &[T]) -> Vec<Vec<T>> {
    let pairs = values
        .iter()
        .flat_map(|one| values.iter().map(|two| vec![one.clone(), two.clone()]));
    let single = values.iter().map(|one| vec![one.clone()]);
    pairs.chain(single).chain([vec![]]).collect()
}

#[test]
fn different_lists_have_different_keys() {
    let lists = lists(&lists(&["", "%l0"]));

    for separator in [':', '%', 'l', '0', '1'] {
        let mut names = std::collections::HashSet::new();
        for one in &lists {
            for two in &lists {
                names.insert(name(|key| {
                    key.value_before(&(one, two), separator);
                    key.text(separator.encode_utf8(&mut [0; 4])).value(&0);
                }));
            }
        }
        assert_eq!(names.len(), lists.len() * lists.len(), "{separator}");
    }
}

#[test]
fn a_long_list_becomes_a_hash() {
    let mut long = vec![1; 41];
    long[0] = 10;
    let text = of(long.clone());
    assert!(
        text.starts_with("dev_%l41%c10") && text.len() - 4 == VALUE_CAP,
        "{text}"
    );

    long[0] = 100;
    let one = of(long.clone());
    assert!(one.starts_with("dev_%h") && one.len() == 38, "{one}");
    long[7] = 2;
    assert_ne!(of(long.clone()), one);
    assert_eq!(of((long.clone(), 1)), format!("{}%c1", of(long)));
}

#[test]
fn only_the_next_separator_is_escaped_in_a_value() {
    let dashes = name(|key| {
        key.value_before("a-b", '-')
            .text("-")
            .value_before(&-5, '-')
            .text("-")
            .value("c-d");
    });
    let percent = name(|key| {
        key.value_before(":", '%').text("%").value("25");
    });

    assert_eq!(dashes, "dev_a%2Db-%2D5-c-d");
    assert_eq!(percent, "dev_%3A%e%25");
}

#[test]
fn a_long_value_becomes_a_hash() {
    let (long, longer) = ("a".repeat(VALUE_CAP), "a".repeat(VALUE_CAP + 1));

    assert_eq!(of(long.as_str()), format!("dev_{long}"));
    assert_eq!(
        of(longer.as_str()),
        "dev_%hc12cb024a2e5551cca0e08fce8f1c5e3"
    );
    assert_eq!(of(Shout(longer.clone())), of(longer));
}

#[test]
fn a_long_key_keeps_its_beginning_and_ends_in_a_hash() {
    let words = |last: &str| {
        name(|key| {
            (0..9).for_each(|_| {
                key.text("ä")
                    .value("b".repeat(VALUE_CAP).as_str())
                    .text(":");
            });
            key.value(last);
        })
    };

    let (one, two) = (words("1"), words("2"));

    assert!(
        one.len() <= NAME_CAP && one.len() > NAME_CAP - 2,
        "{}",
        one.len()
    );
    assert!(one.starts_with("dev_äbbb"));
    assert_ne!(one, two);
    assert_eq!(one[..900], two[..900]);
}

#[test]
fn the_shortened_text_of_a_long_key_is_another_key() {
    let fill = |key: &mut KeyWriter<'_>| {
        (0..7).for_each(|_| {
            key.value("b".repeat(VALUE_CAP).as_str()).text(":");
        });
        key.value(&"c".repeat(NAME_CAP - 34 - 4 - 7 * (VALUE_CAP + 1) - 1))
            .text(":");
    };
    let whole = format!(
        "dev_{}{}:{}",
        format!("{}:", "b".repeat(128)).repeat(7),
        "c".repeat(82),
        "%3A".repeat(20)
    );

    let long = name(|key| {
        fill(key);
        key.value(&":".repeat(20));
    });
    let crafted = name(|key| {
        fill(key);
        key.value(&whole);
    });

    assert_eq!((long.len(), crafted.len()), (NAME_CAP, NAME_CAP));
    assert_eq!(long[..NAME_CAP - 32], crafted[..NAME_CAP - 32]);
    assert_ne!(long, crafted);
}

#[test]
fn a_value_cannot_make_a_reserved_root() {
    let key = name(|key| {
        key.value("session").text(":").value(&1);
    });
    let pattern = Pattern::render("dev_", |pattern| {
        pattern.value("session").text(":").any();
    });

    assert_eq!(key, "dev_session%r:1");
    assert!(pattern.matches(&key));
    assert!(!is_reserved("dev_", &key));
    assert!(is_reserved("dev_", "dev_session:1"));
    assert!(!is_reserved("dev_", "test_session:1"));
}

#[test]
fn parts_with_several_fields_are_unambiguous() {
    struct Pair(&'static str, &'static str);
    impl KeyPart for Pair {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.value(self.0).value(self.1);
        }
    }

    assert_ne!(of(Pair("ab", "c")), of(Pair("a", "bc")));
    assert!(!of(Pair("ab", "c"))[4..].contains(':'));
}

#[test]
fn a_hash_of_several_fields_is_one_value() {
    struct Hashed(&'static str, &'static str);
    impl KeyPart for Hashed {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.hashed(|key| {
                key.value(self.0).value(self.1);
            });
        }
    }

    let text = of(Hashed("a", "b"));
    assert_eq!(text, "dev_%ha59639026bbe36de674894a6ad1d115b");
    assert_ne!(text, of(Hashed("a", "")));
    assert_ne!(text, of(Hashed("", "a%cb")));
    // A long text is also hashed.
    let long = "a".repeat(VALUE_CAP + 1);
    assert_ne!(of(long.as_str()), of(Hashed(long.leak(), "")));
    // The following text does not change the hash.
    let before = name(|key| {
        key.value_before(&Hashed("a", "b"), 'a').text("a").value(&1);
    });
    assert_eq!(before, format!("{text}a1"));
    let beside = name(|key| {
        key.value(&Hashed("a", "b")).value("c");
    });
    assert_eq!(beside, format!("{text}%cc"));
}

#[test]
fn a_value_that_cannot_be_displayed_has_a_unique_key() {
    struct Broken;
    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            Err(fmt::Error)
        }
    }
    impl KeyPart for Broken {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(self);
        }
    }

    assert_ne!(of(Broken), of(Broken));
}

#[test]
fn a_long_hand_written_key_is_shortened_like_a_rendered_key() {
    for length in [NAME_CAP - 4, NAME_CAP - 3, 5_000] {
        let text = "a".repeat(length);

        let parsed = Key::parse("dev_", &text).expect("a good key");
        let rendered = Key::render("dev_", |key| {
            key.text(&text);
        });

        assert_eq!(parsed, rendered);
        assert_eq!(parsed.as_str().len(), NAME_CAP);
        let listed = &parsed.as_str()["dev_".len()..];
        assert_eq!(Key::parse("dev_", listed).expect("a good key"), parsed);
    }
}

#[test]
fn a_hand_written_key_is_used_unchanged_or_refused_with_advice() {
    assert_eq!(
        Key::parse("dev_", "event:<4*2>%")
            .expect("a valid key")
            .as_str(),
        "dev_event:<4*2>%"
    );

    for (text, advice) in [
        ("", "the key is empty; use at least one character"),
        (
            "a b",
            "key `a b` contains ' '; remove white space and control characters, or percent-encode them",
        ),
        (
            "a\nb",
            "key `a\\nb` contains '\\n'; remove white space and control characters, or percent-encode them",
        ),
        (
            "cache:x",
            "key `cache:x` begins with `cache:`, which is reserved for the cache's own records; use another first word",
        ),
    ] {
        let error = Key::parse("dev_", text).expect_err(text);
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Input, advice)
        );
    }
    for root in RESERVED {
        assert!(Key::parse("dev_", root).is_err(), "{root}");
        assert!(
            Pattern::parse("dev_", &format!("{root}*")).is_err(),
            "{root}"
        );
    }
}

#[test]
fn a_hand_written_pattern_that_cannot_match_is_refused() {
    for text in ["", "a b*", "sessions:user:*", "cache:?"] {
        let error = Pattern::parse("dev_", text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Input);
    }
    for text in ["*", "session*", "?ession:1", "sess"] {
        Pattern::parse("dev_", text).expect(text);
    }
}

#[test]
fn wildcards_and_literals_match() {
    for (text, name, matches) in [
        ("event:*", "dev_event:42", true),
        ("event:*", "dev_event:", true),
        ("event:*", "dev_events:1", false),
        ("event:*", "test_event:1", false),
        ("*", "dev_session:1", false),
        ("s*", "dev_sessions:user:1", false),
        ("s*", "dev_session_1", true),
        ("e?ent", "dev_eßent", true),
        ("e?ent", "dev_eent", false),
        ("*?*?", "dev_ab", true),
        ("*?*?", "dev_a", false),
        ("[a-z]\\*", "dev_[a-z]\\x", true),
        ("[a-z]", "dev_b", false),
    ] {
        let pattern = Pattern::parse("dev_", text).expect(text);
        assert_eq!(pattern.matches(name), matches, "{text} on {name}");
    }
    assert!(Pattern::all("dev_").matches("dev_anything"));
}

#[test]
fn a_glob_escapes_all_special_characters_of_redis() {
    let pattern = Pattern::parse("d*[1]_", "a[b]\\c?d**?e*").expect("a valid pattern");

    assert_eq!(
        Pattern::common_glob(std::slice::from_ref(&pattern)),
        "d\\*\\[1\\]_a\\[b\\]\\\\c?*d?*e*"
    );
    assert_eq!(pattern.to_string(), "d*[1]_a[b]\\c?d?*e*");
    assert_eq!(
        Pattern::common_glob(&[Pattern::parse("", "?").expect("a valid pattern")]),
        "?*"
    );
}

#[test]
fn matching_a_hostile_pattern_is_fast() {
    let pattern = Pattern::parse("", &format!("{}b", "a*".repeat(100))).expect("a valid pattern");

    assert!(!pattern.matches(&"a".repeat(2_000)));
    assert!(pattern.matches(&format!("{}b", "a".repeat(2_000))));
}

struct Shout(String);

impl KeyPart for Shout {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(&self.0);
    }
}

/// Decodes one value from the left. The text after it begins with `separator`.
fn unescape<'a>(mut name: &'a str, separator: &str) -> (Option<String>, &'a str) {
    let mut bytes = Vec::new();
    if let Some(rest) = name.strip_prefix("%n") {
        return (None, rest);
    }
    while !name.is_empty() && !name.starts_with(separator) {
        if let Some(rest) = name.strip_prefix('%') {
            bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two digits"));
            name = &rest[2..];
        } else {
            bytes.push(name.as_bytes()[0]);
            let mut rest = name.chars();
            let c = rest.next().expect("not empty");
            bytes.pop();
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            name = rest.as_str();
        }
    }
    (Some(String::from_utf8(bytes).expect("valid UTF-8")), name)
}

fn slow_match(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|taken| slow_match(rest, &name[taken..])),
        Some(('?', rest)) => !name.is_empty() && slow_match(rest, &name[1..]),
        Some((c, rest)) => name.first() == Some(c) && slow_match(rest, &name[1..]),
    }
}

proptest! {
    #[test]
    fn values_can_be_decoded_from_a_key(
        first in prop::option::of("[a:%n3Ahsce \u{e9}\u{2003}*-]{0,6}|\\PC{0,20}"),
        second in prop::option::of("[a:%n3Ahsce \u{e9}\u{2003}*-]{0,6}|\\PC{0,20}"),
        separator in "[-.~n3Aha#\u{e9}]",
    ) {
        let name = name(|key| {
            key.value_before(&first, separator.chars().next().expect("one")).text(&separator).value(&second);
        });

        let (read, rest) = unescape(&name[4..], &separator);
        prop_assert_eq!(read, first);
        let (read, rest) = unescape(rest.strip_prefix(separator.as_str()).expect("the separator"), "\0");
        prop_assert_eq!((read, rest), (second, ""));
    }

    #[test]
    fn different_arguments_have_different_keys(
        one in ("[%:nsch3A]{0,3}", prop::option::of(0..3_i8), prop::option::of("[%:nsch3A]{0,3}")),
        two in ("[%:nsch3A]{0,3}", prop::option::of(0..3_i8), prop::option::of("[%:nsch3A]{0,3}")),
        separator in prop::sample::select(vec!["", "%", ":", "n", "h", "-", "3"]),
    ) {
        let name = |(a, b, c): &(String, Option<i8>, Option<String>)| name(|key| match separator.chars().next() {
            Some(sign) if sign != ':' => {
                key.value_before(a, sign).text(separator).value_before(b, sign).text(separator).value(c);
            }
            Some(_) => {
                key.value(a).text(separator).value(b).text(separator).value(c);
            }
            None => {
                key.value(a).value(b).value(c);
            }
        });

        prop_assert_eq!(name(&one) == name(&two), one == two);
    }

    #[test]
    fn a_value_adds_no_segment_and_no_special_character(value in "\\PC{0,60}|[\\x00-\\x7f]{0,200}") {
        let name = of(value.as_str());

        let bad = |c: char| ":*?[]{}<>\\ ".contains(c) || c.is_whitespace() || c.is_control();
        prop_assert!(!name.contains(bad), "{}", name);
    }

    #[test]
    fn a_pattern_agrees_with_a_simple_matcher(pattern in "[ab:\u{e9}*?]{1,8}", name in "[ab:\u{e9}]{0,8}") {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = slow_match(&letters(&pattern), &letters(&name));

        let pattern = Pattern::parse("p_", &pattern).expect("a valid pattern");

        prop_assert_eq!(pattern.matches(&format!("p_{name}")), expected);
        let elsewhere = format!("q_{name}");
        prop_assert!(!pattern.matches(&elsewhere));
    }

    #[test]
    fn a_value_in_a_pattern_matches_only_itself(value in "\\PC{0,12}", other in "\\PC{0,12}") {
        let pattern = Pattern::render("dev_", |pattern| {
            pattern.text("event:").value(&value).text(":").any();
        });
        let key = |value: &str| name(|key| {
            key.text("event:").value(value).text(":page:").value(&1);
        });

        prop_assert!(pattern.matches(&key(&value)));
        prop_assert_eq!(pattern.matches(&key(&other)), value == other);
    }
}

#[test]
fn invisible_characters_are_escaped_in_logs() {
    let text = "user:\u{202e}nimda\u{200b}";
    let key = Key::parse("app_", text).expect("a key");
    let pattern = Pattern::parse("app_", "user:\u{202e}*").expect("a pattern");

    assert_eq!(
        key.shown(false).to_string(),
        "app_user:\\u{202e}nimda\\u{200b}"
    );
    assert_eq!(pattern.shown(false).to_string(), "app_user:\\u{202e}*");
    // In Redis it is unchanged.
    assert_eq!(key.as_str(), format!("app_{text}"));
}
