use proptest::prelude::*;

use super::*;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp(host.to_owned(), port)
}

fn parsed(text: &str) -> RedisUrl {
    RedisUrl::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

#[test]
fn a_server_address_has_many_forms() {
    for (text, address) in [
        ("localhost", tcp("localhost", 6379)),
        ("10.0.0.1:7000", tcp("10.0.0.1", 7000)),
        ("redis://cache_1.internal", tcp("cache_1.internal", 6379)),
        ("REDIS://host:1/", tcp("host", 1)),
        ("redis://[::1]:7000", tcp("::1", 7000)),
        ("[fe80::1]", tcp("fe80::1", 6379)),
        (
            "unix:///run/my%20redis.sock",
            Address::Unix("/run/my redis.sock".into()),
        ),
        (
            "redis+unix:///run/redis.sock",
            Address::Unix("/run/redis.sock".into()),
        ),
    ] {
        assert_eq!(
            parsed(text).topology,
            Topology::Standalone(address),
            "{text}"
        );
    }
}

#[test]
fn all_parts_of_an_address_are_read() {
    let url = parsed("rediss://app:p%40ss%3A%2F@host:6380/3");

    assert_eq!(url.topology, Topology::Standalone(tcp("host", 6380)));
    assert_eq!(
        (url.username.as_deref(), url.password),
        (Some("app"), Some("p@ss:/".into()))
    );
    assert_eq!((url.database, url.encrypted), (Some(3), true));
}

#[test]
fn a_user_or_a_password_can_be_given_alone() {
    let (user, password) = (parsed("redis://app@host"), parsed("redis://:pw@host"));

    assert_eq!(
        (user.username.as_deref(), user.password),
        (Some("app"), None)
    );
    assert_eq!(
        (password.username, password.password),
        (None, Some("pw".into()))
    );
}

#[test]
fn sentinels_are_a_list_with_a_master() {
    let url = parsed("redis+sentinel://:pw@h1,h2:26380,[::1]/mymaster/2");

    let sentinels = vec![tcp("h1", 26379), tcp("h2", 26380), tcp("::1", 26379)];
    assert_eq!(
        url.topology,
        Topology::Sentinel {
            sentinels,
            master: "mymaster".to_owned()
        }
    );
    assert_eq!((url.database, url.password), (Some(2), Some("pw".into())));
}

#[test]
fn a_cluster_is_a_list_of_nodes() {
    for text in [
        "redis+cluster://app:pw@h1:7000,h2,[::1]:7001",
        "redis+cluster://app:pw@h1:7000,h2,[::1]:7001/0?read=primary",
        "rediss+cluster://app:pw@h1:7000,h2,[::1]:7001/?read=primary",
    ] {
        let url = parsed(text);

        let nodes = vec![tcp("h1", 7000), tcp("h2", 6379), tcp("::1", 7001)];
        assert_eq!(url.topology, Topology::Cluster { nodes }, "{text}");
        assert_eq!(
            (url.username.as_deref(), url.password),
            (Some("app"), Some("pw".into()))
        );
        assert_eq!(url.encrypted, text.starts_with("rediss"));
        assert_eq!(url.database, text.contains("/0").then_some(0));
    }
}

#[test]
fn an_address_is_mapped_to_another() {
    assert_eq!(
        mapped("10.0.0.1:7000 = example.com:17000"),
        Some((tcp("10.0.0.1", 7000), tcp("example.com", 17000)))
    );
    assert_eq!(mapped("[::1]:1=h"), Some((tcp("::1", 1), tcp("h", 6379))));
    for wrong in ["", "a", "a=", "=b", "a=b=c", "a:0=b", "a=b:x"] {
        assert_eq!(mapped(wrong), None, "{wrong}");
    }
}

#[test]
fn a_socket_takes_its_parts_from_parameters() {
    let url = parsed("unix:///run/redis.sock?db=4&user=app&pass=p%26w");

    assert_eq!(
        (url.database, url.username.as_deref()),
        (Some(4), Some("app"))
    );
    assert_eq!(url.password, Some("p&w".into()));
}

#[test]
fn an_invalid_address_is_reported_with_the_allowed_forms() {
    for (text, advice) in [
        ("redis+cluster://h1,h2/1", "only the database 0"),
        ("redis+cluster://h1,h2/x", "only the database 0"),
        ("redis+cluster://h1,h2?read=replica", "only `?read=primary`"),
        (
            "redis+cluster://h1?read=primary&x=1",
            "only `?read=primary`",
        ),
        ("redis+cluster://:a?b@h1", "`%3F`"),
        ("redis+cluster://", "the host is a name"),
        ("redis+cluster://h1,,h2", "the host is a name"),
        ("http://host", "begins with `redis://`"),
        ("redis://", "the host is a name"),
        ("redis://host:0", "from 1 to 65535"),
        ("redis://host:70000", "from 1 to 65535"),
        ("redis://host/one", "a database index"),
        ("redis://host/-1", "a database index"),
        ("redis://host?protocol=resp3", "without a query"),
        ("redis://a@b@host", "`%40`"),
        ("redis://:%zz@host", "`%25`"),
        ("redis://:%ff@host", "UTF-8"),
        ("redis://[::1", "bracket"),
        ("redis://[::1]7000", "may follow the bracket"),
        ("redis://h1,h2", "the host is a name"),
        ("user:pw@host", "the full form"),
        ("/run/redis.sock", "unix:///run/redis.sock"),
        ("unix://run/redis.sock", "an absolute path"),
        (
            "unix:///run/redis.sock?timeout=1",
            "`db`, `user` and `pass`",
        ),
        ("redis+sentinel://h1,h2", "the name of the master"),
    ] {
        let problem = RedisUrl::parse(text)
            .err()
            .unwrap_or_else(|| panic!("{text} was taken"));
        assert!(problem.contains(advice), "{text}: {problem}");
    }
}

proptest! {
    #[test]
    fn no_address_causes_a_panic_or_is_repeated_in_its_problem(
        text in "(redis|rediss|unix|redis\\+sentinel|redis\\+cluster)?(://)?[a-z0-9:@/?#%\\[\\],é]{0,30}",
        secret in "hunter[0-9]{8}",
    ) {
        let _ = RedisUrl::parse(&text);
        if let Err(problem) = RedisUrl::parse(&format!("redis://:{secret}{text}")) {
            prop_assert!(!problem.contains(&secret));
        }
    }

    #[test]
    fn a_topology_is_printed_as_its_address(host in "[a-z][a-z0-9.-]{0,20}", port in 1_u16..) {
        for text in [format!("redis://{host}:{port}"), format!("redis+sentinel://{host}:{port},[::1]:{port}/m"), format!("redis+cluster://{host}:{port},[::1]:{port}")] {
            prop_assert_eq!(parsed(&text).topology.to_string(), text);
        }
    }
}
