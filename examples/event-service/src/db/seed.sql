-- 200 users, 1,000 events in 20 locations, and what goes with them. Computed from row numbers alone, so it is always the same.

INSERT INTO users (id, name, email, bio, authentication)
WITH RECURSIVE
    n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200),
    names (first, last) AS (VALUES (
        '["Ada","Ben","Chloé","Dmitri","Elif","Femi","Grace","Hana","Ivan","Jun","Kofi","Lena","Mina","Noor","Olga","Pau","Qi","Rosa","Sami","Tess"]',
        '["Abe","Bauer","Costa","Dube","Evans","Fischer","García","Hopper","Ito","Jansen"]'
    ))
SELECT
    i,
    json_extract(first, '$[' || (i % 20) || ']') || ' ' || json_extract(last, '$[' || (i / 20 % 10) || ']'),
    'user' || i || '@example.com',
    'Goes to about ' || (1 + i * 7 % 30) || ' events a year.',
    CASE WHEN i % 3 = 0 THEN 'unverified' ELSE 'verified' END
FROM n, names;

INSERT INTO followers (user_id, follower_id)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
SELECT user.i, 1 + (user.i + 3 * follower.i) % 200
FROM n AS user JOIN n AS follower ON follower.i <= user.i * 17 % 40;

INSERT INTO referrals (referred_id, referrer_id)
WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
SELECT i, 1 + i * i % 131 * (i % 5) / 4 FROM n WHERE i <> 1 + i * i % 131 * (i % 5) / 4;

-- User 1 has enough events to fill several pages.
INSERT INTO events (id, organizer_id, title, description, location, starts_at, price_cents, capacity, published)
WITH RECURSIVE
    n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000),
    words (kind, location) AS (VALUES (
        '["Concert","Meetup","Workshop","Reading","Exhibition","Festival","Conference"]',
        '["Amsterdam","Berlin","Cape Town","Dakar","Edinburgh","Florence","Geneva","Hamburg","Istanbul","Jakarta","Kyoto","Lagos","Madrid","New York","Oslo","Paris","Quito","Rome","São Paulo","Tokyo"]'
    ))
SELECT
    i,
    CASE WHEN i % 20 = 0 THEN 1 ELSE 1 + i * 7 % 200 END,
    json_extract(kind, '$[' || (i % 7) || ']') || ' no. ' || i,
    'Doors open an hour before.',
    json_extract(location, '$[' || (i * 3 % 20) || ']'),
    1798761600 + i * 7919 % 365 * 86400 + (10 + i % 12) * 3600,
    i % 40 * 500,
    200 + i * 37 % 400,
    TRUE
FROM n, words;

INSERT INTO tickets (event_id, user_id, quantity, price_cents)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
SELECT event.id, 1 + i * 13 % 200, 1 + i % 4, event.price_cents
FROM n JOIN events AS event ON event.id = 1 + i * (i % 7 + 1) * 13 % 1000
ORDER BY i;

UPDATE events SET sold = (SELECT coalesce(sum(quantity), 0) FROM tickets WHERE event_id = events.id);
