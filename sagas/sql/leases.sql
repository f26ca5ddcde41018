-- Leases of shard ranges (P18, hazard 14). PostgreSQL's clock alone judges them.

-- name: renew
-- Changes no key column: it never waits for the holder's own fenced writes, which hold the row FOR KEY SHARE.
UPDATE sagas.leases AS l
SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + $4::double precision * interval '1 second'
FROM unnest($2::smallint [], $3::bigint []) AS held (range, token)
WHERE l.range = held.range AND l.token = held.token AND l.holder = $1 AND l.expires_at > clock_timestamp()
RETURNING l.range

-- name: observe
SELECT range, token, renewed_at, expires_at = '-infinity' AS is_free, expires_at <= clock_timestamp() AS is_expired
FROM sagas.leases ORDER BY range

-- name: take
-- FOR UPDATE conflicts with every fenced write under way: who takes over does so after the last of them.
WITH free AS (
    SELECT l.range FROM sagas.leases AS l
    INNER JOIN unnest($2::smallint [], $3::bigint []) AS wanted (range, token) ON wanted.range = l.range
    WHERE l.token = wanted.token AND l.expires_at <= clock_timestamp()
    ORDER BY l.range
    FOR UPDATE OF l SKIP LOCKED
)
UPDATE sagas.leases AS l
SET holder = $1, token = l.token + 1, renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + $4::double precision * interval '1 second'
FROM free WHERE l.range = free.range
RETURNING l.range, l.token

-- name: give_back
UPDATE sagas.leases AS l SET expires_at = '-infinity'
FROM unnest($2::smallint [], $3::bigint []) AS held (range, token)
WHERE l.range = held.range AND l.token = held.token AND l.holder = $1

-- name: fence
-- The first statement of every write. A writer that stalls inside its transaction is cut off, and holds up nobody for longer:
-- between two queries at once; between two messages of one query it counts as active, there the whole transaction's time ends it.
-- Plans made while a table is still empty must not read all of it later.
SELECT
    set_config('idle_in_transaction_session_timeout', $4::text, true),
    set_config('transaction_timeout', $5::text, true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true)
FROM sagas.leases
WHERE range = $1 AND token = $2 AND holder = $3 AND expires_at > clock_timestamp()
FOR KEY SHARE

-- name: fence_all
-- The same for a group over several ranges: those that are still held, in one order.
SELECT
    l.range,
    set_config('idle_in_transaction_session_timeout', $4::text, true),
    set_config('transaction_timeout', $5::text, true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true)
FROM sagas.leases AS l
INNER JOIN unnest($2::smallint [], $3::bigint []) AS held (range, token) ON held.range = l.range AND held.token = l.token
WHERE l.holder = $1 AND l.expires_at > clock_timestamp()
ORDER BY l.range
FOR KEY SHARE OF l
