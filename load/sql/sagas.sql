-- What PostgreSQL has done so far.

-- name: spent
SELECT d.xact_commit AS transactions, pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal_bytes
FROM pg_stat_database AS d WHERE d.datname = current_database()

-- name: force_statistics
SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()

-- name: open
-- Instances that wait for a timer, a day from now.
WITH made AS (
    INSERT INTO sagas.instances (
        uid, environment, saga, id, version, flag, is_off, input, input_hash, started_by)
    SELECT uuidv7(), $1, 'order', 'waits-' || ($2 + n), '1', $3, false,
        jsonb_build_object('order', 'waits-' || ($2 + n), 'amount_cents', 1299), '\x00', 'load'
    FROM generate_series(1, $4::integer) AS n
    RETURNING uid
)
INSERT INTO sagas.waits (range, at, uid, name)
SELECT sagas.lease_range(m.uid), clock_timestamp() + interval '1 day', m.uid, 'pause' FROM made AS m

-- name: settle
VACUUM (ANALYZE) sagas.instances, sagas.waits

-- name: drop_search
-- What the indexes of searching cost is seen by leaving them out.
DROP INDEX IF EXISTS sagas.instances_of_versions, sagas.instances_by_subject, sagas.instances_by_attributes

-- name: make_search_versions
CREATE INDEX instances_of_versions ON sagas.instances (environment, saga, version, uid) WHERE started_at > '-infinity'

-- name: make_search_subject
CREATE INDEX instances_by_subject ON sagas.instances (environment, subject, uid) WHERE subject IS NOT NULL

-- name: make_search_attributes
CREATE INDEX instances_by_attributes ON sagas.instances USING gin (attributes jsonb_path_ops) WHERE attributes <> '{}'
