-- Each user has a code, which others use once to record who referred them.
CREATE TABLE referral_codes (
    code    TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL UNIQUE REFERENCES users (id)
) WITHOUT ROWID;

INSERT INTO referral_codes (code, user_id) SELECT printf('REF-%06d', id), id FROM users;

CREATE INDEX referrals_by_referrer ON referrals (referrer_id);

PRAGMA user_version = 4;
