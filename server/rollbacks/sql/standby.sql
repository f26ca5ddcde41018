-- Whether the synchronous standby has a kill.

-- name: is_synchronous
SELECT current_setting('synchronous_standby_names') <> ''

-- name: follow
-- A record of its own, so that nothing is locked while it is waited for. What the operator asks beyond `on` is asked here as well.
SELECT pg_logical_emit_message(true, 'rescind.kill', '')::text
FROM set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)

-- name: note
-- $2: the place that the standby has reached; null: it has not confirmed. Its names are seen by members of pg_monitor.
INSERT INTO rollbacks.standbys AS s (rollback_id, confirmed, names, waited_ms, at)
SELECT $1, $2::text IS NOT NULL, ARRAY(
        SELECT r.application_name FROM pg_stat_replication AS r
        WHERE r.application_name IS NOT NULL AND r.sync_state IN ('sync', 'quorum') AND r.flush_lsn >= ($2::text)::pg_lsn
        ORDER BY r.application_name),
    $3, clock_timestamp()
FROM set_config('synchronous_commit', 'local', true)
ON CONFLICT (rollback_id) DO UPDATE SET
    confirmed = excluded.confirmed, names = excluded.names, waited_ms = excluded.waited_ms, at = excluded.at
RETURNING s.confirmed, s.names, s.waited_ms, s.at

-- name: of
SELECT s.confirmed, s.names, s.waited_ms, s.at FROM rollbacks.standbys AS s WHERE s.rollback_id = $1

-- name: release
-- Whoever a kill waits behind, and who waits for the standby alone: told to wait no longer. Such a COMMIT ends with a warning, which
-- is no success to anybody. The kill is known by its text, since behind a pooler nobody knows its backend.
SELECT pg_cancel_backend(h.pid)
FROM pg_stat_activity AS k
CROSS JOIN LATERAL unnest(pg_blocking_pids(k.pid)) AS b (pid)
INNER JOIN pg_stat_activity AS h ON h.pid = b.pid
WHERE k.datname = current_database() AND k.wait_event_type = 'Lock' AND k.query LIKE '%rollbacks.kill\_v%'
    AND h.wait_event = 'SyncRep'
