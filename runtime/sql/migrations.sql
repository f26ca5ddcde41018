-- The ledger of migrations. The runner creates it itself: it needs it before the first file.

-- name: lock
SELECT pg_advisory_lock(hashtextextended('rescind migrations', 0));

-- name: limit_lock_wait
-- A migration that waits for a table's lock makes all others wait behind it.
SET LOCAL lock_timeout = '30s';

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS runtime;

-- name: create_ledger
CREATE TABLE IF NOT EXISTS runtime.migrations (
    room text NOT NULL,
    file text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (room, file)
);

-- name: ledger_exists
SELECT to_regclass('runtime.migrations') IS NOT NULL;

-- name: applied
SELECT room, file, checksum FROM runtime.migrations;

-- name: record
INSERT INTO runtime.migrations (room, file, checksum) VALUES ($1, $2, $3);
