-- Does it add up: a second way to the set, straight over the ledger, against what was written down for each effect (P12, hazard 12).

-- name: sums
-- One statement, one snapshot. Sound when nothing is missing, nothing is extra and nothing is pending or waiting.
WITH own AS (
    SELECT f.environment, f.flag, f.scope, f.closes_epoch, f.since_at, coalesce(f.since_generation, 0) AS since_generation,
        f.since_revision
    FROM sagas.rollback_flags AS f WHERE f.rollback_id = $1
), base AS (
    -- but not what ended under another rollback before this one came to it
    SELECT DISTINCT e.id, e.environment, e.saga, e.saga_instance, e.status, e.completed_at, e.admitted_at
    FROM own AS o
    INNER JOIN sagas.effects AS e ON e.environment = o.environment AND e.flag = o.flag
    LEFT JOIN sagas.members AS m ON m.rollback_id = $1 AND m.effect_id = e.id
    LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
    WHERE e.is_off = false AND e.epoch <= o.closes_epoch
        AND (o.since_at IS NULL OR e.admitted_at >= o.since_at)
        AND (o.since_revision IS NULL OR e.revision = 0 OR e.revision_generation > o.since_generation
            OR (e.revision_generation = o.since_generation AND e.revision >= o.since_revision))
        AND NOT EXISTS (
            SELECT FROM jsonb_each(o.scope) AS s
            WHERE e.attributes -> s.key IS NOT NULL AND e.attributes -> s.key <> s.value)
        AND (m.effect_id IS NOT NULL OR d.effect_id IS NULL OR d.rollback_id = $1 OR d.state IN ('pending', 'waiting'))
), anchors AS (
    SELECT b.environment, b.saga, b.saga_instance, min(coalesce(b.completed_at, b.admitted_at)) AS after
    FROM base AS b WHERE b.status = 'succeeded' AND b.saga_instance IS NOT NULL
    GROUP BY b.environment, b.saga, b.saga_instance
), later AS (
    -- what was joined before its outcome was known stays, whatever it turned out to be
    SELECT e.id, e.environment, e.kind, e.kind_version, e.saga, e.saga_version, e.step, e.admitted_at, m.joined_at
    FROM anchors AS a
    INNER JOIN sagas.effects AS e
        ON e.environment = a.environment AND e.saga = a.saga AND e.saga_instance = a.saga_instance
    LEFT JOIN sagas.members AS m ON m.rollback_id = $1 AND m.effect_id = e.id
    LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
    WHERE e.is_off = false
        AND (m.undetermined OR e.status IN ('admitted', 'in_doubt')
            OR (e.status = 'succeeded' AND coalesce(e.completed_at, e.admitted_at) > a.after))
        AND (m.effect_id IS NOT NULL OR d.effect_id IS NULL OR d.rollback_id = $1 OR d.state IN ('pending', 'waiting'))
), steps AS MATERIALIZED (
    SELECT d.environment, d.name AS saga, d.version, s.value ->> 'name' AS step, d.created_at,
        coalesce((s.value ->> 'independent')::boolean, false) AS independent
    FROM sagas.definitions AS d
    CROSS JOIN LATERAL jsonb_array_elements(d.document -> 'steps') AS s
    WHERE NOT d.is_kind AND d.environment = (SELECT r.environment FROM sagas.rollbacks AS r WHERE r.id = $1)
), expected AS (
    SELECT b.id FROM base AS b
    UNION
    -- a definition that came only after an effect was joined does not make it independent
    SELECT l.id
    FROM later AS l
    LEFT JOIN steps AS s
        ON s.environment = l.environment AND s.saga = l.saga AND s.version = l.saga_version AND s.step = l.step
    LEFT JOIN LATERAL (
        SELECT d.created_at, (d.document ->> 'independent')::boolean AS independent
        FROM sagas.definitions AS d
        WHERE d.environment = l.environment AND d.is_kind AND d.name = l.kind AND s.step IS NULL
            AND CASE WHEN l.kind_version IS NULL THEN d.created_at <= l.admitted_at ELSE d.version = l.kind_version END
        ORDER BY d.created_at DESC, d.version DESC LIMIT 1
    ) AS k ON true
    WHERE NOT coalesce(s.independent, k.independent, false) OR l.joined_at < coalesce(s.created_at, k.created_at)
), compared AS (
    SELECT coalesce(x.id, n.effect_id) AS id, x.id IS NOT NULL AS is_expected, n.effect_id IS NOT NULL AS is_named
    FROM expected AS x
    FULL JOIN (SELECT m.effect_id FROM sagas.members AS m WHERE m.rollback_id = $1) AS n ON n.effect_id = x.id
)
SELECT
    e.kind,
    CASE
        WHEN d.effect_id IS NULL THEN 'missing'
        WHEN d.state = 'never_happened' AND e.status <> 'failed' THEN 'pending' -- it did, or may have: late news of it
        ELSE d.state
    END AS state,
    d.currency, count(*)::bigint AS number, sum(d.amount_minor) AS amount_minor,
    count(*) FILTER (WHERE NOT c.is_expected AND d.state <> 'never_happened')::bigint AS extra,
    max(d.changed_at) AS changed_at,
    (array_agg(c.id) FILTER (WHERE NOT c.is_named OR d.effect_id IS NULL)) [:1000] AS missing
FROM compared AS c
INNER JOIN sagas.effects AS e ON e.id = c.id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = c.id
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3

-- name: counts
SELECT d.kind, d.state, d.currency, count(*)::bigint AS number, sum(d.amount_minor) AS amount_minor
FROM sagas.members AS m
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id
WHERE m.rollback_id = $1
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- name: moves
-- Whether something of the set still ends by itself: time, a coordinator or a worker brings it on (docs/decisions/0033).
SELECT EXISTS (
    SELECT FROM sagas.members AS m
    INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id AND d.state = 'pending'
    LEFT JOIN sagas.compensations AS c ON c.id = d.compensation_id
    WHERE m.rollback_id = $1 AND (c.id IS NULL OR c.state = 'running' OR NOT sagas.is_behind_question(c.id)))

-- name: undone_elsewhere
-- What of the set another rollback undoes and has not ended yet.
SELECT d.effect_id, d.state
FROM sagas.members AS m
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id AND d.rollback_id <> m.rollback_id
WHERE m.rollback_id = $1 AND d.state IN ('pending', 'waiting')
ORDER BY d.effect_id LIMIT $2

-- name: stand
SELECT d.effect_id, d.state FROM sagas.dispositions AS d WHERE d.effect_id = ANY($1::uuid []) ORDER BY d.effect_id

-- name: settle
-- Not while an instance may hold records of effects that were begun without the server.
UPDATE sagas.rollbacks AS r SET
    state = 'settled', settled_at = coalesce(settled_at, clock_timestamp()),
    settled_sums = $3::jsonb || jsonb_build_object('as_of', clock_timestamp())
        -- beside what had gone by retention before it was opened again
        || coalesce((SELECT jsonb_build_object('gone', sum(g.number)) FROM sagas.gone AS g
                     WHERE g.rollback_id = r.id HAVING count(*) > 0), '{}'),
    whole_at = coalesce($4::timestamptz, drained_at)
WHERE r.id = $1 AND r.version = $2 AND r.state IN ('compensating', 'waiting', 'paused') AND NOT sagas.is_held_open(r)
RETURNING r.id

-- name: look_again
INSERT INTO sagas.late (rollback_id, effect_id) SELECT $1, n.id FROM unnest($2::uuid []) AS n (id) ON CONFLICT DO NOTHING
