-- An environment in recovery: PostgreSQL came back older than what was seen, and nobody has said yet that it is put right (P2).

ALTER TABLE flagd.environments ADD COLUMN IF NOT EXISTS recovering_since timestamptz;
