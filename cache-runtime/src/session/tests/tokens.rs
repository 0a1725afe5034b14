//! Tokens that are foreign, damaged, or signed by other keys.

use base64ct::{Base64UrlUnpadded, Encoding};

use super::*;

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns a store without a server and one of its tokens.
async fn token() -> (SessionStore, String) {
    let store = Bench::in_memory_with(|config| config).store;
    let token = log_in(&store).await.token().expose().to_owned();
    (store, token)
}

fn parts(token: &str) -> Vec<String> {
    token.split('.').map(str::to_owned).collect()
}

/// Returns the token with one part replaced.
fn with_part(token: &str, part: usize, text: &str) -> String {
    let mut parts = parts(token);
    text.clone_into(&mut parts[part]);
    parts.join(".")
}

/// Asserts that no token is accepted.
fn assert_all_refused(store: &SessionStore, tokens: impl IntoIterator<Item = String>) {
    for token in tokens {
        assert!(store.verify(&token).is_err(), "accepted: {token}");
    }
}

#[tokio::test]
async fn a_token_with_one_bit_flipped_is_refused() {
    let (store, token) = token().await;
    assert!(store.verify(&token).is_ok());

    let flipped = (0..token.len() * 8).filter_map(|bit| {
        let mut bytes = token.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // The store takes only text.
        String::from_utf8(bytes).ok()
    });

    assert_all_refused(&store, flipped);
}

#[tokio::test]
async fn a_token_with_one_decoded_bit_flipped_is_not_genuine() {
    let (store, token) = token().await;

    for part in 2..5 {
        let bytes = Base64UrlUnpadded::decode_vec(&parts(&token)[part]).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = with_part(&token, part, &Base64UrlUnpadded::encode_string(&bytes));
            assert_refused!(store.verify(&flipped), SessionError::BadSignature);
        }
    }
}

#[tokio::test]
async fn a_token_that_is_shorter_or_longer_is_refused() {
    let (store, token) = token().await;

    let shorter = (0..token.len()).map(|length| token[..length].to_owned());
    assert_all_refused(&store, shorter);
    let without_its_start = (1..=token.len()).map(|from| token[from..].to_owned());
    assert_all_refused(&store, without_its_start);
    let longer = ["", ".", "A", ".A", " ", "\n", "\0", "=", ".v1"];
    assert_all_refused(
        &store,
        longer[1..].iter().map(|more| format!("{token}{more}")),
    );
    assert_all_refused(
        &store,
        longer[1..].iter().map(|more| format!("{more}{token}")),
    );
    let missing = (0..5).map(|part| {
        let mut parts = parts(&token);
        parts.remove(part);
        parts.join(".")
    });
    assert_all_refused(&store, missing);
    let empty = (0..5).map(|part| with_part(&token, part, ""));
    assert_all_refused(&store, empty);
}

#[tokio::test]
async fn a_token_has_only_one_valid_encoding() {
    let (store, token) = token().await;

    for part in 2..5 {
        let text = &parts(&token)[part];
        let (start, last) = text.split_at(text.len() - 1);
        let lasts = ALPHABET.chars().filter(|other| !last.contains(*other));
        let lasts = lasts.map(|other| with_part(&token, part, &format!("{start}{other}")));
        assert_all_refused(&store, lasts);
        let padded =
            ["=", "=="].map(|padding| with_part(&token, part, &format!("{text}{padding}")));
        assert_all_refused(&store, padded);
    }
    let cases = (0..token.len()).filter_map(|place| {
        let mut bytes = token.clone().into_bytes();
        bytes[place] ^= 0x20;
        bytes[place]
            .is_ascii_alphabetic()
            .then(|| String::from_utf8(bytes).unwrap())
    });
    assert_all_refused(&store, cases);
    let whole = [token.to_ascii_lowercase(), token.to_ascii_uppercase()];
    assert_all_refused(&store, whole);
}

#[tokio::test]
async fn the_other_alphabet_of_base64_is_refused() {
    let store = Bench::in_memory_with(|config| config).store;
    let mut tried = 0;

    // Some tokens contain neither of the two characters.
    while tried < 20 {
        let token = log_in(&store).await.token().expose().to_owned();
        let other = token.replace('-', "+").replace('_', "/");
        if other != token {
            assert_refused!(store.verify(&other), SessionError::Malformed);
            tried += 1;
        }
    }
}

#[tokio::test]
async fn text_that_is_not_a_token_is_malformed() {
    let (store, token) = token().await;
    let long = [4 * 1_024, 1_024 * 1_024].map(|length| "A".repeat(length));
    let dots = ".".repeat(200);
    let many = format!("{}{}", token, ".A".repeat(50));
    let all_parts_long = format!("v1.a.{0}.{0}.{0}", "A".repeat(400_000));
    let strange = [
        "",
        ".",
        "....",
        "v1",
        "v1.a...",
        "ü.ß.é.å.ø",
        "v2.a.AA.AA.AA",
    ];

    for written in
        strange
            .into_iter()
            .chain([&*dots, &*many, &*all_parts_long, &*long[0], &*long[1]])
    {
        assert_refused!(store.verify(written), SessionError::Malformed);
    }
}

#[tokio::test]
async fn a_token_is_valid_only_for_its_cookie_and_prefix() {
    let (store, token) = token().await;
    let other_prefix = Bench::in_memory_with(|config| config.prefix("other_")).store;

    assert!(store.for_cookie(COOKIE).verify(&token).is_ok());
    for other in ["session", "__Host-Session", "__Host-session2", ""] {
        assert_refused!(
            store.for_cookie(other).verify(&token),
            SessionError::BadSignature
        );
    }
    assert_refused!(other_prefix.verify(&token), SessionError::BadSignature);
    let own = log_in(&store.for_cookie("other"))
        .await
        .token()
        .expose()
        .to_owned();
    assert!(store.for_cookie("other").verify(&own).is_ok());
    assert_refused!(store.verify(&own), SessionError::BadSignature);
}

#[tokio::test]
async fn a_token_of_other_keys_is_refused() {
    let (store, token) = token().await;
    let other_secret = "a:-_-_Mjw0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGU";
    let with = |text| Bench::in_memory_with(|config| config.session_keys(keys(text))).store;

    assert_refused!(
        with(other_secret).verify(&token),
        SessionError::BadSignature
    );
    assert_refused!(with(NEW_KEY).verify(&token), SessionError::UnknownKey);
    let unknown = with_part(&token, 1, "b");
    assert_refused!(store.verify(&unknown), SessionError::UnknownKey);
    // The name of an existing key, with the signature of another.
    assert_refused!(with(BOTH_KEYS).verify(&unknown), SessionError::BadSignature);
}

#[tokio::test]
async fn a_mix_of_two_tokens_is_refused() {
    let store = Bench::in_memory_with(|config| config).store;
    let [one, other] = [1, 2].map(|user| log_in_as(&store, user));
    let (one, other) = (one.await, other.await);
    let [one, other] = [one.token().expose(), other.token().expose()].map(parts);

    // Every mix of parts of both tokens.
    for choice in 1..0b111_u32 {
        let mixed = (0..5).map(|part| match part < 2 || choice >> (part - 2) & 1 == 0 {
            true => one[part].as_str(),
            false => other[part].as_str(),
        });
        let mixed: Vec<_> = mixed.collect();
        assert_refused!(store.verify(&mixed.join(".")), SessionError::BadSignature);
    }
}

#[tokio::test]
async fn a_token_of_an_older_key_is_reissued_for_the_same_session() {
    let bench = Bench::new().await;
    let before = log_in(&bench.store).await;
    let between = bench
        .another_with(|config| config.session_keys(keys(BOTH_KEYS)))
        .await;
    let afterwards = bench
        .another_with(|config| config.session_keys(keys(NEW_KEY)))
        .await;

    let sent = between.verify(before.token().expose()).unwrap();
    let session = between.load(&sent).await.unwrap();

    assert!(session.is_reissued());
    assert_eq!(
        (session.id(), session.token()),
        (before.id(), before.token())
    );
    assert_ne!(session.token().expose(), before.token().expose());
    assert!(afterwards.verify(session.token().expose()).is_ok());
    let again = between.verify(session.token().expose()).unwrap();
    let again = between.load(&again).await.unwrap();
    assert!(
        !again.is_reissued(),
        "the token already uses the newest key"
    );
    assert_eq!(again.id(), before.id());
}

#[tokio::test]
async fn removing_a_key_ends_all_sessions_that_began_under_it() {
    let bench = Bench::new().await;
    let between = bench
        .another_with(|config| config.session_keys(keys(BOTH_KEYS)))
        .await;
    let untouched = log_in(&bench.store).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let sent = log_in(&bench.store).await.token().expose().to_owned();
        let sent = between.verify(&sent).unwrap();
        sessions.push(between.load(&sent).await.unwrap());
    }
    between.save(&mut sessions[1]).await.unwrap();
    between.rotate(&mut sessions[2]).await.unwrap();
    let newer = log_in(&between).await;

    let afterwards = bench
        .another_with(|config| config.session_keys(keys(NEW_KEY)))
        .await;

    let verify = |session: &StoredSession| afterwards.verify(session.token().expose());
    assert_refused!(verify(&untouched), SessionError::UnknownKey);
    for session in &sessions {
        let refused = afterwards.load(&verify(session).unwrap()).await;
        let is_logged_out = refused.as_ref().is_err_and(SessionError::is_logged_out);
        assert!(is_logged_out, "{refused:?}");
    }
    assert!(afterwards.load(&verify(&newer).unwrap()).await.is_ok());
    assert_eq!(afterwards.list_user("42").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_rotation_of_keys_hides_no_session() {
    let bench = Bench::new().await;
    let between = bench
        .another_with(|config| config.session_keys(keys(BOTH_KEYS)))
        .await;
    let (older, newer) = (log_in(&bench.store).await, log_in(&between).await);
    let other = log_in_as(&between, 1).await;

    let listed = between.list_user("42").await.unwrap();

    let mut ids: Vec<_> = listed.into_iter().map(|session| session.id).collect();
    ids.sort();
    let mut expected = [older.id(), newer.id()];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(between.destroy_listed("42", &older.id()).await.unwrap());
    assert_refused!(
        bench.store.load(older.token()).await,
        SessionError::NotFound
    );

    let (older, kept) = (log_in(&bench.store).await, log_in(&bench.store).await);
    let kept_there = between.verify(kept.token().expose()).unwrap();
    assert_eq!(
        between.destroy_user("42", Some(&kept_there)).await.unwrap(),
        2
    );
    assert_refused!(between.load(newer.token()).await, SessionError::NotFound);
    assert_refused!(
        bench.store.load(older.token()).await,
        SessionError::NotFound
    );
    assert!(bench.store.load(kept.token()).await.is_ok());
    assert!(between.load(other.token()).await.is_ok());
}

#[tokio::test]
async fn a_refused_token_causes_no_request_to_redis() {
    let mut bench = Bench::new().await;
    let token = log_in(&bench.store).await.token().expose().to_owned();
    let forged = [
        (token[..token.len() - 1].to_owned(), "malformed"),
        (with_part(&token, 1, "b"), "key that is not configured"),
        (with_part(&token, 4, &"A".repeat(43)), "invalid signature"),
    ];
    let calls = bench.calls();

    for (forged, _) in &forged {
        assert!(bench.store.verify(forged).is_err());
    }

    assert_eq!(bench.calls(), calls);
    bench.server.as_mut().unwrap().kill();
    for (forged, told) in &forged {
        let error = bench.store.verify(forged).unwrap_err();
        assert!(
            error.is_logged_out() && error.to_string().contains(told),
            "{error}"
        );
    }
    let refused = bench
        .store
        .inner
        .backend
        .cache
        .stats()
        .sessions
        .refused_tokens;
    assert_eq!(refused, 6);
}
