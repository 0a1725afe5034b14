use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::extract::{ConnectInfo, FromRequestParts as _};
use axum::http::Request;
use axum::response::IntoResponse;

use super::*;

const PROXIES: [&str; 2] = ["10.0.0.0/8", "::1"];

fn parts(peer: Option<&str>, lines: &[(&str, &str)]) -> Parts {
    let mut request = Request::new(Body::empty());
    if let Some(peer) = peer {
        let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    for (name, line) in lines {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, line.parse().unwrap());
    }
    request.into_parts().0
}

fn find(source: &ClientIpSource, peer: &str, lines: &[(&str, &str)]) -> String {
    let ClientIp(address) = source.find(&parts(Some(peer), lines)).unwrap();
    address.to_string()
}

/// Finds the client behind proxies in these networks.
fn proxied(peer: &str, lines: &[&str]) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| ("X-Forwarded-For", *line))
        .collect();
    find(
        &ClientIpSource::trusted_proxies(PROXIES).unwrap(),
        peer,
        &lines,
    )
}

/// Finds the client behind this many proxies.
fn behind(proxies: usize, lines: &[&str]) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| ("X-Forwarded-For", *line))
        .collect();
    find(
        &ClientIpSource::trusted_hops(proxies).unwrap(),
        "192.0.2.99",
        &lines,
    )
}

fn advice(wrong: Result<ClientIpSource, Error>) -> String {
    let error = wrong.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

mod without_proxies {
    use super::*;

    #[test]
    fn the_peer_is_the_client_for_any_headers() {
        let forged = [
            ("X-Forwarded-For", "6.6.6.6"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Real-IP", "6.6.6.6"),
            ("CF-Connecting-IP", "6.6.6.6"),
        ];
        assert_eq!(
            find(&ClientIpSource::peer(), "192.0.2.1", &forged),
            "192.0.2.1"
        );
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_listener_is_ipv4() {
        for peer in ["::ffff:192.0.2.1", "::ffff:c000:201"] {
            assert_eq!(find(&ClientIpSource::peer(), peer, &[]), "192.0.2.1");
        }
        assert_eq!(
            find(&ClientIpSource::peer(), "2001:db8::1.2.3.4", &[]),
            "2001:db8::102:304"
        );
    }

    #[test]
    fn a_mocked_peer_counts_as_a_peer() {
        let mut parts = parts(None, &[]);
        let peer = SocketAddr::from(([192, 0, 2, 1], 80));
        parts.extensions.insert(MockConnectInfo(peer));
        assert_eq!(
            ClientIpSource::peer().find(&parts),
            Some(ClientIp(peer.ip()))
        );
    }
}

mod behind_trusted_proxies {
    use super::*;

    #[test]
    fn the_rightmost_untrusted_entry_is_the_client() {
        assert_eq!(proxied("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            proxied("10.0.0.1", &["192.0.2.1, 10.0.0.3, 10.0.0.2"]),
            "192.0.2.1"
        );
        assert_eq!(
            proxied("10.0.0.1", &["192.0.2.1", "10.0.0.3", "10.0.0.2"]),
            "192.0.2.1"
        );
        assert_eq!(proxied("::1", &["[2001:db8::7]:50000"]), "2001:db8::7");
    }

    #[test]
    fn forged_entries_are_never_used() {
        for forged in [
            "6.6.6.6",
            "6.6.6.6, 7.7.7.7",
            "10.0.0.9",
            "127.0.0.1",
            "",
            ",",
            " , ,, ",
            "unknown",
            "_hidden",
            "fe80::1%eth0",
            "[",
            "\"",
            "6.6.6.6:99999",
        ] {
            assert_eq!(
                proxied("10.0.0.1", &[&format!("{forged}, 192.0.2.1, 10.0.0.2")]),
                "192.0.2.1",
                "{forged}"
            );
            assert_eq!(
                proxied("10.0.0.1", &[forged, forged, "192.0.2.1, 10.0.0.2"]),
                "192.0.2.1",
                "{forged}"
            );
            assert_eq!(
                proxied("10.0.0.1", &[forged, "192.0.2.1", "10.0.0.2"]),
                "192.0.2.1",
                "{forged}"
            );
        }
    }

    #[test]
    fn a_peer_that_is_not_a_proxy_is_the_client() {
        assert_eq!(proxied("192.0.2.1", &["6.6.6.6"]), "192.0.2.1");
        assert_eq!(proxied("192.0.2.1", &["6.6.6.6, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(proxied("11.0.0.1", &[]), "11.0.0.1");
    }

    #[test]
    fn if_all_are_trusted_the_leftmost_is_the_client() {
        assert_eq!(
            proxied("10.0.0.1", &["10.0.0.4, 10.0.0.3", "10.0.0.2"]),
            "10.0.0.4"
        );
        assert_eq!(proxied("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn an_invalid_address_ends_the_search_at_the_last_trusted_hop() {
        for bad in [
            "",
            "unknown",
            "_hidden",
            "fe80::1%1",
            "10.0.0.256",
            "192.0.2.1 192.0.2.2",
            "é",
        ] {
            assert_eq!(
                proxied("10.0.0.1", &[&format!("6.6.6.6, {bad}, 10.0.0.2")]),
                "10.0.0.2",
                "{bad}"
            );
            assert_eq!(
                proxied("10.0.0.1", &["6.6.6.6", bad, "10.0.0.2"]),
                "10.0.0.2",
                "{bad}"
            );
            assert_eq!(
                proxied("10.0.0.1", &[&format!("6.6.6.6, {bad}")]),
                "10.0.0.1",
                "{bad}"
            );
        }
    }

    #[test]
    fn both_spellings_of_ipv4_are_trusted_and_equal() {
        assert_eq!(
            proxied("::ffff:10.0.0.1", &["::ffff:192.0.2.1, ::ffff:a00:2"]),
            "192.0.2.1"
        );
        assert_eq!(proxied("10.0.0.1", &["[::ffff:c000:201]:80"]), "192.0.2.1");
    }

    #[test]
    fn many_entries_change_nothing() {
        let trusted = vec!["10.0.0.9"; 10_000].join(",");
        let long = "9".repeat(1 << 16);

        assert_eq!(proxied("10.0.0.1", &[&trusted, "192.0.2.1"]), "192.0.2.1");
        assert_eq!(proxied("10.0.0.1", &[&long, "192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            proxied("10.0.0.1", &[&format!("{long}, 192.0.2.1")]),
            "192.0.2.1"
        );
        // Entries beyond any real chain of proxies are not read.
        assert_eq!(proxied("10.0.0.1", &["6.6.6.6", &trusted]), "10.0.0.9");
    }

    #[test]
    fn the_standard_field_replaces_x_forwarded_for() {
        let source = ClientIpSource::trusted_proxies(PROXIES)
            .unwrap()
            .forwarded()
            .unwrap();
        let lines = [
            ("X-Forwarded-For", "6.6.6.6"),
            (
                "Forwarded",
                r#"for="[2001:db8::7]:1";host="a, for=6.6.6.6", for=10.0.0.2;by=_x"#,
            ),
        ];

        assert_eq!(find(&source, "10.0.0.1", &lines), "2001:db8::7");
        assert_eq!(find(&source, "10.0.0.1", &lines[..1]), "10.0.0.1");
        assert_eq!(proxied("10.0.0.1", &[]), "10.0.0.1");
    }
}

mod behind_a_number_of_proxies {
    use super::*;

    #[test]
    fn the_nth_entry_from_the_right_is_the_client() {
        let lines = ["6.6.6.6", "192.0.2.3, 192.0.2.2", "192.0.2.1"];
        assert_eq!(behind(1, &lines), "192.0.2.1");
        assert_eq!(behind(2, &lines), "192.0.2.2");
        assert_eq!(behind(3, &lines), "192.0.2.3");
    }

    #[test]
    fn with_fewer_entries_the_leftmost_or_the_peer_is_the_client() {
        assert_eq!(behind(3, &["192.0.2.2, 192.0.2.1"]), "192.0.2.2");
        assert_eq!(behind(3, &[]), "192.0.2.99");
    }

    #[test]
    fn an_invalid_address_ends_the_search() {
        assert_eq!(behind(2, &["6.6.6.6, unknown, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(behind(2, &["6.6.6.6, , 192.0.2.1"]), "192.0.2.1");
        assert_eq!(behind(1, &["6.6.6.6, _hidden"]), "192.0.2.99");
        assert_eq!(behind(1, &["6.6.6.6,"]), "192.0.2.99");
    }

    #[test]
    fn a_service_on_a_unix_socket_needs_no_peer() {
        let source = ClientIpSource::trusted_hops(1).unwrap();
        let forwarded = parts(None, &[("X-Forwarded-For", "6.6.6.6, 192.0.2.1")]);

        assert_eq!(
            source.find(&forwarded),
            Some(ClientIp([192, 0, 2, 1].into()))
        );
        assert_eq!(source.find(&parts(None, &[])), None);
    }
}

mod with_a_named_header {
    use super::*;

    fn named(peer: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("x-real-ip", *line)).collect();
        find(
            &ClientIpSource::header("X-Real-IP", PROXIES).unwrap(),
            peer,
            &lines,
        )
    }

    #[test]
    fn a_single_address_is_the_client() {
        assert_eq!(named("10.0.0.1", &[" 192.0.2.1 "]), "192.0.2.1");
        assert_eq!(named("10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn the_peer_is_the_client_for_any_other_value() {
        assert_eq!(named("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(named("10.0.0.1", &["192.0.2.1", "192.0.2.1"]), "10.0.0.1");
        for bad in ["", "192.0.2.1, 192.0.2.2", "unknown", "é", "fe80::1%1"] {
            assert_eq!(named("10.0.0.1", &[bad]), "10.0.0.1", "{bad}");
        }
    }

    #[test]
    fn a_peer_that_is_not_a_proxy_is_the_client() {
        assert_eq!(named("192.0.2.1", &["6.6.6.6"]), "192.0.2.1");
    }
}

#[test]
fn no_header_is_trusted_without_a_peer() {
    let forged = parts(
        None,
        &[("X-Forwarded-For", "6.6.6.6"), ("X-Real-IP", "6.6.6.6")],
    );
    for source in [
        ClientIpSource::peer(),
        ClientIpSource::trusted_proxies(PROXIES).unwrap(),
        ClientIpSource::header("X-Real-IP", PROXIES).unwrap(),
    ] {
        assert_eq!(source.find(&forged), None, "{source:?}");
    }
}

#[test]
fn an_invalid_source_is_refused_with_advice() {
    assert!(advice(ClientIpSource::trusted_hops(0)).contains("use `ClientIpSource::peer()`"));
    assert!(advice(ClientIpSource::trusted_hops(33)).contains("from 1 to 32"));
    assert!(advice(ClientIpSource::trusted_proxies(["lan"])).contains("`lan` is not a network"));
    assert!(
        advice(ClientIpSource::header("X Real IP", PROXIES))
            .contains("`X Real IP` is not a header name")
    );
    assert!(advice(ClientIpSource::header("X-Real-IP", ["0.0.0.0/0"])).contains("every client"));
    assert!(advice(ClientIpSource::peer().forwarded()).contains("`trusted_proxies`"));
}

#[tokio::test]
async fn a_handler_gets_the_address_of_a_layer_the_peer_or_an_error() {
    let mut known = parts(Some("192.0.2.1"), &[]);
    let peer = ClientIp([192, 0, 2, 1].into());
    assert_eq!(
        ClientIp::from_request_parts(&mut known, &()).await,
        Ok(peer)
    );

    let found = ClientIp([192, 0, 2, 7].into());
    known.extensions.insert(found);
    assert_eq!(
        ClientIp::from_request_parts(&mut known, &()).await,
        Ok(found)
    );

    let missing = ClientIp::from_request_parts(&mut parts(None, &[]), &())
        .await
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("`into_make_service_with_connect_info::<SocketAddr>()`")
    );
    assert_eq!(missing.into_response().status(), 500);
}
