-- Workers that claim compensations over HTTP (P15).

-- name: seen
INSERT INTO sagas.workers AS w (environment, id, saga, version, steps, look_ups)
SELECT $1, $2, $3, v.version, $5::text [], $6::text [] FROM unnest($4::text []) AS v (version) ORDER BY v.version
ON CONFLICT (environment, id, saga, version) DO UPDATE SET
    steps = excluded.steps, look_ups = excluded.look_ups, seen_at = clock_timestamp()

-- name: revive
-- It waited because nobody served it; now somebody does.
UPDATE sagas.compensations AS c SET state = 'due', reason = NULL, due_at = clock_timestamp()
WHERE c.environment = $1 AND c.action = 'worker' AND c.state = 'waiting' AND c.reason = 'no_worker'
    AND c.definition = $2 AND c.definition_version = ANY($3::text []) AND c.step = ANY($4::text [])
RETURNING c.id, c.rollback_id

-- name: follow_revival
UPDATE sagas.dispositions AS d SET state = 'pending', reason = NULL, changed_at = clock_timestamp()
WHERE d.compensation_id = ANY($1::uuid []) AND d.state = 'waiting'

-- name: reopen
UPDATE sagas.rollbacks SET version = version + 1, state = CASE WHEN state = 'waiting' THEN 'compensating' ELSE state END
WHERE id = ANY($1::uuid [])

-- name: running_rollbacks
-- Those with something due that this worker serves. Not locked: who claims looks again.
SELECT r.id FROM sagas.rollbacks AS r
WHERE r.environment = $1 AND r.state IN ('compensating', 'waiting') AND NOT r.paused AND r.cancelled_by IS NULL
    AND EXISTS (
        SELECT FROM sagas.compensations AS c
        WHERE c.rollback_id = r.id AND c.state = 'due' AND c.action = 'worker' AND c.due_at <= clock_timestamp()
            AND c.definition = $2 AND NOT c.definition_is_kind AND c.definition_version = ANY($3::text [])
            AND c.step = ANY($4::text []))
ORDER BY r.id LIMIT 100

-- name: at_work
-- A statement of its own, in one order: what follows sees a pause that was said before it was granted (hazard 15).
SELECT pg_advisory_xact_lock_shared(n.key)
FROM (SELECT sagas.work_key(u.id) AS key FROM unnest($1::uuid []) AS u (id) ORDER BY 1 OFFSET 0) AS n

-- name: held
SELECT c.id, c.token, c.environment, c.rollback_id, c.attempt, c.attempt_base, c.doubtful, c.definition, c.definition_is_kind,
    c.definition_version, c.step, r.carries,
    coalesce(extract(EPOCH FROM clock_timestamp() - c.first_sent_at), 0)::double precision AS since_first_seconds
FROM unnest($1::uuid [], $2::uuid []) AS n (id, token)
INNER JOIN sagas.compensations AS c ON c.id = n.id AND c.token = n.token
INNER JOIN sagas.rollbacks AS r ON r.id = c.rollback_id
WHERE c.action = 'worker'

-- name: keep
UPDATE sagas.compensations AS c SET lease_until = clock_timestamp() + $4::double precision * interval '1 second'
FROM unnest($2::uuid [], $3::uuid []) AS n (id, token)
WHERE c.environment = $1 AND c.id = n.id AND c.token = n.token AND c.state NOT IN ('due', 'waiting', 'final')
    AND c.lease_until > clock_timestamp()
RETURNING c.id

-- name: note_late
-- News of an attempt that no longer counts is kept as evidence.
INSERT INTO sagas.attempts (compensation_id, attempt, verb, actor, started_at, ended_at, outcome, detail)
SELECT c.id, c.attempt, 'act', n.worker, clock_timestamp(), clock_timestamp(), 'lost', n.detail::jsonb
FROM unnest($1::text [], $2::uuid [], $3::text []) AS n (worker, id, detail)
INNER JOIN sagas.compensations AS c ON c.id = n.id AND c.action = 'worker'

-- name: ring
-- A coordinator is told where it has something to begin, or may count a kill's effects; polling finds the rest.
SELECT pg_notify('rescind_rollback', r.id::text)
FROM unnest($1::uuid []) AS n (id)
INNER JOIN sagas.rollbacks AS r ON r.id = n.id
WHERE EXISTS (SELECT FROM sagas.compensations AS c WHERE c.rollback_id = r.id AND c.state = 'due' AND c.action <> 'worker')
    OR (r.carries = 'kill'
        AND NOT EXISTS (SELECT FROM sagas.compensations AS c WHERE c.rollback_id = r.id AND c.state = 'due')
        AND NOT EXISTS (SELECT FROM sagas.compensations AS c
            WHERE c.environment = r.environment AND c.rollback_id = r.id AND c.state = 'running'))

-- name: ring_workers
SELECT pg_notify('rescind_ready', '')
