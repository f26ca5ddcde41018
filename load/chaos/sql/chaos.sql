-- What the database says in the end, and whether it still moves.

-- name: instances
SELECT
    i.saga, i.id, i.state, i.reason,
    ARRAY(SELECT DISTINCT f.name FROM sagas.facts AS f WHERE f.uid = i.uid AND f.fact = 'skip') AS skipped
FROM sagas.instances AS i

-- name: effects
SELECT
    e.id::text AS id, e.saga, e.saga_instance AS order_id, e.step, e.status, e.flag, e.epoch, e.is_off,
    EXISTS (SELECT FROM sagas.members AS m WHERE m.effect_id = e.id AND m.undetermined) AS was_open,
    extract(EPOCH FROM e.admitted_at)::float8 AS admitted, extract(EPOCH FROM e.completed_at)::float8 AS completed,
    d.state AS disposition, d.reason, d.compensation_id::text AS compensation_id, c.state AS compensation,
    c.token::text AS compensation_token
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
LEFT JOIN sagas.compensations AS c ON c.id = d.compensation_id

-- name: writes
SELECT row_id, fence, holder, extract(EPOCH FROM at)::float8 AS at FROM chaos.writes WHERE what = $1 ORDER BY number

-- name: rollbacks
SELECT r.id::text AS id, CASE WHEN chaos.is_behind(r) THEN 'waiting' ELSE r.state END AS state, r.outcome,
    coalesce((SELECT jsonb_agg(jsonb_build_object('flag', f.flag, 'epoch', f.closes_epoch, 'at', extract(EPOCH FROM f.closed_at)))
        FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND f.closed_at IS NOT NULL), '[]') AS closed
FROM sagas.rollbacks AS r WHERE r.carries = 'kill'

-- name: left_over
SELECT
    (SELECT count(*) FROM sagas.ready) AS ready,
    (SELECT count(*) FROM sagas.moving AS m JOIN sagas.instances AS i USING (uid)
        WHERE i.state NOT IN ('undoing', 'waiting')) AS moving,
    (SELECT count(*) FROM sagas.waits) AS waits,
    (SELECT count(*) FROM sagas.subjects AS s WHERE NOT EXISTS (
        SELECT FROM sagas.compensations AS c WHERE c.id = s.compensation_id AND c.state = 'waiting')) AS subjects

-- name: moving
SELECT
    (SELECT count(*) FROM sagas.instances WHERE state IN ('running', 'undoing'))
    + (SELECT count(*) FROM sagas.stopped AS s INNER JOIN sagas.fences AS f
        ON f.environment = s.environment AND f.flag = s.flag AND f.scope_key = '' AND NOT f.closed AND s.epoch < f.epoch)
    + (SELECT count(*) FROM sagas.dispositions AS d WHERE chaos.moves(d))
    + (SELECT count(*) FROM sagas.rollbacks AS r
        WHERE r.carries = 'kill' AND r.state NOT IN ('settled', 'waiting') AND NOT chaos.is_behind(r)) AS count

-- name: end_backends
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE application_name LIKE 'rescind%' AND pid <> pg_backend_pid() AND hashint4(pid) & 3 = $1

-- name: past_grace
SELECT NOT EXISTS (
    SELECT FROM sagas.rollbacks AS r INNER JOIN sagas.rollback_flags AS f ON f.rollback_id = r.id
    WHERE f.flag = $1 AND r.state IN ('fenced', 'drained', 'grace', 'held'))
