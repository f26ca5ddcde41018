-- History that ends (docs/decisions/0031). Locks, in this order: the first range's lease, the flags' advisory locks (shared, as an
-- admission takes them), the sweep's row, then rows of ended history alone, and of these only what nobody else holds.

-- name: shortest
-- The fewest days for which any history is kept; null: all of it for ever.
SELECT least($1::integer, (SELECT min((d.document ->> 'retention_days')::integer) FROM sagas.definitions AS d)) AS days

-- name: standing
SELECT s.what, s.cursor, s.begun_at, s.ended_at, s.looked, s.dropped, s.dropped_ever,
    extract(EPOCH FROM clock_timestamp() - s.ended_at)::double precision AS since_ended_seconds,
    s.ended_at IS NULL OR s.ended_at < s.begun_at
        OR s.ended_at < clock_timestamp() - $1::double precision * interval '1 second' AS is_due
FROM sagas.sweeps AS s ORDER BY s.what

-- name: hold_sweep
-- Where its cursor still stands as it was read: one chunk is dropped by one.
SELECT s.what FROM sagas.sweeps AS s WHERE s.what = $1 AND s.cursor = $2 FOR NO KEY UPDATE

-- name: move_sweep
-- On to the next chunk; without a next one this sweep has ended, and the next begins from the first.
UPDATE sagas.sweeps AS s SET
    cursor = coalesce($2::uuid, '00000000-0000-0000-0000-000000000000'),
    begun_at = CASE WHEN s.ended_at >= s.begun_at THEN clock_timestamp() ELSE s.begun_at END,
    ended_at = CASE WHEN $2::uuid IS NULL THEN clock_timestamp() ELSE s.ended_at END,
    looked = CASE WHEN s.ended_at >= s.begun_at THEN 0 ELSE s.looked END + $3::bigint,
    dropped = CASE WHEN s.ended_at >= s.begun_at THEN 0 ELSE s.dropped END + $4::bigint,
    dropped_ever = s.dropped_ever + $4::bigint
WHERE s.what = $1

-- name: old_effects
-- The next of those that may be old enough, and which of them are over: by the time in their ids, and first those named by their
-- keys, which have none. What belongs to an instance goes with it.
SELECT p.id, e.environment, coalesce(
    sagas.last_changed_v1(e) < clock_timestamp() - sagas.kept_days_v1(e, $3) * interval '1 day'
    AND NOT EXISTS (SELECT FROM sagas.instances AS i
        WHERE i.environment = e.environment AND i.saga = e.saga AND i.id = e.saga_instance)
    AND sagas.is_at_rest_v1(e), false) AS is_over
FROM (
    SELECT x.id FROM sagas.effects AS x
    WHERE x.id > $1 AND x.id < uuidv7($2::integer * interval '-1 day') ORDER BY x.id LIMIT $4
) AS p
INNER JOIN sagas.effects AS e ON e.id = p.id
ORDER BY p.id

-- name: hold_effects
-- Under the locks, with a fresh snapshot. What somebody else holds is not at rest.
SELECT e.id FROM sagas.effects AS e
WHERE e.id = ANY($1::uuid [])
    AND sagas.last_changed_v1(e) < clock_timestamp() - sagas.kept_days_v1(e, $2) * interval '1 day'
    AND sagas.is_at_rest_v1(e)
ORDER BY e.id FOR UPDATE OF e SKIP LOCKED

-- name: old_instances
SELECT p.uid, coalesce(
    i.state IN ('done', 'undone', 'killed')
    AND i.ended_at < clock_timestamp() - sagas.saga_days_v1(i.environment, i.saga, i.version, $3) * interval '1 day', false) AS is_over
FROM (
    SELECT x.uid FROM sagas.instances AS x
    WHERE x.uid > $1 AND x.uid < uuidv7($2::integer * interval '-1 day') ORDER BY x.uid LIMIT $4
) AS p
INNER JOIN sagas.instances AS i ON i.uid = p.uid
ORDER BY p.uid

-- name: hold_instances
SELECT i.uid FROM sagas.instances AS i
WHERE i.uid = ANY($1::uuid []) AND i.state IN ('done', 'undone', 'killed')
    AND i.ended_at < clock_timestamp() - sagas.saga_days_v1(i.environment, i.saga, i.version, $2) * interval '1 day'
    AND NOT sagas.is_flag_held_v1(i.environment, i.flag)
    AND NOT EXISTS (SELECT FROM sagas.waits AS w WHERE w.uid = i.uid)
    AND NOT EXISTS (SELECT FROM sagas.ready AS r WHERE r.uid = i.uid)
    AND NOT EXISTS (SELECT FROM sagas.stopped AS s WHERE s.uid = i.uid)
    AND NOT EXISTS (SELECT FROM sagas.moving AS m WHERE m.range = sagas.lease_range(i.uid) AND m.uid = i.uid)
ORDER BY i.uid FOR UPDATE OF i SKIP LOCKED

-- name: hold_effects_of
SELECT i.uid, e.id
FROM sagas.instances AS i
INNER JOIN sagas.effects AS e ON e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id
WHERE i.uid = ANY($1::uuid []) AND e.saga_instance IS NOT NULL
    AND sagas.last_changed_v1(e) < clock_timestamp() - sagas.saga_days_v1(i.environment, i.saga, i.version, $2) * interval '1 day'
    AND sagas.is_at_rest_v1(e)
ORDER BY e.id FOR UPDATE OF e SKIP LOCKED

-- name: whole
-- Of these instances those of which every effect is held: an instance goes with all that it did, or not at all.
SELECT i.uid FROM sagas.instances AS i
WHERE i.uid = ANY($1::uuid []) AND NOT EXISTS (
    SELECT FROM sagas.effects AS e
    WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id AND e.saga_instance IS NOT NULL
        AND e.id <> ALL($2::uuid []))

-- name: remember
-- Of effects that are their key's present generation. What was undone is withheld, so its result is not kept.
INSERT INTO sagas.remains (
    id, environment, kind, key, flag, is_off, epoch, status, attempt, token, tombstoned, disposition, result)
SELECT e.id, e.environment, e.kind, e.key, e.flag, e.is_off, e.epoch, e.status, e.attempt, e.token, e.tombstoned,
    coalesce(d.state, CASE WHEN e.undone THEN 'compensated' END),
    CASE WHEN e.status = 'succeeded' AND NOT e.undone AND NOT e.tombstoned THEN e.result END
FROM sagas.effects AS e
INNER JOIN sagas.keys AS k ON k.environment = e.environment AND k.kind = e.kind AND k.key = e.key AND k.effect_id = e.id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.id = ANY($1::uuid [])
ORDER BY e.id
ON CONFLICT (id) DO NOTHING

-- name: say_gone
-- Per flag: what a later kill could have named, and never will.
INSERT INTO sagas.horizons AS h (environment, flag, gone_on, first_gone_at, admitted_at, number)
SELECT e.environment, e.flag, (clock_timestamp() AT TIME ZONE 'UTC')::date, clock_timestamp(), max(e.admitted_at), count(*)
FROM sagas.effects AS e
WHERE e.id = ANY($1::uuid []) AND NOT e.is_off AND NOT e.undone AND e.status = 'succeeded'
GROUP BY e.environment, e.flag ORDER BY e.environment, e.flag
ON CONFLICT (environment, flag, gone_on) DO UPDATE SET
    admitted_at = greatest(h.admitted_at, excluded.admitted_at), number = h.number + excluded.number

-- name: keep_sums
-- Per rollback of a kill: what became of them.
INSERT INTO sagas.gone AS g (rollback_id, kind, state, currency, number, amount_minor)
SELECT m.rollback_id, d.kind, d.state, coalesce(CASE WHEN d.amount_minor IS NOT NULL THEN d.currency END, ''), count(*),
    coalesce(sum(d.amount_minor), 0)
FROM sagas.members AS m
INNER JOIN sagas.rollbacks AS r ON r.id = m.rollback_id AND r.carries = 'kill'
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id
WHERE m.effect_id = ANY($1::uuid [])
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (rollback_id, kind, state, currency) DO UPDATE SET
    number = g.number + excluded.number, amount_minor = g.amount_minor + excluded.amount_minor

-- name: drop_members
WITH named AS (
    DELETE FROM sagas.members AS m WHERE m.effect_id = ANY($1::uuid [])
), asked AS (
    DELETE FROM sagas.look_ups AS l WHERE l.effect_id = ANY($1::uuid [])
)
DELETE FROM sagas.attempts AS a WHERE a.effect_id = ANY($1::uuid [])

-- name: drop_dispositions
-- The compensations that nothing refers to any more are answered; a merged one stays, for its number is not given twice.
WITH ended AS (
    DELETE FROM sagas.dispositions AS d WHERE d.effect_id = ANY($1::uuid []) RETURNING d.compensation_id
)
SELECT DISTINCT c.id FROM ended AS x
INNER JOIN sagas.compensations AS c ON c.id = x.compensation_id
WHERE c.merge_key IS NULL AND c.state = 'final'

-- name: drop_attempts
DELETE FROM sagas.attempts AS a WHERE a.compensation_id = ANY($1::uuid [])

-- name: drop_compensations
DELETE FROM sagas.compensations AS c WHERE c.id = ANY($1::uuid [])

-- name: drop_effects
DELETE FROM sagas.effects AS e WHERE e.id = ANY($1::uuid [])

-- name: remember_instances
INSERT INTO sagas.instance_remains (environment, saga, id, uid, state, input_hash, reason, result, error)
SELECT i.environment, i.saga, i.id, i.uid, i.state, i.input_hash, i.reason, i.result, i.error
FROM sagas.instances AS i WHERE i.uid = ANY($1::uuid []) ORDER BY i.uid
ON CONFLICT (environment, saga, id) DO UPDATE SET
    uid = excluded.uid, state = excluded.state, input_hash = excluded.input_hash, reason = excluded.reason,
    result = excluded.result, error = excluded.error, gone_at = excluded.gone_at

-- name: drop_strays
DELETE FROM sagas.strays AS t USING sagas.instances AS i
WHERE i.uid = ANY($1::uuid []) AND t.environment = i.environment AND t.uid = i.uid AND t.state = ANY(ARRAY[i.state, 'paused'])

-- name: drop_facts
DELETE FROM sagas.facts AS f WHERE f.uid = ANY($1::uuid [])

-- name: drop_instances
DELETE FROM sagas.instances AS i WHERE i.uid = ANY($1::uuid [])

-- name: old_remains
SELECT p.id, p.environment, p.gone_at < clock_timestamp() - $2::integer * interval '1 day'
    AND NOT sagas.is_flag_held_v1(p.environment, p.flag) AS is_over
FROM sagas.remains AS p
WHERE p.id > $1 AND p.id < uuidv7($2::integer * interval '-1 day') ORDER BY p.id LIMIT $3

-- name: drop_keys
-- A key that has moved on to its next generation stays, and only what it answered before goes.
WITH ended AS (
    DELETE FROM sagas.remains AS m WHERE m.id = ANY($1::uuid []) RETURNING m.id, m.environment, m.kind, m.key
)
DELETE FROM sagas.keys AS k USING ended AS x
WHERE k.environment = x.environment AND k.kind = x.kind AND k.key = x.key AND k.effect_id = x.id

-- name: old_instance_remains
SELECT p.uid, p.gone_at < clock_timestamp() - $2::integer * interval '1 day' AS is_over
FROM sagas.instance_remains AS p
WHERE p.uid > $1 AND p.uid < uuidv7($2::integer * interval '-1 day') ORDER BY p.uid LIMIT $3

-- name: drop_instance_remains
DELETE FROM sagas.instance_remains AS p WHERE p.uid = ANY($1::uuid [])

-- name: old_operations
SELECT p.id, coalesce(p.ended_at < clock_timestamp() - $2::integer * interval '1 day', false) AS is_over
FROM sagas.operations AS p
WHERE p.id > $1 AND p.id < uuidv7($2::integer * interval '-1 day') ORDER BY p.id LIMIT $3

-- name: drop_operations
DELETE FROM sagas.operations AS p WHERE p.id = ANY($1::uuid []) AND p.ended_at IS NOT NULL

-- name: horizons
SELECT h.flag, max(h.admitted_at) AS gone_until, sum(h.number)::bigint AS number
FROM sagas.horizons AS h WHERE h.environment = $1 GROUP BY h.flag ORDER BY h.flag LIMIT $2
