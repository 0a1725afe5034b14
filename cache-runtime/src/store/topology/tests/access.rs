//! What servers ask for: certificates, users and passwords, against real servers.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{at, free, port_of, refused};
use crate::config::{Address, Config, Tls, Topology};
use crate::error::{ErrorKind, with_causes};
use crate::store::Store;
use crate::store::redis::RedisStore;
use crate::store::support::{Authority, Papers, Sentinel, TlsServer, ask, cause, text, until};
use crate::store::topology::tls::{Certificates, encrypt};
use crate::testing::{Directory, RedisServer};

/// Trusts `authority` and shows a certificate to the server at `port`.
fn showing(port: u16, authority: PathBuf, certificate: PathBuf, key: PathBuf) -> Config {
    at("localhost", port)
        .tls(Tls::Ca(authority))
        .tls_cert(certificate)
        .tls_key(key)
}

fn write(directory: &Directory, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path.join(name);
    fs::write(&path, contents).unwrap();
    path
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_accepts_the_right_one_and_errors_say_what_to_do() {
    let authority = Authority::new();
    let Some(tls) = TlsServer::start_for_clients_of(&authority) else {
        return;
    };
    let port = tls.port;
    let trusted = || authority.certificate();
    let Papers { certificate, key } = authority.issue("client");
    let with =
        |certificate: &Path, key: &Path| showing(port, trusted(), certificate.into(), key.into());

    RedisStore::new(&with(&certificate, &key))
        .unwrap()
        .probe()
        .await
        .unwrap();

    let strangers = Authority::new();
    let stranger = strangers.issue("stranger");
    let own = |papers: &Papers| with(&papers.certificate, &papers.key);
    let cases = [
        (
            at("localhost", port).tls(Tls::Ca(trusted())),
            "asks for a client certificate; set `REDIS_TLS_CERT` and `REDIS_TLS_KEY`".to_owned(),
        ),
        (
            own(&stranger),
            format!(
                "it refused the certificate in `{}` of `REDIS_TLS_CERT`",
                text(&stranger.certificate)
            ),
        ),
        (
            with(&certificate, &key).tls(Tls::WebRoots),
            "set `REDIS_TLS_CA` to the file with the certificate of its authority".to_owned(),
        ),
    ];
    for (config, expected) in cases {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Connection, "{error:?}");
        assert!(error.to_string().contains(&expected), "{error:?}");
        assert!(!cause(&error).is_empty(), "{error:?}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let (authority, directory) = (Authority::new(), Directory::new().unwrap());
    let [client, other] = ["client", "other"].map(|name| authority.issue(name));
    let garbage = write(&directory, "garbage.pem", "garbage");
    let encrypted = write(
        &directory,
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let empty = write(&directory, "empty", "\n");
    let missing = directory.path.join("missing");
    let with = |certificate: &Path, key: &Path| {
        showing(1, authority.certificate(), certificate.into(), key.into())
    };

    let cases = [
        (
            with(&client.certificate, &other.key),
            "`REDIS_TLS_KEY` is not the key of the certificate in",
        ),
        (
            with(&missing, &client.key),
            "`REDIS_TLS_CERT` cannot be read; check that it exists",
        ),
        (
            with(&client.certificate, &missing),
            "`REDIS_TLS_KEY` cannot be read",
        ),
        (
            with(&garbage, &client.key),
            "`REDIS_TLS_CERT` is not a certificate in PEM form",
        ),
        (
            with(&client.certificate, &garbage),
            "`REDIS_TLS_KEY` is not a private key in PEM form",
        ),
        (
            with(&client.certificate, &encrypted),
            "`REDIS_TLS_KEY` is encrypted; use a key without",
        ),
        (
            at("h", 1).tls(Tls::Ca(garbage.clone())),
            "`REDIS_TLS_CA` is not a certificate authority",
        ),
        (
            at("h", 1).password_file(missing.clone()),
            "`REDIS_PASSWORD_FILE` cannot be read",
        ),
        (
            at("h", 1).password_file(empty),
            "`REDIS_PASSWORD_FILE` is empty",
        ),
        (
            at("h", 1).sentinel_tls(Tls::Ca(missing.clone())),
            "`REDIS_SENTINEL_TLS_CA` cannot be read",
        ),
        (
            at("h", 1).sentinel_password_file(missing.clone()),
            "`REDIS_SENTINEL_PASSWORD_FILE` cannot",
        ),
    ];
    for (config, expected) in cases {
        let error = RedisStore::new(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(
            error.to_string().contains(expected),
            "{expected}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_file_may_hold_several_authorities_and_a_certificate_with_its_key() {
    let (authority, directory) = (Authority::new(), Directory::new().unwrap());
    let Some(tls) = TlsServer::start_for_clients_of(&authority) else {
        return;
    };
    let port = tls.port;
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let both = [Authority::new().certificate(), authority.certificate()]
        .map(read)
        .concat();
    let Papers { certificate, key } = authority.issue("client");
    let together = write(
        &directory,
        "client.pem",
        [read(certificate), read(key)].concat(),
    );
    let authorities = write(&directory, "authorities.pem", both);

    let store = RedisStore::new(&showing(port, authorities, together.clone(), together)).unwrap();

    store.probe().await.unwrap();
}

#[tokio::test]
async fn sessions_are_resumed_until_a_certificate_changes() {
    let authority = Authority::new();
    let Some(tls) = TlsServer::start_for_clients_of(&authority) else {
        return;
    };
    let port = tls.port;
    let Papers { certificate, key } = authority.issue("client");
    let config = showing(
        port,
        authority.certificate(),
        certificate.clone(),
        key.clone(),
    );
    let certificates = Certificates::new(&config.access()).unwrap().unwrap();
    let handshake = async || {
        let socket = TcpStream::connect(("localhost", port)).await.unwrap();
        let client = certificates.client().unwrap();
        let mut stream = encrypt(&client, "localhost", socket).await.unwrap();
        // The server sends its tickets before the first answer.
        stream.write_all(b"PING\r\n").await.unwrap();
        stream.read_exact(&mut [0; 7]).await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };

    assert_eq!(handshake().await, HandshakeKind::Full);
    assert_eq!(handshake().await, HandshakeKind::Resumed);

    let newer = authority.issue("newer");
    fs::copy(newer.certificate, certificate).unwrap();
    fs::copy(newer.key, key).unwrap();
    assert_eq!(handshake().await, HandshakeKind::Full);
    assert_eq!(handshake().await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn replaced_certificates_are_used_by_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let Some(tls) = TlsServer::start_for_clients_of(&old) else {
        return;
    };
    let (server, port) = (&tls.server, tls.port);
    let directory = Directory::new().unwrap();
    let ours = |authority: &Authority| {
        let Papers { certificate, key } = authority.issue("client");
        let files = [
            ("ca", authority.certificate()),
            ("cert", certificate),
            ("key", key),
        ];
        files.map(|(name, path)| write(&directory, name, fs::read(path).unwrap()))
    };
    let [ca, certificate, key] = ours(&old);
    let store = RedisStore::new(&showing(port, ca, certificate, key)).unwrap();
    store.probe().await.unwrap();

    let theirs = new.issue("localhost");
    let () = ask(
        server,
        &[
            "CONFIG",
            "SET",
            "tls-ca-cert-file",
            &text(&new.certificate()),
            "tls-cert-file",
            &text(&theirs.certificate),
            "tls-key-file",
            &text(&theirs.key),
        ],
    );
    let _: u32 = ask(server, &["CLIENT", "KILL", "TYPE", "normal"]);
    until("no connection is open", || !store.is_open()).await;
    assert!(store.probe().await.is_err());

    ours(&new);
    store.probe().await.unwrap();
}

#[tokio::test]
async fn sentinels_have_users_passwords_and_certificates_of_their_own() {
    let authority = Authority::new();
    let master = RedisServer::tcp().unwrap();
    let port = free();
    let papers = authority.issue("localhost");
    let [certificate, key, ca] =
        [&papers.certificate, &papers.key, &authority.certificate()].map(|path| text(path));
    if TlsServer::start().is_none() {
        return;
    }
    let _sentinel = Sentinel::start_with(
        port,
        port_of(&master),
        &[
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-cert-file {certificate}"),
            format!("tls-key-file {key}"),
            format!("tls-ca-cert-file {ca}"),
            "user default off".to_owned(),
            "user watcher on >secret +@all &*".to_owned(),
        ],
    );
    let Papers { certificate, key } = authority.issue("client");
    let sentinels = Topology::Sentinel {
        sentinels: vec![Address::Tcp("localhost".into(), port)],
        master: "main".into(),
    };
    let encrypted = Config::default()
        .redis(sentinels)
        .sentinel_tls(Tls::Ca(authority.certificate()))
        .sentinel_tls_cert(certificate)
        .sentinel_tls_key(key);
    let with = |password: &str| {
        let config = encrypted.clone().sentinel_username("watcher");
        config.sentinel_password(password)
    };

    RedisStore::new(&with("secret"))
        .unwrap()
        .probe()
        .await
        .unwrap();

    let directory = Directory::new().unwrap();
    let file = write(&directory, "password", "secret\n");
    let by_file = encrypted
        .clone()
        .sentinel_username("watcher")
        .sentinel_password_file(file);
    RedisStore::new(&by_file).unwrap().probe().await.unwrap();
    for (config, expected) in [
        (
            with("wrong"),
            "set `REDIS_SENTINEL_USERNAME` and `REDIS_SENTINEL_PASSWORD`",
        ),
        (
            encrypted.clone(),
            "set `REDIS_SENTINEL_USERNAME` and `REDIS_SENTINEL_PASSWORD`",
        ),
        (
            Config {
                sentinel_tls_cert: None,
                sentinel_tls_key: None,
                ..with("secret")
            },
            "set `REDIS_SENTINEL_TLS_CERT` and `REDIS_SENTINEL_TLS_KEY`",
        ),
    ] {
        let error = refused(config).await;
        assert!(with_causes(&error).contains(expected), "{error:?}");
    }
}
