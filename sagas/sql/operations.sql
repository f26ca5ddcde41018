-- One verb for all instances that a filter finds: begun, carried out chunk by chunk, seen and cancelled (docs/decisions/0026).
-- Locks: the range's lease, the flags' advisory locks, the operation's row, instances by uid.

-- name: now
SELECT clock_timestamp()

-- name: begin
INSERT INTO sagas.operations (environment, saga, verb, step, filter, per_second, reason, actor, estimated, is_exact, cursor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
RETURNING id

-- name: one
SELECT o.* FROM sagas.operations AS o WHERE o.environment = $1 AND o.id = $2

-- name: listing
SELECT o.* FROM sagas.operations AS o WHERE o.environment = $1 AND ($2::uuid IS NULL OR o.id < $2) ORDER BY o.id DESC LIMIT $3

-- name: cancel
UPDATE sagas.operations AS o SET cancelled_by = $3, cancelled_reason = $4, ended_at = clock_timestamp()
WHERE o.environment = $1 AND o.id = $2 AND o.ended_at IS NULL RETURNING o.id

-- name: standing
-- Those in these ranges that have not ended, and in how many seconds their pace allows the next chunk.
SELECT o.*, sagas.lease_range(o.id) AS range,
    extract(EPOCH FROM o.next_at - clock_timestamp())::double precision AS in_seconds
FROM sagas.operations AS o
WHERE o.ended_at IS NULL AND sagas.lease_range(o.id) = ANY($1::integer []) ORDER BY o.next_at LIMIT $2

-- name: lock
-- Where its cursor still stands as it was read: whoever cancelled it, or went on with it, was first.
SELECT o.done, o.refused FROM sagas.operations AS o WHERE o.id = $1 AND o.ended_at IS NULL AND o.cursor = $2 FOR NO KEY UPDATE

-- name: advance
-- A chunk that came late may be made up for by a second, not by more.
UPDATE sagas.operations AS o SET
    cursor = $2, done = $3, refused = $4, ended_at = CASE WHEN $6::boolean THEN clock_timestamp() END,
    next_at = greatest(o.next_at, clock_timestamp() - interval '1 second') + $5::double precision * interval '1 second'
WHERE o.id = $1

-- name: guess
-- What the planner's statistics say: it takes no time, and may be far off.
EXPLAIN (FORMAT JSON)
SELECT FROM sagas.instances AS i
WHERE i.environment = $1
    AND ($2::text IS NULL OR i.saga = $2)
    AND ($3::text IS NULL OR i.version = $3)
    AND ($4::text IS NULL OR i.state = $4)
    AND ($5::boolean IS NULL OR i.paused = $5)
    AND ($6::text IS NULL OR i.flag = $6)
    AND ($7::text IS NULL OR i.subject = $7)
    AND ($8::jsonb IS NULL OR i.attributes @> $8)
    AND ($9::text IS NULL OR i.reason = $9 OR i.error ->> 'reason' = $9)
    AND ($10::text IS NULL OR i.error #>> '{error,type}' = $10)
    AND ($11::timestamptz IS NULL OR i.started_at >= $11)
    AND ($12::timestamptz IS NULL OR i.started_at < $12)
