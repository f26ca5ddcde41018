-- Lines: instances of one subject, one after another (docs/decisions/0032). Every change is under the lock of the line's stripe, so
-- that whoever comes sees who is there, and whoever goes sees who came.

-- name: enter
-- At the end of their lines, in the order given; who finds nobody there leads.
INSERT INTO sagas.lines (environment, line, subject, position, uid, stripe, leads)
SELECT n.environment, n.line, n.subject, n.number + coalesce(x.last, 0), n.uid, n.stripe, n.number = 1 AND x.last IS NULL
FROM (
    SELECT u.*, row_number() OVER (PARTITION BY u.environment, u.line, u.subject ORDER BY u.ordinality) AS number
    FROM unnest($1::text [], $2::text [], $3::text [], $4::uuid [], $5::smallint []) WITH ORDINALITY
        AS u (environment, line, subject, uid, stripe, ordinality)
) AS n
CROSS JOIN LATERAL (
    SELECT max(l.position) AS last FROM sagas.lines AS l
    WHERE l.environment = n.environment AND l.line = n.line AND l.subject = n.subject
) AS x
RETURNING uid, leads

-- name: leave
-- Out of the line; where nobody is left who leads, the first does, and is looked at even if this process dies now.
WITH gone AS (
    DELETE FROM sagas.lines AS l WHERE l.uid = ANY($1::uuid []) RETURNING l.environment, l.line, l.subject
), next AS (
    SELECT x.uid
    FROM (SELECT DISTINCT g.environment, g.line, g.subject FROM gone AS g) AS g
    CROSS JOIN LATERAL (
        SELECT l.uid FROM sagas.lines AS l
        WHERE l.environment = g.environment AND l.line = g.line AND l.subject = g.subject AND l.uid <> ALL($1::uuid [])
        ORDER BY l.position LIMIT 1
    ) AS x
    WHERE NOT EXISTS (
        SELECT FROM sagas.lines AS h
        WHERE h.environment = g.environment AND h.line = g.line AND h.subject = g.subject AND h.uid <> ALL($1::uuid [])
            AND h.leads)
), watched AS (
    INSERT INTO sagas.moving (range, uid) SELECT sagas.lease_range(n.uid), n.uid FROM next AS n ON CONFLICT DO NOTHING
)
UPDATE sagas.lines AS l SET leads = true FROM next AS n WHERE l.uid = n.uid RETURNING l.uid

-- name: overtake
UPDATE sagas.lines AS l SET leads = true WHERE l.uid = $1 AND NOT l.leads RETURNING l.uid

-- name: stand_in_line
INSERT INTO sagas.strays (environment, state, uid, saga)
SELECT i.environment, 'in_line', i.uid, i.saga FROM sagas.instances AS i WHERE i.uid = ANY($1::uuid []) ON CONFLICT DO NOTHING

-- name: stand_free
DELETE FROM sagas.strays AS t USING sagas.instances AS i
WHERE i.uid = ANY($1::uuid []) AND t.environment = i.environment AND t.state = 'in_line' AND t.uid = i.uid

-- name: stripes
SELECT DISTINCT l.stripe FROM sagas.lines AS l WHERE l.uid = ANY($1::uuid [])

-- name: ahead
-- Whom one comes after, and how many they are: who leads, then who is before it.
SELECT i.saga, i.id, i.state, i.paused, i.reason, l.leads, count(*) OVER () AS number
FROM sagas.lines AS m
INNER JOIN sagas.lines AS l
    ON l.environment = m.environment AND l.line = m.line AND l.subject = m.subject AND l.uid <> m.uid
    AND (l.leads OR l.position < m.position)
INNER JOIN sagas.instances AS i ON i.uid = l.uid
WHERE m.uid = $1 AND NOT m.leads ORDER BY l.leads DESC, l.position LIMIT $2

-- name: forgotten
-- Who leads and was not taken on: whoever passed the lead on is gone.
SELECT m.range, m.uid FROM sagas.moving AS m
INNER JOIN sagas.instances AS i ON i.uid = m.uid AND i.state = 'running' AND i.reason = 'in_line'
INNER JOIN sagas.lines AS l ON l.uid = m.uid AND l.leads
WHERE m.range = ANY($1::smallint []) LIMIT $2

-- name: decided
-- Killed ones in a line of whose effects nothing is left to be undone or decided, as far as any kill asks for it.
SELECT m.range, m.uid FROM sagas.moving AS m
INNER JOIN sagas.instances AS i ON i.uid = m.uid AND i.state = 'killed'
INNER JOIN sagas.lines AS l ON l.uid = m.uid
WHERE m.range = ANY($1::smallint []) AND NOT EXISTS (
    SELECT FROM sagas.effects AS e
    LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
    WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id AND NOT e.is_off
        AND coalesce(d.state IN ('pending', 'waiting'), e.status <> 'failed' AND EXISTS (
            SELECT FROM sagas.rollback_flags AS f
            INNER JOIN sagas.rollbacks AS r ON r.id = f.rollback_id AND r.state <> 'settled' AND r.outcome IS NULL
            WHERE f.environment = e.environment AND f.flag = e.flag AND sagas.is_named(f, e))))
LIMIT $2
