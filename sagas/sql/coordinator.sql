-- Driving rollbacks from their rows: what is open, the drain barrier, the passage from state to state.

-- name: open
-- The rollbacks of these ranges that ask for something. One that stands for instances never settles: it asks while there is work.
SELECT r.id, sagas.lease_range(r.id) AS range
FROM sagas.rollbacks AS r
WHERE r.state <> 'settled' AND sagas.lease_range(r.id) = ANY($1::integer [])
    AND (r.carries = 'kill'
        OR EXISTS (SELECT FROM sagas.compensations AS c WHERE c.rollback_id = r.id AND c.state = 'due')
        OR EXISTS (SELECT FROM sagas.compensations AS c
            WHERE c.environment = r.environment AND c.rollback_id = r.id AND c.state = 'running')
        OR EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.rollback_id = r.id AND d.judge_at IS NOT NULL))
UNION
SELECT l.rollback_id, sagas.lease_range(l.rollback_id)
FROM sagas.late AS l
WHERE sagas.lease_range(l.rollback_id) = ANY($1::integer [])
LIMIT $2

-- name: present
SELECT
    r.id, r.environment, r.state, r.version, r.compensate, r.grace_seconds, r.paused, r.reason, r.incident, r.outcome,
    r.cancelled_by, r.cancelled_reason, r.closed_at, r.drained_at, r.enumerated_at, sagas.is_held_open(r) AS is_held_open, r.carries,
    extract(EPOCH FROM r.grace_until - clock_timestamp())::double precision AS grace_left_seconds,
    (SELECT count(*) FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND f.closed_at IS NULL)::integer AS flags_unclosed,
    EXISTS (SELECT FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND NOT f.enumerated) AS is_unenumerated,
    EXISTS (SELECT FROM sagas.late AS l WHERE l.rollback_id = r.id) AS has_late,
    (SELECT extract(EPOCH FROM min(d.judge_at) - clock_timestamp())::double precision FROM sagas.dispositions AS d
     WHERE d.rollback_id = r.id AND d.judge_at IS NOT NULL) AS judge_in_seconds,
    EXISTS (SELECT FROM sagas.compensations AS c WHERE c.rollback_id = r.id AND c.state = 'due') AS has_due,
    EXISTS (SELECT FROM sagas.compensations AS c
            WHERE c.rollback_id = r.id AND c.state = 'due' AND c.action <> 'worker') AS has_declared,
    EXISTS (SELECT FROM sagas.compensations AS c
            WHERE c.environment = r.environment AND c.rollback_id = r.id AND c.state = 'running') AS has_running
FROM sagas.rollbacks AS r WHERE r.id = $1

-- name: unclosed
SELECT DISTINCT f.flag, sagas.lock_key(f.environment, f.flag) AS lock_key
FROM sagas.rollback_flags AS f WHERE f.rollback_id = $1 AND f.closed_at IS NULL ORDER BY lock_key

-- name: barrier
-- A statement of its own: granted when every admission and report that had begun under the old epoch has ended.
SELECT pg_advisory_xact_lock($1)

-- name: limit_wait
SELECT set_config('lock_timeout', $1::text, true)

-- name: close_flag
UPDATE sagas.rollback_flags SET closed_at = clock_timestamp()
WHERE rollback_id = $1 AND flag = $2 AND closed_at IS NULL

-- name: close
UPDATE sagas.rollbacks SET closed_at = clock_timestamp() WHERE id = $1 AND version = $2 RETURNING id

-- name: permissions
-- Effects of the set whose bodies may still begin: no more can join, the set is closed. The look-back is far longer than any window.
SELECT DISTINCT n.id FROM sagas.named AS n
WHERE n.rollback_id = $1 AND n.status = 'admitted' AND NOT n.begun AND NOT n.tombstoned
    AND n.start_until > clock_timestamp() - interval '5 minutes'
UNION
-- and those of other flags in the saga instances that it stops (hazard 13)
SELECT e.id FROM sagas.effects AS e
WHERE e.status = 'admitted' AND NOT e.begun AND NOT e.tombstoned AND NOT e.is_off AND e.saga_instance IS NOT NULL
    AND e.start_until > clock_timestamp() - interval '5 minutes'
    AND EXISTS (
        SELECT FROM sagas.effects AS a
        INNER JOIN sagas.rollback_flags AS f ON f.rollback_id = $1 AND f.environment = a.environment AND f.flag = a.flag
        WHERE a.environment = e.environment AND a.saga = e.saga AND a.saga_instance = e.saga_instance
            AND a.saga_instance IS NOT NULL AND a.id <> e.id AND a.status <> 'failed' AND sagas.is_named(f, a)
        OFFSET 0)
    AND NOT sagas.is_independent(e)

-- name: still_permitted
SELECT EXISTS (
    SELECT FROM sagas.effects AS e
    WHERE e.id = ANY($1::uuid []) AND e.status = 'admitted' AND NOT e.begun AND NOT e.tombstoned)

-- name: drain
UPDATE sagas.rollbacks SET drained_at = clock_timestamp(), state = 'drained'
WHERE id = $1 AND version = $2 AND drained_at IS NULL RETURNING id

-- name: open_up
UPDATE sagas.rollbacks SET
    state = $3,
    outcome = $4,
    grace_until = CASE WHEN $3 = 'grace' THEN drained_at + grace_seconds * interval '1 second' ELSE grace_until END,
    settled_at = CASE WHEN $3 = 'settled' THEN coalesce(settled_at, clock_timestamp()) ELSE settled_at END
WHERE id = $1 AND version = $2 AND state IN ('fenced', 'drained') RETURNING id

-- name: pass
-- From one state to another, if nothing came in between.
UPDATE sagas.rollbacks SET state = $4
WHERE id = $1 AND version = $2 AND state = $3
    AND ($3 <> 'grace' OR grace_until <= clock_timestamp())
RETURNING id

-- name: at_work
-- A statement of its own: what follows sees a pause that was said before it was granted (hazard 15).
SELECT pg_advisory_xact_lock_shared(sagas.work_key($1))

-- name: work_is_over
-- Granted when everyone who began work before has ended.
SELECT pg_advisory_xact_lock(sagas.work_key($1))

-- name: running
SELECT id FROM sagas.rollbacks
WHERE id = $1 AND state IN ('compensating', 'waiting') AND NOT paused AND cancelled_by IS NULL

-- name: pause
UPDATE sagas.rollbacks AS r SET state = 'paused'
WHERE r.id = $1 AND r.paused AND r.state IN ('compensating', 'waiting')
    AND NOT EXISTS (SELECT FROM sagas.compensations AS c
        WHERE c.environment = r.environment AND c.rollback_id = r.id AND c.state = 'running')
RETURNING r.id
