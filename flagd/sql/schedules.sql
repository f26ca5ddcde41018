-- Scheduled changes. Only this database's clock says what is due (P18).

-- name: create_schedule
INSERT INTO flagd.schedules (id, environment, at, operations, keys, bases, leaves, reason, actor, token_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: instant
-- The instant asked for, or so many seconds from now; and how far away it is.
SELECT t.at, extract(EPOCH FROM t.at - clock_timestamp())::float8 AS seconds
FROM (SELECT coalesce($1::timestamptz, clock_timestamp() + make_interval(secs => $2::float8)) AS at) AS t;

-- name: waiting
-- Of these flags, or of all.
SELECT s.* FROM flagd.schedules AS s
WHERE s.environment = $1 AND s.state = 'waiting' AND ($2::text [] IS NULL OR s.keys && $2) ORDER BY s.at, s.id LIMIT $3;

-- name: list_schedules
-- The newest first, those before `$4`; of a flag, in a state.
SELECT s.*
FROM flagd.schedules AS s
WHERE
    s.environment = $1
    AND ($2::text IS NULL OR $2 = ANY(s.keys))
    AND ($3::text IS NULL OR s.state = $3)
    AND ($4::uuid IS NULL OR s.id < $4)
ORDER BY s.id DESC
LIMIT $5;

-- name: get_schedule
SELECT s.* FROM flagd.schedules AS s WHERE s.environment = $1 AND s.id = $2;

-- name: due_schedule
-- The first that waits in its environment, if it is due and nobody else has it: those of one environment are applied in
-- their order, by however many servers.
SELECT s.*
FROM flagd.schedules AS s
WHERE
    s.state = 'waiting' AND s.at <= clock_timestamp() AND NOT s.environment = ANY($1::text [])
    AND NOT EXISTS (
        SELECT FROM flagd.schedules AS earlier
        WHERE earlier.environment = s.environment AND earlier.state = 'waiting' AND (earlier.at, earlier.id) < (s.at, s.id)
    )
ORDER BY s.at, s.id
LIMIT 1
FOR UPDATE OF s SKIP LOCKED;

-- name: end_schedule
UPDATE flagd.schedules SET
    state = $2, generation = $3, revision = $4, faults = $5, ended_at = clock_timestamp(), ended_by = $6, ended_reason = $7
WHERE id = $1 AND state = 'waiting'
RETURNING *;
