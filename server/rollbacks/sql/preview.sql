-- What a kill would do, quickly: it informs and never stands in the way (P19). Each statement has its own time limit.

-- name: limit_time
SELECT set_config('statement_timeout', $1::text, true)

-- name: flag
SELECT clock_timestamp() AS as_of, f.key, f.off_variant, f.epoch, f.archived_at, f.document ->> 'max_staleness_seconds' AS max_staleness_seconds,
    EXISTS (SELECT FROM sagas.fences AS x WHERE x.environment = f.environment AND x.flag = f.key AND x.scope_key = ''
        AND x.proceeds_since IS NOT NULL) AS proceeds,
    (SELECT jsonb_agg(jsonb_build_object('rollback_id', k.rollback_id, 'scope', k.scope, 'killed_at', k.killed_at)
        ORDER BY k.killed_at)
     FROM flagd.kills AS k
     WHERE k.environment = f.environment AND k.flag = f.key AND k.lifted_at IS NULL) AS standing
FROM flagd.flags AS f WHERE f.environment = $1 AND f.key = $2

-- name: horizon
-- History that a kill of this flag would have named, since an instant or a revision, and that has gone by retention.
SELECT max(h.admitted_at) AS gone_until, coalesce(sum(h.number), 0)::bigint AS number
FROM sagas.horizons AS h
WHERE h.environment = $1 AND h.flag = $2 AND h.admitted_at >= coalesce(
    $3::timestamptz,
    (SELECT v.committed_at FROM flagd.revisions AS v WHERE v.environment = $1 AND v.generation = $4::bigint AND v.revision = $5::bigint),
    '-infinity')

-- name: instances
SELECT i.service, count(*) AS number,
    count(*) FILTER (WHERE i.seen_at < clock_timestamp() - make_interval(secs => $3::double precision)) AS silent
FROM flagd.instances AS i
WHERE i.environment = $1 AND i.signed_off_at IS NULL
    AND i.seen_at > clock_timestamp() - make_interval(secs => $2::double precision)
GROUP BY i.service ORDER BY i.service LIMIT 1000

-- name: continues
-- Instances that a kill of everyone would let go on by name, of each version (docs/decisions/0029).
SELECT d.name AS saga, d.version, coalesce(d.document ->> 'on_kill', '') <> 'finish_then_compensate' AS past_pivot, count(*) AS number
FROM sagas.definitions AS d
LEFT JOIN LATERAL (
    SELECT s.value ->> 'name' AS step FROM jsonb_array_elements(d.document -> 'steps') AS s
    WHERE s.value ->> 'class' = 'pivot' LIMIT 1
) AS p ON true
INNER JOIN sagas.instances AS i ON i.environment = d.environment AND i.saga = d.name AND i.version = d.version
WHERE d.environment = $1 AND NOT d.is_kind AND d.document ->> 'flag' = $2
    AND (d.document ->> 'on_kill' = 'finish_then_compensate' OR p.step IS NOT NULL)
    AND i.state IN ('running', 'waiting') AND NOT i.is_off AND sagas.in_scope(i.attributes, $3::jsonb)
    AND EXISTS (
        SELECT FROM sagas.effects AS e
        WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id AND e.saga_instance IS NOT NULL
            AND NOT e.is_off
            AND (d.document ->> 'on_kill' = 'finish_then_compensate' OR (e.step = p.step AND e.status = 'succeeded')))
GROUP BY 1, 2, 3 ORDER BY 1, 2 LIMIT 100

-- name: effects
-- By the catalogue's rule (P15): the saga's step in that version; a loose effect, and one whose saga has no such step, by its kind
-- in the version it names, or else in the one that was in force when it was admitted.
WITH rules AS MATERIALIZED (
    SELECT d.name, d.is_kind, d.version, s.value ->> 'name' AS step, s.value ->> 'class' AS class,
        s.value -> 'compensation' ->> 'executor' AS executor, s.value ->> 'amount' AS amount,
        s.value ->> 'currency' AS currency, s.value ->> 'currency_code' AS currency_code, d.created_at,
        lead(d.created_at) OVER (PARTITION BY d.name, d.is_kind, s.value ->> 'name' ORDER BY d.created_at, d.version) AS replaced_at
    FROM sagas.definitions AS d
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN d.is_kind THEN jsonb_build_array(d.document) ELSE d.document -> 'steps' END) AS s
    WHERE d.environment = $1
), ruled AS (
    SELECT e.kind, e.status, e.proceeded_at, e.payload, coalesce(s.class, k.class) AS class, coalesce(s.executor, k.executor) AS executor,
        coalesce(s.name, k.name) AS definition, coalesce(s.is_kind, k.is_kind) AS definition_is_kind,
        coalesce(s.version, k.version) AS definition_version, s.step, coalesce(s.amount, k.amount) AS amount,
        coalesce(s.currency, k.currency) AS currency, coalesce(s.currency_code, k.currency_code) AS currency_code
    FROM sagas.effects AS e
    LEFT JOIN rules AS s ON NOT s.is_kind AND s.name = e.saga AND s.version = e.saga_version AND s.step = e.step
    LEFT JOIN rules AS k ON s.name IS NULL AND k.is_kind AND k.name = e.kind AND CASE
        WHEN e.kind_version IS NOT NULL THEN k.version = e.kind_version
        ELSE k.created_at <= e.admitted_at AND (k.replaced_at IS NULL OR e.admitted_at < k.replaced_at) END
    WHERE e.environment = $1 AND e.flag = $2 AND NOT e.is_off AND NOT e.undone AND NOT e.tombstoned AND e.status <> 'failed'
        AND ($3::timestamptz IS NULL OR e.admitted_at >= $3)
        AND ($4::bigint IS NULL OR e.revision = 0 OR (e.revision_generation, e.revision) >= ($4, $5::bigint))
        AND sagas.in_scope(e.attributes, $6::jsonb)
)
SELECT r.kind, r.class, r.executor, r.definition, r.definition_is_kind, r.definition_version, r.step, r.status,
    coalesce(r.currency_code, r.payload ->> r.currency) AS currency,
    count(*) AS number, count(r.proceeded_at) AS proceeded,
    sum(CASE WHEN r.payload ->> r.amount ~ '^[0-9]{1,15}$' THEN (r.payload ->> r.amount)::bigint END)::bigint AS amount_minor
FROM ruled AS r
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 1, 4, 6, 7, 8 LIMIT 1000

-- name: workers
SELECT DISTINCT w.saga, w.version, s.step
FROM sagas.workers AS w
CROSS JOIN LATERAL unnest(w.steps) AS s (step)
WHERE w.environment = $1 AND w.seen_at > clock_timestamp() - make_interval(secs => $2::double precision)
