//! Sessions, TLS and sentinels, against real servers.

mod access;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Address, Config, Secret, Tls, Topology};
use crate::error::ErrorKind;
use crate::store::Store;
use crate::store::redis::RedisStore;
use crate::store::support::{
    Sentinel, SingleEntry, TlsServer, ask, cause, config, key, pool_of, server, server_with, until,
};
use crate::testing::{RedisServer, free_port};

/// Resolves names in tests, which cannot write `/etc/hosts`.
static HOSTS: LazyLock<Mutex<HashMap<&str, Vec<SocketAddr>>>> = LazyLock::new(Mutex::default);

pub(super) fn addresses_of(host: &str) -> Option<Vec<SocketAddr>> {
    let hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    hosts.get(host).cloned()
}

fn name(host: &'static str, addresses: &[SocketAddr]) {
    let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    hosts.insert(host, addresses.to_vec());
}

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn connections_have_the_user_the_database_the_name_and_resp3() {
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
async fn refused_credentials_are_reported_but_not_shown() {
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
async fn a_server_without_resp3_gets_resp2() {
    let server = RedisServer::builder()
        .password("right-horse")
        .args(["--rename-command", "HELLO", ""])
        .start()
        .unwrap();
    let store = RedisStore::new(&config(&server)).unwrap();

    store.probe().await.unwrap();

    store.set(&key("a"), b"value", TTL).await.unwrap();
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
async fn a_user_without_permission_to_ping_is_accepted() {
    let server = server_with(&[
        "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-ping",
    ]);
    let store = RedisStore::new(&config(&server)).unwrap();

    store.probe().await.unwrap();

    assert_eq!(store.get(&key("a"), 0).await.unwrap(), None);
}

#[tokio::test]
async fn tls_trusts_only_the_given_authority() {
    let Some(TlsServer {
        server,
        authority,
        port,
        ..
    }) = &TlsServer::start()
    else {
        return;
    };
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
async fn sentinels_are_asked_and_their_master_is_checked() {
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
    store.set(&key("a"), b"value", TTL).await.unwrap();
    assert_eq!(ask::<u32>(&master, &["EXISTS", "dev_a"]), 1);

    let unknown = RedisStore::new(&asking_for("other"))
        .unwrap()
        .probe()
        .await
        .unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("no sentinel reports the address of the master `other`"),
        "{unknown}"
    );
    let () = ask(&master, &["REPLICAOF", "127.0.0.1", "1"]);
    let demoted = RedisStore::new(&asking_for("main"))
        .unwrap()
        .probe()
        .await
        .unwrap_err();
    assert!(
        demoted.to_string().contains("is no longer the master"),
        "{demoted}"
    );
}

#[tokio::test]
async fn an_error_names_the_absent_server() {
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

/// Returns a port that is currently free.
fn free() -> u16 {
    free_port().unwrap()
}

/// An address that drops packets: its backlog is full, so the system ignores new connections.
struct Silent {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    async fn start() -> Self {
        let listener = {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket.listen(1).unwrap().into_std().unwrap()
        };
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let patience = Duration::from_millis(200);
        while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await
        {
            waiting.push(connected.unwrap());
        }
        Self {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

fn port_of(server: &RedisServer) -> u16 {
    match server.address() {
        Address::Tcp(_, port) => *port,
        Address::Unix(_) => panic!("the server listens on a socket"),
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn at(host: &str, port: u16) -> Config {
    Config {
        redis: Some(Topology::Standalone(Address::Tcp(host.into(), port))),
        command_timeout: Duration::from_secs(2),
        ..Config::default()
    }
}

#[tokio::test]
async fn an_address_that_drops_packets_delays_nothing_and_is_tried_last_afterwards() {
    let (server, silent) = (RedisServer::tcp().unwrap(), Silent::start().await);
    name("two.test", &[silent.address, local(port_of(&server))]);
    let store = RedisStore::new(&at("two.test", 1)).unwrap();

    let began = Instant::now();
    store.probe().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");

    let connector = store.connections().unwrap().connector();
    let began = Instant::now();
    let again = connector.open().await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(250), "{began:?}");
    drop(again);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_skipped_too() {
    let (server, frozen) = (RedisServer::tcp().unwrap(), RedisServer::tcp().unwrap());
    name(
        "frozen.test",
        &[local(port_of(&frozen)), local(port_of(&server))],
    );
    frozen.stop().unwrap();
    let store = RedisStore::new(&at("frozen.test", 1)).unwrap();

    let began = Instant::now();
    store.probe().await.unwrap();

    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    frozen.resume().unwrap();
}

#[tokio::test]
async fn the_primary_is_chosen_among_servers_with_one_name() {
    let primary = RedisServer::tcp().unwrap();
    let replica = RedisServer::tcp().unwrap();
    let () = ask(&replica, &["REPLICAOF", "127.0.0.1", "1"]);
    name(
        "both.test",
        &[local(port_of(&replica)), local(port_of(&primary))],
    );
    let store = RedisStore::new(&at("both.test", 1)).unwrap();

    store.probe().await.unwrap();

    store.set(&key("a"), b"value", TTL).await.unwrap();
    assert_eq!(ask::<u32>(&primary, &["EXISTS", "dev_a"]), 1);
}

#[tokio::test]
async fn an_unreachable_name_reports_each_address() {
    let nobody = [local(free()), local(free())];
    name("nowhere.test", &nobody);

    let error = refused(at("nowhere.test", 1)).await;

    assert_eq!(error.to_string(), "cannot connect to nowhere.test:1");
    for address in nobody {
        assert!(cause(&error).contains(&address.to_string()), "{error:?}");
    }
}

#[tokio::test]
async fn sentinels_that_drop_packets_delay_nothing() {
    let master = RedisServer::tcp().unwrap();
    let (first, second) = (Silent::start().await, Silent::start().await);
    let sentinel_port = free();
    let _sentinel = Sentinel::start(sentinel_port, port_of(&master));
    let store = RedisStore::new(&Config {
        redis: Some(Topology::Sentinel {
            sentinels: [first.port(), second.port(), sentinel_port]
                .map(|port| Address::Tcp("127.0.0.1".into(), port))
                .into(),
            master: "main".into(),
        }),
        ..config(&master)
    })
    .unwrap();

    let began = Instant::now();
    store.probe().await.unwrap();

    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
}

#[tokio::test]
async fn replicas_sentinels_and_cluster_nodes_are_refused_with_advice() {
    let primary = RedisServer::tcp().unwrap();
    let replica = RedisServer::tcp().unwrap();
    let port = port_of(&primary).to_string();
    let () = ask(&replica, &["REPLICAOF", "127.0.0.1", &port]);
    let node = RedisServer::builder()
        .tcp()
        .args(["--cluster-enabled", "yes"])
        .start()
        .unwrap();
    let sentinel_port = free();
    let _sentinel = Sentinel::start(sentinel_port, port_of(&primary));

    let cases = [
        (
            port_of(&replica),
            format!(
                "is a replica, which rejects writes; use the address of its primary (127.0.0.1:{port})"
            ),
        ),
        (
            sentinel_port,
            "is a sentinel, not a Redis server; use `redis+sentinel://127.0.0.1".to_owned(),
        ),
        (
            port_of(&node),
            format!(
                "is a node of a Redis Cluster; use `redis+cluster://127.0.0.1:{}`",
                port_of(&node)
            ),
        ),
    ];
    for (port, expected) in cases {
        // The error names the server, even if the index of the database would be refused too.
        for database in [0, 99] {
            let error = refused(Config {
                database,
                ..at("127.0.0.1", port)
            })
            .await;
            assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

#[tokio::test]
async fn a_replica_without_hello_is_refused_with_advice_too() {
    let replica = RedisServer::builder()
        .tcp()
        .args(["--replicaof", "127.0.0.1 1"])
        .args(["--rename-command", "HELLO", ""])
        .start()
        .unwrap();
    for denied in [&["-role"][..], &["+role", "-info"]] {
        let () = ask(
            &replica,
            &[&["ACL", "SETUSER", "default"][..], denied].concat(),
        );

        let error = refused(at("127.0.0.1", port_of(&replica))).await;

        assert!(error.to_string().contains("is a replica"), "{error}");
    }
}

#[tokio::test]
async fn an_error_names_the_missing_database() {
    let server = server_with(&["--databases", "2"]);

    let error = refused(Config {
        database: 5,
        ..config(&server)
    })
    .await;

    assert!(error.to_string().contains("has no database 5"), "{error}");
    assert!(cause(&error).contains("out of range"), "{error:?}");
}

#[tokio::test]
async fn a_missing_role_permission_is_reported_only_if_the_role_is_unknown() {
    let (port, sentinel_port) = (free(), free());
    let master = server_with(&["--port", &port.to_string()]);
    let _sentinel = Sentinel::start(sentinel_port, port);
    let () = ask(
        &master,
        &[
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-role", "-info",
        ],
    );
    let behind_sentinels = Config {
        redis: Some(Topology::Sentinel {
            sentinels: vec![Address::Tcp("127.0.0.1".into(), sentinel_port)],
            master: "main".into(),
        }),
        username: Some("app".into()),
        password: Some("pw".into()),
        ..config(&master)
    };

    // `HELLO` reports the role to every user.
    RedisStore::new(&behind_sentinels)
        .unwrap()
        .probe()
        .await
        .unwrap();
}

/// A server with prescribed answers, for servers that cannot be installed here.
async fn scripted(answers: &'static [(&str, &str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut bytes, mut read) = (Vec::new(), 0);
                while let Ok(1..) = socket.read_buf(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[read..]).into_owned();
                    read = bytes.len();
                    // Each command begins with `*`, and arrives in one piece in this test.
                    for command in text.split('*').skip(1) {
                        let command = command.to_ascii_uppercase();
                        let known = answers.iter().find(|(part, _)| command.contains(part));
                        let answer = known.map_or("-ERR unknown command\r\n", |(_, answer)| answer);
                        socket.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    port
}

/// `HELLO` of Redis 6.2, in RESP3.
const HELLO_OF_6_2: &str = "%5\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:3\r\n\
    $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";

/// `INFO server` of Redis 5, which does not know `HELLO`.
const INFO_OF_5: &str = "$43\r\nredis_version:5.0.14\r\nredis_mode:standalone\r\n";

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_both_versions() {
    let of_6_2 = scripted(&[("HELLO", HELLO_OF_6_2), ("CLIENT", "+OK\r\n")]).await;
    let of_5 = scripted(&[
        (
            "HELLO",
            "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
        ),
        ("CLIENT", "+OK\r\n"),
        ("SERVER", INFO_OF_5),
    ])
    .await;

    for (port, version) in [(of_6_2, "6.2.14"), (of_5, "5.0.14")] {
        let error = refused(at("127.0.0.1", port)).await;

        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "127.0.0.1:{port} runs version {version}; the cache needs Redis 7.0 or newer, or Valkey 7.2 or newer"
            )
        );
    }
}

#[tokio::test]
async fn a_server_that_wants_credentials_before_hello_gets_resp2() {
    // The answer of Valkey 9 if `HELLO` is renamed.
    let port = scripted(&[
        ("HELLO", "-NOAUTH Authentication required.\r\n"),
        ("AUTH", "+OK\r\n"),
        ("CLIENT", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
    ])
    .await;
    let store = RedisStore::new(&Config {
        password: Some("pw".into()),
        ..at("127.0.0.1", port)
    })
    .unwrap();

    store.probe().await.unwrap();
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_if_configured() {
    let (
        Some(TlsServer {
            server,
            authority,
            port,
            ..
        }),
        Some(stranger),
    ) = (
        &TlsServer::start_as_authority(),
        &TlsServer::start_as_authority(),
    )
    else {
        return;
    };
    let at = |host: &str, tls: PathBuf| Config {
        redis: Some(Topology::Standalone(Address::Tcp(host.into(), *port))),
        tls: Tls::Ca(tls),
        ..config(server)
    };

    RedisStore::new(&at("localhost", authority.clone()))
        .unwrap()
        .probe()
        .await
        .unwrap();

    let wrong_name = refused(at("127.0.0.1", authority.clone())).await;
    assert!(
        cause(&wrong_name).contains("not valid for name"),
        "{wrong_name:?}"
    );
    let wrong_certificate = refused(at("localhost", stranger.authority.clone())).await;
    assert!(
        cause(&wrong_certificate).contains("certificate"),
        "{wrong_certificate:?}"
    );
}

#[tokio::test]
async fn all_connections_follow_a_moved_address() {
    let (old, new) = (RedisServer::tcp().unwrap(), RedisServer::tcp().unwrap());
    name("moves.test", &[local(port_of(&old))]);
    let store = RedisStore::new(&Config {
        pool_min: 50,
        ..at("moves.test", 1)
    })
    .unwrap();
    store.probe().await.unwrap();
    until("all are open", || pool_of(&store).open == 50).await;
    store.set(&key("a"), b"value", TTL).await.unwrap();

    let port = port_of(&new).to_string();
    let () = ask(&old, &["REPLICAOF", "127.0.0.1", &port]);
    name("moves.test", &[local(port_of(&new))]);
    let refused = store.set(&key("a"), b"value", TTL).await.unwrap_err();
    assert!(cause(&refused).contains("READONLY"), "{refused:?}");
    assert!(!store.is_open());

    store.probe().await.unwrap();
    // The new server may lack what the old one acknowledged, so callers wait.
    let early = store.get(&key("a"), 0).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Unavailable);
    assert_eq!(store.for_recovery().get(&key("a"), 0).await.unwrap(), None);
    assert!(!store.admit(1));
    assert!(store.admit(store.term()));
    store.set(&key("b"), b"value", TTL).await.unwrap();
    assert_eq!(ask::<u32>(&new, &["EXISTS", "dev_b"]), 1);
}

#[tokio::test]
async fn a_restarted_server_is_another_server_and_one_that_closed_connections_is_not() {
    let mut server = server();
    // With a single connection, the maintenance task replaces none.
    let store = RedisStore::new(&Config {
        pool_min: 1,
        ..config(&server)
    })
    .unwrap();
    store.probe().await.unwrap();
    assert_eq!(store.term(), 1);

    let _: u32 = ask(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
    until("no connection is open", || !store.is_open()).await;
    store.probe().await.unwrap();
    assert_eq!(store.term(), 1);
    assert!(store.get(&key("a"), 0).await.is_ok());

    server.restart().unwrap();
    until("no connection is open", || !store.is_open()).await;
    store.probe().await.unwrap();
    assert_eq!(store.term(), 2);
    assert!(store.get(&key("a"), 0).await.is_err());
}

async fn refused(config: Config) -> crate::error::Error {
    RedisStore::new(&config).unwrap().probe().await.unwrap_err()
}
