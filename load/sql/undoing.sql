-- What the benchmarks of undoing need beside the system's own queries.

-- name: effects
-- Effects of one step, each in a saga instance of its own and of a customer of its own, all of them done.
INSERT INTO sagas.effects (
    id, environment, kind, key, flag, variant, is_off, epoch, saga, saga_version, saga_instance, step, subject, payload, status, token,
    begun, start_until, lease_until, result, completed_at)
SELECT
    uuidv7(), $1, $2, $2 || ':' || n, $3, 'on', false,
    (SELECT f.epoch FROM sagas.fences AS f WHERE f.environment = $1 AND f.flag = $3 AND f.scope_key = ''),
    $4, '1', $2 || '-' || n, $5, $2 || '-c-' || n, jsonb_build_object('order', n::text, 'amount_cents', 1299), 'succeeded', uuidv7(), true,
    clock_timestamp() - interval '1 minute', clock_timestamp() - interval '1 minute', '{"id": "x"}', clock_timestamp()
FROM generate_series(1, $6::integer) AS n

-- name: settle
VACUUM (ANALYZE) sagas.effects

-- name: state
SELECT r.state FROM sagas.rollbacks AS r WHERE r.id = $1

-- name: undone
SELECT count(*)::integer AS number FROM sagas.dispositions AS d WHERE d.rollback_id = $1 AND d.state = 'compensated'

-- name: holder
SELECT l.holder, count(*)::integer AS number FROM sagas.leases AS l
WHERE l.expires_at > clock_timestamp() GROUP BY l.holder ORDER BY 2 DESC LIMIT 1
