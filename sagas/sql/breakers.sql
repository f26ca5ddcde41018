-- Circuit breakers (docs/decisions/0027). Locks: their rows by environment and kind, before paces; counting takes nothing else.

-- name: troubled
SELECT b.environment, b.kind FROM sagas.breakers AS b WHERE b.side = $1 AND (b.failures > 0 OR b.opened_at IS NOT NULL) LIMIT $2

-- name: hold
SELECT b.environment, b.kind,
    greatest(0, extract(EPOCH FROM b.retry_at - clock_timestamp()))::double precision AS cools_seconds,
    coalesce(b.probe_until > clock_timestamp(), false) AS is_probed
FROM sagas.breakers AS b
INNER JOIN unnest($2::text [], $3::text []) AS n (environment, kind) ON n.environment = b.environment AND n.kind = b.kind
WHERE b.side = $1 AND b.opened_at IS NOT NULL
ORDER BY b.environment, b.kind FOR UPDATE OF b

-- name: probe
UPDATE sagas.breakers AS b SET probe_until = clock_timestamp() + $4::double precision * interval '1 second'
FROM unnest($2::text [], $3::text []) AS n (environment, kind)
WHERE b.side = $1 AND b.environment = n.environment AND b.kind = n.kind

-- name: fail
-- Whoever fails while it is open has it cool down again.
INSERT INTO sagas.breakers AS b (environment, kind, side, failures, last_error, opened_at, retry_at)
SELECT n.environment, n.kind, $1, n.failures, n.error,
    CASE WHEN n.failures >= $6 THEN statement_timestamp() END,
    CASE WHEN n.failures >= $6 THEN statement_timestamp() + $7::double precision * interval '1 second' END
FROM unnest($2::text [], $3::text [], $4::integer [], $5::text []) AS n (environment, kind, failures, error)
ORDER BY n.environment, n.kind
ON CONFLICT (environment, kind, side) DO UPDATE SET
    failures = b.failures + excluded.failures, last_error = excluded.last_error, changed_at = clock_timestamp(), probe_until = NULL,
    opened_at = CASE WHEN b.failures + excluded.failures >= $6 THEN coalesce(b.opened_at, statement_timestamp()) END,
    retry_at = CASE WHEN b.failures + excluded.failures >= $6
        THEN statement_timestamp() + $7::double precision * interval '1 second' END
RETURNING b.environment, b.kind, coalesce(b.opened_at = statement_timestamp(), false) AS has_opened

-- name: succeed
UPDATE sagas.breakers AS b SET
    failures = 0, opened_at = NULL, retry_at = NULL, probe_until = NULL, last_error = NULL, changed_at = clock_timestamp()
FROM unnest($2::text [], $3::text []) AS n (environment, kind)
WHERE b.side = $1 AND b.environment = n.environment AND b.kind = n.kind AND (b.failures > 0 OR b.opened_at IS NOT NULL)

-- name: reset
UPDATE sagas.breakers AS b SET
    failures = 0, opened_at = NULL, retry_at = NULL, probe_until = NULL, changed_at = clock_timestamp()
WHERE b.environment = $1 AND b.kind = $2 AND b.side = ANY($3::text []) AND (b.failures > 0 OR b.opened_at IS NOT NULL)
RETURNING b.side, b.failures

-- name: listing
SELECT b.kind, b.side, b.failures, b.opened_at, b.retry_at, b.last_error, b.changed_at,
    CASE WHEN b.opened_at IS NULL THEN 'closed' WHEN b.retry_at > clock_timestamp() THEN 'open' ELSE 'half_open' END AS state
FROM sagas.breakers AS b
WHERE b.environment = $1 AND (b.failures > 0 OR b.opened_at IS NOT NULL)
ORDER BY b.opened_at NULLS LAST, b.kind, b.side LIMIT $2

-- name: kinds
SELECT DISTINCT b.kind FROM sagas.breakers AS b WHERE b.environment = $1 ORDER BY b.kind LIMIT $2
