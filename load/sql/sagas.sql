-- What PostgreSQL has done so far.

-- name: spent
SELECT d.xact_commit AS transactions, pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal_bytes
FROM pg_stat_database AS d WHERE d.datname = current_database()

-- name: force_statistics
SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()
