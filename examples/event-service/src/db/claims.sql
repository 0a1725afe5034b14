-- A confirmation claims its payment before the gateway is asked, so that the gateway is asked once. SQLite cannot change a
-- CHECK, so the table is made anew.

CREATE TABLE claimable (
    tx           TEXT PRIMARY KEY,
    reference    TEXT NOT NULL UNIQUE,
    user_id      INTEGER NOT NULL REFERENCES users (id),
    event_id     INTEGER NOT NULL,
    amount_cents INTEGER NOT NULL,
    status       TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'capturing', 'confirmed', 'failed')),
    -- In seconds since 1970.
    claimed_at   INTEGER CHECK ((claimed_at IS NOT NULL) = (status = 'capturing'))
);

INSERT INTO claimable (tx, reference, user_id, event_id, amount_cents, status)
SELECT tx, reference, user_id, event_id, amount_cents, status FROM payments;

DROP TABLE payments;
ALTER TABLE claimable RENAME TO payments;

-- The browsers in which a user has logged in, by the hashes of their cookies: see src/devices.rs.
CREATE TABLE devices (
    token_hash BLOB PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    used_at    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX devices_by_user ON devices (user_id, used_at);

PRAGMA user_version = 3;
