-- A ticket is used once: the organiser of its event checks it in.
ALTER TABLE tickets ADD COLUMN status TEXT NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'used'));
