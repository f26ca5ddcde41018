-- A crowd of instances that are done, and some among the oldest that are not.

-- name: definition
INSERT INTO sagas.definitions (environment, name, version, document, semantics_hash, created_by)
SELECT 'load', 'order', v::text, '{"flag": "f", "steps": []}', '', 'load' FROM generate_series(1, 3) AS v

-- name: crowd
INSERT INTO sagas.instances (uid, environment, saga, id, version, flag, is_off, subject, attributes, input, input_hash, started_by,
    started_at, state, reason, error)
SELECT uuidv7(make_interval(secs => n - $1::integer)), 'load', 'order', 'o' || n, (n % 2 + 1)::text, 'f', false, 'customer-' || n / 5,
    jsonb_build_object('shop', n % 1000), '{}', '', 'load', clock_timestamp() + make_interval(secs => n - $1::integer),
    CASE WHEN n % 3 = 0 AND n < 300 THEN 'waiting' WHEN n % 3 = 1 AND n < 300 THEN 'running' ELSE 'done' END,
    CASE WHEN n % 3 = 0 AND n < 300 THEN 'failed' END,
    CASE WHEN n % 3 = 0 AND n < 300 THEN '{"reason": "failed", "error": {"type": "CardRefused"}}'::jsonb END
FROM generate_series(1, $1::integer) AS n

-- name: strays
INSERT INTO sagas.strays (environment, state, uid, saga)
SELECT i.environment, i.state, i.uid, i.saga FROM sagas.instances AS i WHERE i.state = 'waiting'

-- name: waits
INSERT INTO sagas.waits (range, at, uid, name)
SELECT sagas.lease_range(i.uid), 'infinity', i.uid, 'boss' FROM sagas.instances AS i WHERE i.state = 'running'

-- name: analyze
VACUUM ANALYZE sagas.instances

-- name: weight
SELECT c.relname AS name, pg_relation_size(c.oid) / $1::integer AS bytes
FROM pg_class AS c INNER JOIN pg_index AS x ON x.indexrelid = c.oid
WHERE x.indrelid = 'sagas.instances'::regclass ORDER BY c.relname
