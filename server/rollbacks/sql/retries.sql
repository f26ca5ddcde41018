-- What failed and is tried again by itself.

-- name: retries
WITH failed AS (
    SELECT c.id, c.kind, c.attempt - c.attempt_base AS attempt, c.due_at AS next_try_at
    FROM sagas.compensations AS c
    WHERE c.rollback_id = $1 AND c.state = 'due' AND c.attempt > c.attempt_base
    UNION ALL
    SELECT c.id, c.kind, c.attempt - c.attempt_base - 1, NULL
    FROM sagas.compensations AS c
    WHERE c.rollback_id = $1 AND c.state = 'running' AND c.attempt > c.attempt_base + 1
        AND c.environment = (SELECT r.environment FROM sagas.rollbacks AS r WHERE r.id = $1)
), per_kind AS (
    SELECT f.kind, count(*) AS number, max(f.attempt) AS attempt, min(f.next_try_at) AS next_try_at,
        (array_agg(f.id ORDER BY f.attempt DESC, f.id))[1] AS worst
    FROM failed AS f GROUP BY f.kind
)
SELECT k.kind, k.number, k.attempt, k.next_try_at, a.detail, a.outcome
FROM per_kind AS k
LEFT JOIN LATERAL (
    SELECT x.detail, x.outcome FROM sagas.attempts AS x
    WHERE x.compensation_id = k.worst AND x.verb = 'act' AND x.ended_at IS NOT NULL
    ORDER BY x.attempt DESC LIMIT 1
) AS a ON true
ORDER BY k.kind
