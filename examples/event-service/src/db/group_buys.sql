-- Users who buy one ticket each if enough of them join in time. AUTOINCREMENT: like events.
CREATE TABLE group_buys (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id     INTEGER NOT NULL,
    target       INTEGER NOT NULL CHECK (target >= 2),
    participants INTEGER NOT NULL DEFAULT 0 CHECK (participants BETWEEN 0 AND target),
    -- In seconds since 1970.
    expires_at   INTEGER NOT NULL
);

CREATE TABLE group_buy_participants (
    group_buy_id INTEGER NOT NULL REFERENCES group_buys (id),
    user_id      INTEGER NOT NULL REFERENCES users (id),
    PRIMARY KEY (group_buy_id, user_id)
) WITHOUT ROWID;
