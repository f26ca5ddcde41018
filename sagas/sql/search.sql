-- Instances found by what they are (docs/decisions/0026). A source names the next candidates, the youngest first, by an index that no
-- update of an instance touches; `matching` says which of them are meant. Bounds: below the first instant, at or above the second.

-- name: custom_plans
-- What is asked for decides the plan; and no search goes on for ever.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('statement_timeout', $1, true)

-- name: versions
SELECT d.name AS saga, d.version FROM sagas.definitions AS d
WHERE d.environment = $1 AND NOT d.is_kind AND ($2::text IS NULL OR d.name = $2) AND ($3::text IS NULL OR d.version = $3)
    AND ($4::text IS NULL OR d.document ->> 'flag' = $4)

-- name: by_version
SELECT x.uid FROM unnest($2::text [], $3::text []) AS v (saga, version)
CROSS JOIN LATERAL (
    SELECT i.uid FROM sagas.instances AS i
    WHERE i.environment = $1 AND i.saga = v.saga AND i.version = v.version AND i.uid < $4 AND i.uid >= $5
        AND i.started_at > '-infinity' -- the index's own condition
    ORDER BY i.uid DESC LIMIT $6
) AS x
ORDER BY x.uid DESC LIMIT $6

-- name: by_subject
SELECT i.uid FROM sagas.instances AS i
WHERE i.environment = $1 AND i.subject = $2 AND i.uid < $3 AND i.uid >= $4 ORDER BY i.uid DESC LIMIT $5

-- name: by_attributes
SELECT i.uid FROM sagas.instances AS i
WHERE i.environment = $1 AND i.attributes @> $2 AND i.attributes <> '{}' AND i.uid < $3 AND i.uid >= $4
ORDER BY i.uid DESC LIMIT $5

-- name: strays
SELECT x.uid FROM unnest($2::text []) AS s (state)
CROSS JOIN LATERAL (
    SELECT t.uid FROM sagas.strays AS t
    WHERE t.environment = $1 AND t.state = s.state AND t.uid < $3 AND t.uid >= $4 ORDER BY t.uid DESC LIMIT $5
) AS x
ORDER BY x.uid DESC LIMIT $5

-- name: open
-- Whatever runs has a step that lies ready, a wait that stands or a step in a hand, or is paused, or stands in line.
SELECT u.uid FROM (
    (SELECT r.uid FROM sagas.ready AS r WHERE r.uid < $2 AND r.uid >= $3 ORDER BY r.uid DESC LIMIT $4)
    UNION
    (SELECT w.uid FROM sagas.waits AS w WHERE w.uid < $2 AND w.uid >= $3 ORDER BY w.uid DESC LIMIT $4)
    UNION
    (SELECT x.uid FROM generate_series(0, 15) AS g (range)
     CROSS JOIN LATERAL (
         SELECT m.uid FROM sagas.moving AS m WHERE m.range = g.range AND m.uid < $2 AND m.uid >= $3 ORDER BY m.uid DESC LIMIT $4
     ) AS x)
    UNION
    (SELECT t.uid FROM sagas.strays AS t
     WHERE t.environment = $1 AND t.state = 'paused' AND t.uid < $2 AND t.uid >= $3 ORDER BY t.uid DESC LIMIT $4)
    UNION
    (SELECT t.uid FROM sagas.strays AS t
     WHERE t.environment = $1 AND t.state = 'in_line' AND t.uid < $2 AND t.uid >= $3 ORDER BY t.uid DESC LIMIT $4)
) AS u
ORDER BY u.uid DESC LIMIT $4

-- name: matching
SELECT i.uid, i.environment, i.saga, i.id, i.version, i.flag, i.variant, i.subject, i.attributes, i.state, i.paused, i.reason,
    i.error ->> 'reason' AS cause, i.error ->> 'step' AS cause_step, i.error #>> '{error,type}' AS error_class,
    i.started_by, i.started_at, i.changed_at, i.ended_at, i.laid
FROM sagas.instances AS i
WHERE i.uid = ANY($1::uuid []) AND i.environment = $2
    AND ($3::text IS NULL OR i.saga = $3)
    AND ($4::text IS NULL OR i.version = $4)
    AND ($5::text IS NULL OR i.state = $5)
    AND ($6::boolean IS NULL OR i.paused = $6)
    AND ($7::text IS NULL OR i.flag = $7)
    AND ($8::text IS NULL OR i.subject = $8)
    AND ($9::jsonb IS NULL OR i.attributes @> $9)
    AND ($10::text IS NULL OR i.reason = $10 OR i.error ->> 'reason' = $10)
    AND ($11::text IS NULL OR i.error #>> '{error,type}' = $11)
    AND ($12::timestamptz IS NULL OR i.started_at >= $12)
    AND ($13::timestamptz IS NULL OR i.started_at < $13)
ORDER BY i.uid DESC

-- name: steps
-- The steps and waits of a saga, of any version.
SELECT DISTINCT x.value ->> 'name' AS name FROM sagas.definitions AS d
CROSS JOIN LATERAL (
    SELECT s.value FROM jsonb_array_elements(d.document -> 'steps') AS s
    UNION ALL
    SELECT w.value FROM jsonb_array_elements(coalesce(d.document -> 'waits', '[]')) AS w
) AS x
WHERE d.environment = $1 AND d.name = $2 AND NOT d.is_kind LIMIT 1000
