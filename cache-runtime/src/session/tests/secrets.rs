//! Secrets that must not appear in Redis, in the log or in debug output.

use std::net::IpAddr;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use tracing::Level;

use super::super::seal;
use super::*;
use crate::testing::log::Log;

/// Texts that are easy to recognise in any output.
const SECRETS: [&str; 5] = [
    "user-4711-secret",
    "ada-lovelace",
    "203.0.113.77",
    "Firefox/4711",
    "one secret book",
];

fn secretive() -> NewSession<String> {
    let [user, name, address, agent, extension] = SECRETS;
    NewSession::new(user, name)
        .verified(true)
        .ip_address(address.parse::<IpAddr>().unwrap())
        .user_agent(agent)
        .extension(extension.to_owned())
}

/// Returns the encodings in which a text might appear.
fn spellings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| {
        bytes.iter().map(move |byte| match upper {
            true => format!("{byte:02X}"),
            false => format!("{byte:02x}"),
        })
    };
    let trimmed = |text: String| text.trim_end_matches('=').to_owned().into_bytes();
    // The last character depends on the following bytes.
    let part = |mut text: Vec<u8>| {
        text.pop();
        text
    };
    vec![
        bytes.to_owned(),
        hex(false).collect::<String>().into_bytes(),
        hex(true).collect::<String>().into_bytes(),
        part(trimmed(Base64::encode_string(bytes))),
        part(Base64UrlUnpadded::encode_string(bytes).into_bytes()),
    ]
}

/// Returns the secrets of a token: the token itself and its parts, except the place.
fn of_token(token: &SessionToken) -> Vec<Vec<u8>> {
    let text = token.expose();
    let parts: Vec<_> = text.split('.').collect();
    let decoded = parts[3..]
        .iter()
        .map(|part| Base64UrlUnpadded::decode_vec(part).unwrap());
    let mut all: Vec<_> = decoded.flat_map(|bytes| spellings(&bytes)).collect();
    all.extend(spellings(text.as_bytes()));
    all
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

async fn secretive_store(bench: &Bench) -> SessionStore<String> {
    SessionStore::new(&bench.store.inner.backend.cache).unwrap()
}

#[tokio::test]
async fn redis_contains_no_user_data_and_no_usable_token() {
    let bench = Bench::new().await;
    let store = secretive_store(&bench).await;
    let mut secrets: Vec<_> = SECRETS
        .iter()
        .flat_map(|secret| spellings(secret.as_bytes()))
        .collect();
    for _ in 0..3 {
        let mut session = store.create(secretive()).await.unwrap();
        secrets.extend(of_token(session.token()));
        store.load(session.token()).await.unwrap();
        store.save(&mut session).await.unwrap();
        store.rotate(&mut session).await.unwrap();
        secrets.extend(of_token(session.token()));
    }
    secrets.extend(spellings(b"0123456789abcdef0123456789abcdef"));

    let mut intruder = Intruder::at(bench.server());
    let mut dump = Vec::new();
    for key in bench.keys() {
        let kind: String = intruder.ask("TYPE", &[key.as_bytes()]);
        dump.extend_from_slice(key.as_bytes());
        dump.extend(match kind.as_str() {
            "string" => intruder.read(&key),
            _ => {
                let members: Vec<Vec<u8>> =
                    intruder.ask("ZRANGE", &[key.as_bytes(), b"0", b"-1", b"WITHSCORES"]);
                members.concat()
            }
        });
    }

    assert!(dump.len() > 3 * 300, "{} bytes", dump.len());
    for secret in secrets {
        assert!(
            !contains(&dump, &secret),
            "{:?}",
            String::from_utf8_lossy(&secret)
        );
    }
}

#[tokio::test]
async fn equal_sessions_look_different_in_redis() {
    let bench = Bench::new().await;
    let mut intruder = Intruder::at(bench.server());
    let (one, other) = (log_in(&bench.store).await, log_in(&bench.store).await);
    let [one, other] = [one, other].map(|session| intruder.read(&bench.record(&session)));

    let same = one
        .iter()
        .zip(&other)
        .skip(seal::HEAD + 3)
        .filter(|(one, other)| one == other);

    // Among about 200 random bytes, about one is equal by chance.
    assert!(same.count() < 20);
}

#[tokio::test]
async fn debug_output_and_logs_contain_no_user_data_and_no_token() {
    let log = Log::listen(Level::TRACE);
    let mut bench = Bench::new().await;
    let store = secretive_store(&bench).await;
    let new = secretive();
    let mut shown = format!("{store:?} {new:?} {:?}", new.clone().into_data());
    let mut session = store.create(new).await.unwrap();
    let mut secrets: Vec<_> = SECRETS
        .iter()
        .flat_map(|secret| spellings(secret.as_bytes()))
        .collect();
    secrets.extend(of_token(session.token()));
    shown += &format!("{session:?} {:?} {:?}", session.token(), session.data());
    shown += &format!("{:?}", store.list_user(SECRETS[0]).await.unwrap());
    store.rotate(&mut session).await.unwrap();
    secrets.extend(of_token(session.token()));

    let unreadable = bench.store.load(session.token()).await.unwrap_err();
    let forged = store
        .verify(&session.token().expose().replace("v1.a", "v1.b"))
        .unwrap_err();
    let key = bench.key_of(session.token());
    Intruder::at(bench.server()).write(&key, b"garbage");
    let tampered = store.load(session.token()).await.unwrap_err();
    bench.server.as_mut().unwrap().kill();
    let away = store.load(session.token()).await.unwrap_err();
    let not_ended = store
        .destroy_user(SECRETS[0], Some(session.token()))
        .await
        .unwrap_err();
    let not_begun = store.create(secretive()).await.unwrap_err();

    for error in [unreadable, forged, tampered, away, not_ended, not_begun] {
        shown += &format!(
            "{error:?} {error} {:?}\n",
            std::error::Error::source(&error)
        );
    }
    let logged: String = log.take().iter().map(|line| format!("{line}\n")).collect();
    assert!(
        logged.contains("a stored session was tampered with"),
        "{logged}"
    );
    assert!(logged.contains("does not fit the type"), "{logged}");
    for secret in secrets {
        let text = String::from_utf8_lossy(&secret);
        assert!(!contains(shown.as_bytes(), &secret), "{text} in {shown}");
        assert!(!contains(logged.as_bytes(), &secret), "{text} in {logged}");
    }
}
