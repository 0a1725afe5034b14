//! Sessions, TLS and sentinels, against real servers.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Address, Config, Secret, Tls, Topology};
use crate::error::ErrorKind;
use crate::store::Store;
use crate::store::redis::RedisStore;
use crate::store::support::{Sentinel, TlsServer, ask, cause, config, key, server, server_with};
use crate::testing::{RedisServer, free_port};

const LIFE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn connections_bear_the_user_the_database_the_name_and_resp3() {
    let server = server();
    let () = ask(
        &server,
        &[
            "ACL", "SETUSER", "alice", "on", ">s3cret", "~*", "&*", "+@all",
        ],
    );
    let alice = Config {
        username: Some("alice".into()),
        password: Some(Secret::from("s3cret")),
        database: 3,
        client_name: "tickets".into(),
        ..config(&server)
    };
    let store = RedisStore::new(&alice).unwrap();

    store.probe().await.unwrap();

    let list: String = ask(&server, &["CLIENT", "LIST"]);
    let line = list
        .lines()
        .find(|line| line.contains("name=tickets"))
        .unwrap_or_else(|| panic!("{list}"));
    assert!(
        line.contains(" db=3 ") && line.contains(" user=alice ") && line.contains(" resp=3"),
        "{line}"
    );
}

#[tokio::test]
async fn refused_credentials_are_said_and_not_shown() {
    let server = RedisServer::builder()
        .password("right-horse")
        .start()
        .unwrap();
    for password in [Some(Secret::from("wrong-horse")), None] {
        let store = RedisStore::new(&Config {
            password,
            ..config(&server)
        })
        .unwrap();

        let error = store.probe().await.unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(
            error.to_string().contains("refused the credentials"),
            "{error}"
        );
        assert!(
            !format!("{error:?} {store:?}").contains("horse"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_without_resp3_is_spoken_to_in_resp2() {
    let server = RedisServer::builder()
        .password("right-horse")
        .args(["--rename-command", "HELLO", ""])
        .start()
        .unwrap();
    let store = RedisStore::new(&config(&server)).unwrap();

    store.probe().await.unwrap();

    store.set(&key("a"), b"value", LIFE).await.unwrap();
    assert_eq!(
        store.get(&key("a"), 0).await.unwrap(),
        Some(b"value".to_vec())
    );
    assert!(
        store
            .server()
            .await
            .unwrap()
            .unwrap()
            .version
            .starts_with(|first: char| first.is_ascii_digit())
    );
    let nobody = RedisStore::new(&Config {
        password: None,
        ..config(&server)
    })
    .unwrap()
    .probe()
    .await
    .unwrap_err();
    assert!(
        nobody.to_string().contains("refused the credentials"),
        "{nobody}"
    );
}

#[tokio::test]
async fn a_user_who_may_not_ping_is_served() {
    let server = server_with(&[
        "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-ping",
    ]);
    let store = RedisStore::new(&config(&server)).unwrap();

    store.probe().await.unwrap();

    assert_eq!(store.get(&key("a"), 0).await.unwrap(), None);
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_nobody_else() {
    let TlsServer {
        server,
        authority,
        port,
        ..
    } = &TlsServer::start();
    let at = |host: &str, tls: Tls| Config {
        redis: Some(Topology::Standalone(Address::Tcp(host.into(), *port))),
        tls,
        ..config(server)
    };
    let probe = |config: Config| async move { RedisStore::new(&config).unwrap().probe().await };

    probe(at("localhost", Tls::Ca(authority.clone())))
        .await
        .unwrap();

    let stranger = probe(at("localhost", Tls::WebRoots)).await.unwrap_err();
    let wrong_name = probe(at("127.0.0.1", Tls::Ca(authority.clone())))
        .await
        .unwrap_err();
    assert_eq!(
        [stranger.kind(), wrong_name.kind()],
        [ErrorKind::Connection; 2]
    );
    assert!(cause(&stranger).contains("certificate"), "{stranger:?}");
    let missing =
        RedisStore::new(&at("localhost", Tls::Ca(PathBuf::from("/nowhere.pem")))).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn sentinels_are_asked_in_order_and_their_master_is_checked() {
    let (port, sentinel_port, nobody) = (free(), free(), free());
    let master = server_with(&["--port", &port.to_string()]);
    let _sentinel = Sentinel::start(sentinel_port, port);
    let asking_for = |name: &str| Config {
        redis: Some(Topology::Sentinel {
            sentinels: [nobody, sentinel_port]
                .map(|port| Address::Tcp("127.0.0.1".into(), port))
                .into(),
            master: name.into(),
        }),
        ..config(&master)
    };
    let store = RedisStore::new(&asking_for("main")).unwrap();

    store.probe().await.unwrap();
    store.set(&key("a"), b"value", LIFE).await.unwrap();
    assert_eq!(ask::<u32>(&master, &["EXISTS", "dev_a"]), 1);

    let unknown = RedisStore::new(&asking_for("other"))
        .unwrap()
        .probe()
        .await
        .unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("no sentinel says where the master `other` is"),
        "{unknown}"
    );
    let () = ask(&master, &["REPLICAOF", "127.0.0.1", "1"]);
    let demoted = RedisStore::new(&asking_for("main"))
        .unwrap()
        .probe()
        .await
        .unwrap_err();
    assert!(demoted.to_string().contains("is no master"), "{demoted}");
}

#[tokio::test]
async fn an_absent_server_is_named() {
    let nowhere = Config {
        redis: Some(Topology::Standalone(Address::Tcp(
            "127.0.0.1".into(),
            free(),
        ))),
        ..Config::default()
    };
    let Some(Topology::Standalone(address)) = &nowhere.redis else {
        unreachable!()
    };

    let error = RedisStore::new(&nowhere)
        .unwrap()
        .probe()
        .await
        .unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!(error.to_string(), format!("cannot connect to {address}"));
    assert!(cause(&error).contains("refused"), "{error:?}");
    assert_eq!(
        RedisStore::new(&Config::default()).unwrap_err().kind(),
        ErrorKind::Config
    );
}

/// A port that is nobody's at this moment.
fn free() -> u16 {
    free_port().unwrap()
}
