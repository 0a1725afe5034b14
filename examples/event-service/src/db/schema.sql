CREATE TABLE users (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL,
    email          TEXT NOT NULL UNIQUE,
    bio            TEXT NOT NULL,
    authentication TEXT NOT NULL DEFAULT 'unverified' CHECK (authentication IN ('verified', 'unverified'))
);

CREATE TABLE followers (
    user_id     INTEGER NOT NULL REFERENCES users (id),
    follower_id INTEGER NOT NULL REFERENCES users (id),
    PRIMARY KEY (user_id, follower_id)
) WITHOUT ROWID;

CREATE TABLE referrals (
    referred_id INTEGER PRIMARY KEY REFERENCES users (id),
    referrer_id INTEGER NOT NULL REFERENCES users (id)
);

-- AUTOINCREMENT: the number of a deleted event is never given to another.
CREATE TABLE events (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    organizer_id INTEGER NOT NULL REFERENCES users (id),
    title        TEXT NOT NULL,
    description  TEXT NOT NULL,
    location     TEXT NOT NULL,
    starts_at    INTEGER NOT NULL,
    price_cents  INTEGER NOT NULL,
    capacity     INTEGER NOT NULL,
    sold         INTEGER NOT NULL DEFAULT 0 CHECK (sold BETWEEN 0 AND capacity),
    tickets_left INTEGER NOT NULL GENERATED ALWAYS AS (capacity - sold) VIRTUAL,
    published    INTEGER NOT NULL DEFAULT FALSE
);

CREATE INDEX events_by_start ON events (published, starts_at, id);
CREATE INDEX events_by_sales ON events (published, sold DESC, id);
CREATE INDEX events_by_location ON events (location, published, starts_at, id);
CREATE INDEX events_by_organizer ON events (organizer_id, id);

-- Tickets and payments are records of what happened: they outlive their event, and so do not refer to it.
CREATE TABLE tickets (
    id          INTEGER PRIMARY KEY,
    event_id    INTEGER NOT NULL,
    user_id     INTEGER NOT NULL REFERENCES users (id),
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL
);

CREATE INDEX tickets_by_user ON tickets (user_id, id);
CREATE INDEX tickets_by_event ON tickets (event_id);

CREATE TABLE payments (
    tx           TEXT PRIMARY KEY,
    reference    TEXT NOT NULL UNIQUE,
    user_id      INTEGER NOT NULL REFERENCES users (id),
    event_id     INTEGER NOT NULL,
    amount_cents INTEGER NOT NULL,
    status       TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'confirmed', 'failed'))
);

PRAGMA user_version = 1;
