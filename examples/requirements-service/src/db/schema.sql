CREATE TABLE IF NOT EXISTS users (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    team TEXT NOT NULL,
    password_hash TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS requirements (
    id {id},
    team TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Title and description in lower case, for searches.
    folded TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'accepted'))
);
CREATE TABLE IF NOT EXISTS features (
    id {id},
    requirement_id BIGINT NOT NULL REFERENCES requirements (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'proposed' CHECK (status IN ('proposed', 'planned', 'done'))
);
CREATE INDEX IF NOT EXISTS features_of_a_requirement ON features (requirement_id);
CREATE TABLE IF NOT EXISTS schemas (
    name TEXT PRIMARY KEY,
    -- The declared fields as JSON.
    fields TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS preferences (
    user_id BIGINT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    theme TEXT NOT NULL,
    digest TEXT NOT NULL
);
