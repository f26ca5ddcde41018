-- Whether the synchronous standby had a kill when it was answered (hazard 6). One row a rollback, of its last kill; none where
-- PostgreSQL was told of no synchronous standby.
CREATE TABLE IF NOT EXISTS rollbacks.standbys (
    rollback_id uuid PRIMARY KEY,
    confirmed boolean NOT NULL,
    names text [] NOT NULL,
    waited_ms double precision NOT NULL,
    at timestamptz NOT NULL
);
