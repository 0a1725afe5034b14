//! Stored sessions, and attempts to change them in Redis.

use std::collections::HashSet;

use super::super::place::{Place, SID, Sid, TAG, UserTag};
use super::super::ring::Ring;
use super::super::seal::{self, Pinned};
use super::*;

/// The offset of the latest possible end in a record.
const ABSOLUTE: std::ops::Range<usize> = 17..25;

#[tokio::test]
async fn a_stored_session_with_one_bit_flipped_is_refused() {
    let bench = Bench::new().await;
    let (store, session) = (&bench.store, log_in(&bench.store).await);
    let (key, index) = (bench.record(&session), bench.index(&session));
    let mut intruder = Intruder::at(bench.server());
    let original = intruder.read(&key);
    let ends = session.expires_at().to_string();

    for bit in 0..original.len() * 8 {
        let mut flipped = original.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        intruder.write(&key, &flipped);

        match store.load(session.token()).await {
            Err(SessionError::Tampered) => intruder.write(&key, &original),
            // A latest end in the past is trusted before it is verified: an attacker can end a session anyway.
            Err(SessionError::NotFound) if ABSOLUTE.contains(&(bit / 8)) => {
                assert_eq!(bench.keys(), [""; 0], "bit {bit} left something");
                intruder.write(&key, &original);
                let _: i64 = intruder.ask(
                    "ZADD",
                    &[index.as_bytes(), ends.as_bytes(), session.id().as_bytes()],
                );
            }
            other => panic!("bit {bit}: {other:?}"),
        }
        let restored = store.load(session.token()).await;
        assert!(restored.is_ok(), "after bit {bit}: {restored:?}");
    }
}

#[tokio::test]
async fn a_stored_session_that_is_shorter_or_longer_is_refused() {
    let bench = Bench::new().await;
    let session = log_in(&bench.store).await;
    let key = bench.record(&session);
    let mut intruder = Intruder::at(bench.server());
    let original = intruder.read(&key);

    for length in 0..original.len() {
        intruder.write(&key, &original[..length]);
        let refused = bench.store.load(session.token()).await;
        assert_refused!(refused, SessionError::Tampered, "{length} bytes");
        assert!(bench.store.list_user("42").await.unwrap().is_empty());
    }
    intruder.write(&key, &[&original[..], b"\0"].concat());
    assert_refused!(
        bench.store.load(session.token()).await,
        SessionError::Tampered
    );
}

#[tokio::test]
async fn a_tampered_session_can_be_ended() {
    let bench = Bench::new().await;
    let mut intruder = Intruder::at(bench.server());
    for garbage in [
        "",
        "garbage",
        "garbage that is longer than the head of any session is",
    ] {
        let session = log_in(&bench.store).await;
        intruder.write(&bench.record(&session), garbage.as_bytes());
        bench.store.destroy(session.token()).await.unwrap();
        assert_eq!(bench.keys(), [""; 0]);

        let session = log_in(&bench.store).await;
        intruder.write(&bench.record(&session), garbage.as_bytes());
        assert_eq!(bench.store.destroy_user("42", None).await.unwrap(), 1);
        assert_eq!(bench.keys(), [""; 0]);
    }
}

#[tokio::test]
async fn a_stored_session_is_refused_under_another_key() {
    let bench = Bench::new().await;
    let other_prefix = bench.another_with(|config| config.prefix("other_")).await;
    let victim = log_in_as(&bench.store, 1).await;
    let own = log_in_as(&bench.store, 1).await;
    let mallory = log_in_as(&bench.store, 2).await;
    let elsewhere = log_in_as(&other_prefix, 1).await;
    let key_elsewhere = bench.record(&elsewhere).replacen("test_", "other_", 1);
    // Only the prefix differs, as if the token of the victim were sent to the other service.
    let mut intruder = Intruder::at(bench.server());
    let stolen = intruder.read(&bench.record(&victim));

    for key in [bench.record(&own), bench.record(&mallory), key_elsewhere] {
        intruder.write(&key, &stolen);
    }

    assert_refused!(bench.store.load(own.token()).await, SessionError::Tampered);
    assert_refused!(
        bench.store.load(mallory.token()).await,
        SessionError::Tampered
    );
    assert_refused!(
        other_prefix.load(elsewhere.token()).await,
        SessionError::Tampered
    );
    assert!(bench.store.load(victim.token()).await.is_ok());
}

#[tokio::test]
async fn a_seal_opens_only_at_its_place_and_under_its_prefix() {
    let ring = Ring::new(&keys(KEY)).unwrap();
    let place = Place {
        tag: UserTag([1; TAG]),
        sid: Sid([2; SID]),
    };
    let pinned = Pinned {
        revision: 3,
        created: 4,
        absolute: 5,
    };
    let sealed = seal::seal(ring.newest(), "test_", place, pinned, b"{}").unwrap();
    let record = [&pinned.bytes()[..], &[0; 16], &sealed].concat();
    let opens = |prefix, place| seal::open(&ring, prefix, place, &record).is_some();

    assert!(opens("test_", place));
    assert!(!opens("tes", place));
    assert!(!opens(
        "test_",
        Place {
            tag: UserTag([2; TAG]),
            ..place
        }
    ));
    assert!(!opens(
        "test_",
        Place {
            sid: Sid([1; SID]),
            ..place
        }
    ));
}

#[tokio::test]
async fn an_older_version_of_the_same_session_is_accepted() {
    // A program that can write to Redis can undo a change. This cannot be detected outside Redis, and is documented with the format.
    let bench = Bench::new().await;
    let mut session = log_in(&bench.store).await;
    let mut intruder = Intruder::at(bench.server());
    let older = intruder.read(&bench.record(&session));
    session.data_mut().is_verified = true;
    bench.store.save(&mut session).await.unwrap();

    intruder.write(&bench.record(&session), &older);

    assert!(
        !bench
            .store
            .load(session.token())
            .await
            .unwrap()
            .data()
            .is_verified
    );
    // But a process that has seen the newer version notices it when it saves.
    assert_refused!(bench.store.save(&mut session).await, SessionError::Conflict);
}

#[tokio::test]
async fn the_beginning_and_the_latest_end_cannot_be_changed_without_the_key() {
    let bench = Bench::new().await;
    let session = log_in(&bench.store).await;
    let key = bench.record(&session);
    let mut intruder = Intruder::at(bench.server());
    let original = intruder.read(&key);

    for (at, time) in [
        (9, 0),
        (9, session.data().created_at + 1),
        (17, session.pinned.absolute + 1),
        (17, u64::MAX),
    ] {
        let mut edited = original.clone();
        edited[at..at + 8].copy_from_slice(&time.to_be_bytes());
        intruder.write(&key, &edited);
        assert_refused!(
            bench.store.load(session.token()).await,
            SessionError::Tampered,
            "byte {at}: {time}"
        );
    }
}

#[tokio::test]
async fn a_moved_end_is_never_later_than_the_latest_end() {
    for moved in ["99999999999999", "1e300", "inf"] {
        let bench = Bench::new().await;
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        let (key, index) = (bench.record(&session), bench.index(&session));
        let mut intruder = Intruder::at(bench.server());
        let mut move_end = || {
            let _: i64 = intruder.ask(
                "ZADD",
                &[index.as_bytes(), moved.as_bytes(), session.id().as_bytes()],
            );
            let _: i64 = intruder.ask("PERSIST", &[key.as_bytes()]);
            let _: i64 = intruder.ask("PERSIST", &[index.as_bytes()]);
        };

        move_end();
        let listed = store.list_user("42").await.unwrap();
        assert_eq!(listed[0].expires_at, session.pinned.absolute);
        let mut loaded = store.load(session.token()).await.unwrap();
        assert_eq!(loaded.expires_at(), session.pinned.absolute);
        move_end();
        store.save(&mut loaded).await.unwrap();
        assert_eq!(loaded.expires_at(), session.pinned.absolute);

        move_end();
        clock.advance(7 * DAY);
        assert!(store.list_user("42").await.unwrap().is_empty());
        assert_refused!(store.save(&mut loaded).await, SessionError::Gone);
        assert_refused!(store.rotate(&mut loaded).await, SessionError::Gone);
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
        assert_eq!(bench.keys(), [""; 0]);
    }
}

#[tokio::test]
async fn a_session_with_a_moved_end_can_be_ended() {
    let bench = Bench::new().await;
    let mut intruder = Intruder::at(bench.server());
    for moved in ["99999999999999", "1e300", "inf"] {
        let (session, other) = (log_in(&bench.store).await, log_in(&bench.store).await);
        let index = bench.index(&session);
        let _: i64 = intruder.ask(
            "ZADD",
            &[index.as_bytes(), moved.as_bytes(), session.id().as_bytes()],
        );

        bench.store.destroy(other.token()).await.unwrap();
        assert_eq!(
            bench.store.destroy_user("42", None).await.unwrap(),
            1,
            "{moved}"
        );

        assert_eq!(bench.keys(), [""; 0], "{moved}");
    }
}

#[tokio::test]
async fn a_session_without_its_record_or_its_set_is_removed() {
    for is_record in [true, false] {
        let bench = Bench::new().await;
        let mut session = log_in(&bench.store).await;
        let removed = match is_record {
            true => bench.record(&session),
            false => bench.index(&session),
        };
        let _: i64 = ask(bench.server(), &["DEL", &removed]);

        assert!(bench.store.list_user("42").await.unwrap().is_empty());
        assert_refused!(bench.store.save(&mut session).await, SessionError::Gone);
        assert_refused!(bench.store.rotate(&mut session).await, SessionError::Gone);
        assert_refused!(
            bench.store.load(session.token()).await,
            SessionError::NotFound
        );
        assert_eq!(bench.keys(), [""; 0], "the other session ends too");
        let again = log_in(&bench.store).await;
        assert!(bench.store.load(again.token()).await.is_ok());
    }
}

#[tokio::test]
async fn a_foreign_value_in_place_of_a_session_or_set_blocks_nothing() {
    let bench = Bench::new().await;
    let store = &bench.store;
    for call in [
        "load",
        "save",
        "rotate",
        "list",
        "destroy",
        "destroy_user",
        "create",
    ] {
        for is_record in [true, false] {
            let mut session = log_in(store).await;
            let token = session.token().clone();
            let replaced = match is_record {
                true => bench.record(&session),
                false => bench.index(&session),
            };
            let _: i64 = ask(bench.server(), &["DEL", &replaced]);
            let _: i64 = ask(bench.server(), &["HSET", &replaced, "a", "b"]);

            match call {
                "load" => assert_refused!(store.load(&token).await, SessionError::NotFound),
                "save" => assert_refused!(store.save(&mut session).await, SessionError::Gone),
                "rotate" => assert_refused!(store.rotate(&mut session).await, SessionError::Gone),
                "list" => assert!(store.list_user("42").await.unwrap().is_empty()),
                "destroy" => store.destroy(&token).await.unwrap(),
                "destroy_user" => assert!(store.destroy_user("42", None).await.unwrap() < 2),
                _ => {}
            }

            let new = NewSession::new(42, "ada");
            let again = store.create_instead(new, Some(&token)).await;
            let again = again.unwrap_or_else(|error| panic!("after {call}: {error:?}"));
            assert!(store.load(again.token()).await.is_ok(), "after {call}");
            store.destroy_user("42", None).await.unwrap();
            assert_eq!(bench.keys(), [""; 0], "after {call}");
        }
    }
}

#[tokio::test]
async fn foreign_members_of_the_set_are_ignored() {
    let bench = Bench::new().await;
    let session = log_in(&bench.store).await;
    let (index, base) = (
        bench.index(&session),
        session.token().place().tag.base("test_"),
    );
    let later = (session.expires_at() + 1).to_string();
    for stranger in ["x", "../../x", "A"] {
        let _: i64 = ask(bench.server(), &["ZADD", &index, &later, stranger]);
        let _: () = ask(
            bench.server(),
            &["SET", &format!("{base}{stranger}"), "strange"],
        );
    }

    assert_eq!(bench.store.list_user("42").await.unwrap().len(), 1);
    assert!(bench.store.load(session.token()).await.is_ok());
    bench.store.destroy_user("42", None).await.unwrap();
    assert_eq!(bench.keys(), [""; 0]);
}

#[tokio::test]
async fn data_of_more_than_16_kib_is_refused_and_changes_nothing() {
    for bench in Bench::both().await {
        let store: SessionStore<String> =
            SessionStore::new(&bench.store.inner.backend.cache).unwrap();
        let new = |length| NewSession::new(42, "ada").extension("x".repeat(length));
        let rest = serde_json::to_vec(&new(0).into_data()).unwrap().len();
        // The time takes 13 digits in place of one zero.
        let most = seal::MAX_DATA - rest - 2 * 12;

        let mut session = store.create(new(most)).await.unwrap();
        assert_refused!(store.create(new(most + 1)).await, SessionError::TooLarge);
        session.data_mut().extension.push('x');
        assert_refused!(store.save(&mut session).await, SessionError::TooLarge);
        assert_refused!(store.rotate(&mut session).await, SessionError::TooLarge);

        let loaded = store.load(session.token()).await.unwrap();
        assert_eq!(loaded.data().extension.len(), most);
        assert_eq!(store.list_user("42").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_session_of_another_type_is_unreadable_and_can_be_ended() {
    for bench in Bench::both().await {
        let session = log_in(&bench.store).await;
        let other = SessionStore::<u32> {
            inner: Arc::clone(&bench.store.inner),
            signer: Arc::clone(&bench.store.signer),
            extension: std::marker::PhantomData,
        };

        assert_refused!(other.load(session.token()).await, SessionError::Unreadable);
        assert!(other.list_user("42").await.unwrap().is_empty());
        assert!(
            bench.store.load(session.token()).await.is_ok(),
            "the session is unchanged"
        );
        other.destroy(session.token()).await.unwrap();
        assert_refused!(
            bench.store.load(session.token()).await,
            SessionError::NotFound
        );
    }
}

#[test]
fn a_hundred_thousand_seals_have_different_nonces() {
    let ring = Ring::new(&keys(KEY)).unwrap();
    let place = Place {
        tag: UserTag([1; TAG]),
        sid: Sid([2; SID]),
    };
    let pinned = Pinned {
        revision: 1,
        created: 2,
        absolute: 3,
    };

    let nonces = (0..100_000).map(|_| {
        let sealed = seal::seal(ring.newest(), "test_", place, pinned, b"").unwrap();
        // After the algorithm, and a key name of one letter with its length.
        sealed[3..15].to_owned()
    });

    assert_eq!(nonces.collect::<HashSet<_>>().len(), 100_000);
}
