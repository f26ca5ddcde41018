-- What a kill would do, quickly: it informs and never stands in the way (P19). Each statement has its own time limit.

-- name: limit_time
SELECT set_config('statement_timeout', $1::text, true)

-- name: flag
SELECT clock_timestamp() AS as_of, f.key, f.off_variant, f.epoch, f.archived_at, f.document ->> 'max_staleness_seconds' AS max_staleness_seconds,
    (SELECT jsonb_agg(jsonb_build_object('rollback_id', k.rollback_id, 'scope', k.scope, 'killed_at', k.killed_at)
        ORDER BY k.killed_at)
     FROM flagd.kills AS k
     WHERE k.environment = f.environment AND k.flag = f.key AND k.lifted_at IS NULL) AS standing
FROM flagd.flags AS f WHERE f.environment = $1 AND f.key = $2

-- name: instances
SELECT i.service, count(*) AS number,
    count(*) FILTER (WHERE i.seen_at < clock_timestamp() - make_interval(secs => $3::double precision)) AS silent
FROM flagd.instances AS i
WHERE i.environment = $1 AND i.signed_off_at IS NULL
    AND i.seen_at > clock_timestamp() - make_interval(secs => $2::double precision)
GROUP BY i.service ORDER BY i.service LIMIT 1000

-- name: effects
WITH steps AS (
    SELECT d.name, d.is_kind, d.version, s.value ->> 'name' AS step, s.value ->> 'class' AS class,
        s.value -> 'compensation' ->> 'executor' AS executor, s.value ->> 'amount' AS amount,
        s.value ->> 'currency' AS currency, s.value ->> 'currency_code' AS currency_code
    FROM sagas.definitions AS d
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN d.is_kind THEN jsonb_build_array(d.document) ELSE d.document -> 'steps' END) AS s
    WHERE d.environment = $1
)
SELECT e.kind, s.class, s.executor, s.name AS definition, s.version AS definition_version, e.status,
    coalesce(s.currency_code, e.payload ->> s.currency) AS currency,
    count(*) AS number,
    sum(CASE WHEN e.payload ->> s.amount ~ '^[0-9]{1,15}$' THEN (e.payload ->> s.amount)::bigint END)::bigint AS amount_minor
FROM sagas.effects AS e
LEFT JOIN steps AS s
    ON (NOT s.is_kind AND s.name = e.saga AND s.version = e.saga_version AND s.step = e.step)
    OR (s.is_kind AND e.saga IS NULL AND s.name = e.kind AND s.version = e.kind_version)
WHERE e.environment = $1 AND e.flag = $2 AND NOT e.is_off AND NOT e.undone AND NOT e.tombstoned AND e.status <> 'failed'
    AND ($3::timestamptz IS NULL OR e.admitted_at >= $3)
    AND ($4::bigint IS NULL OR e.revision = 0 OR (e.revision_generation, e.revision) >= ($4, $5::bigint))
    AND sagas.in_scope(e.attributes, $6::jsonb)
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2 LIMIT 1000

-- name: workers
SELECT DISTINCT w.saga, w.version FROM sagas.workers AS w
WHERE w.environment = $1 AND w.seen_at > clock_timestamp() - make_interval(secs => $2::double precision)
