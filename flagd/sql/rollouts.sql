-- Stepwise rollouts. Only this database's clock says what is due (P18).

-- name: create_rollout
INSERT INTO flagd.rollouts (
    id, environment, flag, variant, rest, steps, every_seconds, done, epoch, seen_generation, seen_revision, reason, actor,
    token_id, state, next_at, ended_at
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7::float8, $8, $9, $10, $11, $12, $13, $14,
    CASE WHEN $15::boolean THEN 'finished' ELSE 'running' END,
    CASE WHEN NOT $15::boolean THEN clock_timestamp() + make_interval(secs => $7::float8) END,
    CASE WHEN $15::boolean THEN clock_timestamp() END
);

-- name: latest_rollouts
-- The last one of each of these flags.
SELECT DISTINCT ON (r.flag) r.* FROM flagd.rollouts AS r
WHERE r.environment = $1 AND r.flag = ANY($2::text []) ORDER BY r.flag ASC, r.id DESC;

-- name: due_rollout
-- One whose next step is due, or whose flag is not as its last step left it: killed, archived, written by someone else.
SELECT r.*
FROM flagd.rollouts AS r INNER JOIN flagd.flags AS f ON f.environment = r.environment AND f.key = r.flag
WHERE
    r.state = 'running' AND NOT r.id = ANY($1::uuid [])
    AND (
        r.next_at <= clock_timestamp()
        OR (f.changed_generation, f.changed_revision) <> (r.seen_generation, r.seen_revision)
    )
ORDER BY r.next_at, r.id
LIMIT 1
FOR UPDATE OF r SKIP LOCKED;

-- name: take_step
-- What is done, and when the next step is due: null where this was the last.
UPDATE flagd.rollouts SET
    done = $2, seen_generation = $3, seen_revision = $4,
    next_at = CASE WHEN NOT $5::boolean THEN clock_timestamp() + make_interval(secs => every_seconds) END,
    state = CASE WHEN $5::boolean THEN 'finished' ELSE state END,
    ended_at = CASE WHEN $5::boolean THEN clock_timestamp() END
WHERE id = $1;

-- name: stop_rollout
UPDATE flagd.rollouts SET
    state = 'stopped', stopped = $2, faults = $3, next_at = NULL, ended_at = clock_timestamp(), ended_by = $4, ended_reason = $5
WHERE id = $1 AND state = 'running'
RETURNING *;

-- name: running
SELECT r.* FROM flagd.rollouts AS r WHERE r.environment = $1 AND r.flag = $2 AND r.state = 'running' FOR UPDATE;

-- name: now
SELECT clock_timestamp();
