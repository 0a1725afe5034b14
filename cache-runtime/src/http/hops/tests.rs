use std::time::{Duration, Instant};

use ::http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn lines(name: HeaderName, lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, HeaderValue::from_bytes(line).unwrap());
    }
    headers
}

fn shown(hops: impl Iterator<Item = Option<IpAddr>>) -> Vec<String> {
    hops.map(|hop| hop.map_or("-".to_owned(), |hop| hop.to_string()))
        .collect()
}

fn x_forwarded_for(texts: &[&str]) -> Vec<String> {
    let texts: Vec<_> = texts.iter().map(|text| text.as_bytes()).collect();
    shown(Field::XForwardedFor.hops(&lines(X_FORWARDED_FOR, &texts)))
}

fn forwarded(texts: &[&str]) -> Vec<String> {
    let texts: Vec<_> = texts.iter().map(|text| text.as_bytes()).collect();
    shown(Field::Forwarded.hops(&lines(header::FORWARDED, &texts)))
}

#[test]
fn hops_are_read_from_the_right_over_all_lines() {
    assert_eq!(x_forwarded_for(&[]), [""; 0]);
    assert_eq!(x_forwarded_for(&["1.1.1.1"]), ["1.1.1.1"]);
    assert_eq!(
        x_forwarded_for(&["1.1.1.1,2.2.2.2", " 3.3.3.3 ,\t::1 "]),
        ["::1", "3.3.3.3", "2.2.2.2", "1.1.1.1"]
    );
}

#[test]
fn an_address_can_have_brackets_and_a_port() {
    for (text, address) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("2001:db8::1.2.3.4", "2001:db8::102:304"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
    ] {
        assert_eq!(x_forwarded_for(&[text]), [address], "{text}");
    }
}

#[test]
fn other_text_is_not_an_address() {
    for text in [
        "",
        " ",
        "unknown",
        "_hidden",
        "localhost",
        "192.0.2",
        "192.0.2.256",
        "192.0.02.1",
        "0300.0.2.1",
        "3221225985",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2.1:http",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[]",
        "[]:80",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[[::1]]",
        "fe80::1%eth0",
        "fe80::1%1",
        "[fe80::1%1]",
        "[fe80::1%1]:80",
        "[fe80::1%25eth0]:80",
        "192.0.2.1 192.0.2.2",
        "192.0.2.1;",
        "\"192.0.2.1\"",
        "for=192.0.2.1",
        "unix:",
        "192.0.2.1/32",
    ] {
        assert_eq!(x_forwarded_for(&[text]), ["-"], "{text}");
    }
    let binary = lines(X_FORWARDED_FOR, &[b"1.1.1.1, \xff\xfe, 2.2.2.2"]);
    assert_eq!(
        shown(Field::XForwardedFor.hops(&binary)),
        ["2.2.2.2", "-", "1.1.1.1"]
    );
}

#[test]
fn an_empty_member_counts_as_a_hop() {
    assert_eq!(
        x_forwarded_for(&["1.1.1.1, ,2.2.2.2,"]),
        ["-", "2.2.2.2", "-", "1.1.1.1"]
    );
    assert_eq!(x_forwarded_for(&["1.1.1.1", ""]), ["-", "1.1.1.1"]);
}

#[test]
fn the_standard_field_has_the_address_in_for() {
    // The examples of RFC 7239, sections 4 and 6.
    assert_eq!(forwarded(&[r#"for="_gazonk""#]), ["-"]);
    assert_eq!(
        forwarded(&[r#"For="[2001:db8:cafe::17]:4711""#]),
        ["2001:db8:cafe::17"]
    );
    assert_eq!(
        forwarded(&["for=192.0.2.60;proto=http;by=203.0.113.43"]),
        ["192.0.2.60"]
    );
    assert_eq!(
        forwarded(&["for=192.0.2.43, for=198.51.100.17"]),
        ["198.51.100.17", "192.0.2.43"]
    );
    assert_eq!(
        forwarded(&[
            r#"for=_hidden, for=_SEVKISEK"#,
            r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#
        ]),
        ["-", "2001:db8:cafe::17", "192.0.2.43", "-", "-"]
    );
    assert_eq!(forwarded(&[r#"for="192.0.2.43:47011""#]), ["192.0.2.43"]);
}

#[test]
fn commas_and_semicolons_in_quotes_are_not_separators() {
    assert_eq!(
        forwarded(&[r#"host="a, for=6.6.6.6, b";for=192.0.2.1, by="x;for=6.6.6.6";for=192.0.2.2"#]),
        ["192.0.2.2", "192.0.2.1"]
    );
    assert_eq!(
        forwarded(&[r#"host="a\", for=6.6.6.6, \"b";for=192.0.2.1"#]),
        ["192.0.2.1"]
    );
    assert_eq!(
        forwarded(&[r#"host="a, b\\";for=192.0.2.1, for=192.0.2.2"#]),
        ["192.0.2.2", "192.0.2.1"]
    );
}

#[test]
fn an_unclosed_quote_of_a_client_hides_no_hop() {
    for forged in [
        r#"for=""#,
        r#"for="6.6.6.6"#,
        r#"for="\"#,
        r#"host="a\"#,
        r#"""""#,
        r#"\""#,
        "\\",
    ] {
        let together = format!("{forged}, for=192.0.2.1");
        assert_eq!(forwarded(&[&together])[0], "192.0.2.1", "{together}");
        assert_eq!(forwarded(&[forged, "for=\"[::1]\""])[0], "::1", "{forged}");
    }
}

#[test]
fn a_member_without_exactly_one_for_is_not_an_address() {
    for member in [
        "",
        "192.0.2.1",
        "by=192.0.2.1",
        "proto=https",
        "for",
        "for=",
        "for=\"\"",
        "for=\"",
        "for = 192.0.2.1",
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1;FOR=192.0.2.1",
        "for=192.0.2.1;x",
        r#"for="192.0.2.1"#,
        r#"for=192.0.2.1""#,
        r#"for="192.0.2.\1""#,
        r#"for="for=192.0.2.1""#,
        "xfor=192.0.2.1",
        "for=[::1%1]",
    ] {
        assert_eq!(forwarded(&[member]), ["-"], "{member}");
    }
    assert_eq!(forwarded(&[";for=192.0.2.1;"]), ["192.0.2.1"]);
}

#[test]
fn forged_headers_cost_little() {
    let entries = vec!["10.0.0.1"; 10_000].join(", ");
    let nonsense = "x".repeat(1 << 16);
    let quotes = r#"\""#.repeat(1 << 15);
    let backslashes = format!("{}\"", r"\".repeat(1 << 16));

    let begin = Instant::now();
    for forged in [&entries, &nonsense, &quotes, &backslashes] {
        for field in [Field::XForwardedFor, Field::Forwarded] {
            let name = [X_FORWARDED_FOR, header::FORWARDED][field as usize].clone();
            let headers = lines(name, &[forged.as_bytes(), b"192.0.2.1"]);
            assert!(field.hops(&headers).take(32).count() >= 2);
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
}

proptest! {
    #[test]
    fn forged_entries_do_not_change_the_entry_of_a_proxy(
        forged in r#"[ -~]{0,40}"#,
        address in any::<IpAddr>(),
        port in prop::option::of(any::<u16>()),
    ) {
        let written = match (address, port) {
            (IpAddr::V4(address), None) => address.to_string(),
            (IpAddr::V6(address), None) => format!("[{address}]"),
            (address, Some(port)) => SocketAddr::new(address, port).to_string(),
        };
        let address = address.to_canonical().to_string();

        let plain = format!("{forged},{written}");
        prop_assert_eq!(&x_forwarded_for(&[&plain])[0], &address);
        let quoted = format!("{forged},host=\"a,b\";for=\"{written}\";proto=http");
        prop_assert_eq!(&forwarded(&[&quoted])[0], &address);
        prop_assert_eq!(&forwarded(&[&forged, &format!("for=\"{written}\"")])[0], &address);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            for (name, field) in [(X_FORWARDED_FOR, Field::XForwardedFor), (header::FORWARDED, Field::Forwarded)] {
                let mut headers = HeaderMap::new();
                headers.insert(name, value.clone());
                prop_assert!(field.hops(&headers).count() <= bytes.len() + 1);
            }
        }
    }
}
