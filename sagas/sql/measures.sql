-- How much lies, runs and waits, for `/metrics`. Each look is bounded by its first argument: what is more is counted as that many.

-- name: queue
-- Steps that nobody has taken though they are due, and since when the oldest has been.
SELECT d.environment, d.name AS saga, sum(x.due)::bigint AS due, max(x.age)::double precision AS age_seconds
FROM sagas.definitions AS d
CROSS JOIN LATERAL (
    SELECT count(*) AS due, extract(EPOCH FROM clock_timestamp() - min(o.due_at)) AS age
    FROM (
        SELECT r.due_at FROM sagas.ready AS r
        WHERE r.environment = d.environment AND r.saga = d.name AND r.version = d.version AND r.due_at <= clock_timestamp()
        ORDER BY r.due_at LIMIT $1
    ) AS o
) AS x
WHERE NOT d.is_kind AND x.due > 0
GROUP BY d.environment, d.name

-- name: standing
-- Instances with a step in a hand, and those off the straight way that have not ended.
SELECT x.environment, x.saga, 'running' AS state, count(*) AS number
FROM (
    SELECT i.environment, i.saga FROM sagas.moving AS m
    INNER JOIN sagas.instances AS i ON i.uid = m.uid WHERE NOT i.laid LIMIT $1
) AS x GROUP BY x.environment, x.saga
UNION ALL
SELECT x.environment, x.saga, x.state, count(*)
FROM (
    SELECT t.environment, t.saga, t.state FROM unnest(ARRAY['waiting', 'undoing', 'paused', 'in_line']) AS s (state)
    CROSS JOIN LATERAL (SELECT * FROM sagas.strays AS t WHERE t.state = s.state LIMIT $1) AS t
) AS x GROUP BY x.environment, x.saga, x.state

-- name: look_ups
-- Effects in doubt whose team's look-up has not said yet what became of them, and those that it could not.
SELECT x.environment, x.saga, CASE WHEN x.given_up THEN 'look_up_exhausted' ELSE 'in_doubt' END AS state, count(*) AS number
FROM (SELECT l.environment, l.saga, l.given_up FROM sagas.look_ups AS l LIMIT $1) AS x
GROUP BY x.environment, x.saga, x.given_up

-- name: compensations
SELECT x.environment, x.kind, x.state, count(*) AS number, max(x.age)::double precision AS age_seconds
FROM (
    (SELECT c.environment, c.kind, 'due' AS state, extract(EPOCH FROM clock_timestamp() - c.due_at) AS age
     FROM sagas.compensations AS c WHERE c.state = 'due' AND c.due_at <= clock_timestamp() LIMIT $1)
    UNION ALL
    (SELECT c.environment, c.kind, 'running', NULL FROM sagas.compensations AS c WHERE c.state = 'running' LIMIT $1)
    UNION ALL
    (SELECT c.environment, c.kind, 'waiting', NULL FROM sagas.compensations AS c WHERE c.state = 'waiting' LIMIT $1)
) AS x GROUP BY x.environment, x.kind, x.state
