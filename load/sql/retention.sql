-- History as finished sagas of three steps leave it, a hundred days old, and what it weighs.

-- name: names
-- So many ids of that day, in their order.
INSERT INTO history (number, uid, first, second, third)
SELECT n, uuidv7(interval '-100 days'), uuidv7(interval '-100 days'), uuidv7(interval '-100 days'), uuidv7(interval '-100 days')
FROM generate_series($1::integer, $2::integer) AS n

-- name: history
CREATE TEMPORARY TABLE history (number integer, uid uuid, first uuid, second uuid, third uuid)

-- name: forget_names
TRUNCATE history

-- name: instances
INSERT INTO sagas.instances (
    uid, environment, saga, id, version, flag, variant, is_off, subject, input, input_hash, started_by, state, result,
    started_at, changed_at, ended_at)
SELECT h.uid, $1, 'order', 'o' || h.number, '1', $2, 'on', false, 'c-' || h.number,
    jsonb_build_object('order', 'o' || h.number, 'amount_cents', 1299), sha256(h.number::text::bytea), 'load', 'done', '{"id": "x"}',
    now() - interval '100 days', now() - interval '100 days', now() - interval '100 days'
FROM history AS h ORDER BY h.number

-- name: effects
INSERT INTO sagas.effects (
    id, environment, kind, key, flag, variant, is_off, epoch, saga, saga_version, saga_instance, step, subject, payload, instance_id,
    admitted_at, status, token, begun, start_until, lease_until, result, completed_at)
SELECT s.id, $1, 'shop.' || s.step, s.step || ':o' || h.number, $2, 'on', false, 1, 'order', '1', 'o' || h.number, s.step,
    'c-' || h.number, jsonb_build_object('order', 'o' || h.number, 'amount_cents', 1299), 'worker:load', now() - interval '100 days',
    'succeeded', uuidv7(), true, now() - interval '100 days', now() - interval '100 days', '{"id": "x"}', now() - interval '100 days'
FROM history AS h
CROSS JOIN LATERAL (VALUES (h.first, 'reserve'), (h.second, 'capture'), (h.third, 'confirm')) AS s (id, step)
ORDER BY h.number, s.id

-- name: keys
INSERT INTO sagas.keys (environment, kind, key, effect_id, payload_hash)
SELECT e.environment, e.kind, e.key, e.id, sha256(e.payload::text::bytea)
FROM history AS h
CROSS JOIN LATERAL (VALUES (h.first), (h.second), (h.third)) AS s (id)
INNER JOIN sagas.effects AS e ON e.id = s.id ORDER BY h.number, e.id

-- name: sizes
-- Of each table with its indexes.
SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes FROM pg_class AS c
WHERE c.relnamespace = 'sagas'::regnamespace AND c.relkind = 'r'
    AND c.relname IN ('instances', 'effects', 'keys', 'remains', 'instance_remains')

-- name: wal
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn

-- name: left
SELECT count(*) FROM sagas.instances

-- name: vacuum
VACUUM (ANALYZE) sagas.instances, sagas.effects, sagas.keys, sagas.remains, sagas.instance_remains
