-- A rollback as people see it: its row, its flags, the instances that know of it, its sums.

-- name: one
-- What stands for instances that turned back is nobody's to decide on as a whole, and not shown.
SELECT r.*, clock_timestamp() AS as_of FROM sagas.rollbacks AS r WHERE r.id = $1 AND r.carries = 'kill'

-- name: listing
SELECT r.*, clock_timestamp() AS as_of FROM sagas.rollbacks AS r
WHERE r.carries = 'kill' AND ($1::text IS NULL OR r.environment = $1)
    AND ($2::uuid IS NULL OR r.id < $2)
    AND ($3::text IS NULL OR r.state = $3)
    AND ($4::text IS NULL OR EXISTS (
        SELECT FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND f.flag = $4))
ORDER BY r.id DESC LIMIT $5

-- name: latest
SELECT r.id::text FROM sagas.rollbacks AS r WHERE r.carries = 'kill' AND ($1::text IS NULL OR r.environment = $1) ORDER BY r.id DESC LIMIT $2

-- name: flags
SELECT f.rollback_id, f.flag, f.scope, f.closes_epoch, f.since_at, f.since_generation, f.since_revision, f.closed_at,
    (SELECT max(k.lifted_at) FROM flagd.kills AS k
     WHERE k.rollback_id = f.rollback_id AND k.flag = f.flag AND k.scope = f.scope) AS lifted_at,
    h.gone_until AS history_gone_until, coalesce(h.number, 0) AS history_gone_count
FROM sagas.rollback_flags AS f
-- history that had gone by retention before the set was closed; while a rollback is open none of its flag's goes
CROSS JOIN LATERAL (
    SELECT max(x.admitted_at) AS gone_until, sum(x.number)::bigint AS number FROM sagas.horizons AS x
    WHERE x.environment = f.environment AND x.flag = f.flag AND x.first_gone_at < coalesce(f.closed_at, 'infinity')
        AND x.admitted_at >= coalesce(
            f.since_at,
            (SELECT v.committed_at FROM flagd.revisions AS v
             WHERE v.environment = f.environment AND v.generation = f.since_generation AND v.revision = f.since_revision),
            '-infinity')
) AS h
WHERE f.rollback_id = ANY($1::uuid []) ORDER BY f.flag, f.scope_key

-- name: counts
SELECT coalesce(d.kind, e.kind) AS kind, coalesce(d.state, 'pending') AS state, d.currency,
    CASE WHEN d.state = 'waiting' THEN d.reason END AS reason, count(*) AS number, sum(d.amount_minor)::bigint AS amount_minor,
    count(*) FILTER (WHERE d.amount_minor IS NULL OR d.currency IS NULL) AS without_amount
FROM sagas.members AS m
LEFT JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id
LEFT JOIN sagas.effects AS e ON e.id = m.effect_id AND d.effect_id IS NULL
WHERE m.rollback_id = $1
GROUP BY 1, 2, 3, 4
UNION ALL
-- and of those whose history has gone since
SELECT g.kind, g.state, nullif(g.currency, ''), NULL, g.number, CASE WHEN g.currency <> '' THEN g.amount_minor::bigint END,
    CASE WHEN g.currency = '' THEN g.number ELSE 0 END
FROM sagas.gone AS g WHERE g.rollback_id = $1

-- name: gone
SELECT coalesce(sum(g.number), 0)::bigint FROM sagas.gone AS g WHERE g.rollback_id = $1

-- name: continued
-- Steps that were begun under what the kill granted.
SELECT c.kind, count(*) AS number FROM sagas.continued AS c WHERE c.rollback_id = $1 GROUP BY 1 ORDER BY 1

-- name: continuing
-- Instances that go on first: what was taken of them is undone once they have ended.
SELECT d.saga, i.version, i.state, CASE WHEN i.state = 'waiting' THEN i.reason WHEN i.paused THEN 'paused' END AS reason,
    count(DISTINCT d.saga_instance) AS number
FROM sagas.dispositions AS d
INNER JOIN sagas.instances AS i ON i.environment = d.environment AND i.saga = d.saga AND i.id = d.saga_instance
WHERE d.rollback_id = $1 AND d.judge_at IS NOT NULL AND d.reason = 'continues'
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT 100

-- name: containment
-- One row per instance that was alive at the kill, with how and when it came to know. Silent for longer than $2 seconds before
-- the kill, or signed off before it, is not alive. Where every flag has a staleness limit, an instance that obeys them serves off
-- variants when the longest has run out, whatever it heard: nothing that a server says before it knows of the kill, heard up to
-- $3 seconds late, counts for longer. One in a hundred is added for its clock.
WITH kill AS (
    SELECT r.id, r.environment, r.generation, r.revision,
        (SELECT max(k.killed_at) FROM flagd.kills AS k WHERE k.rollback_id = r.id) AS killed_at,
        (SELECT CASE WHEN bool_and(f.document ->> 'max_staleness_seconds' IS NOT NULL)
            THEN max((f.document ->> 'max_staleness_seconds')::double precision) END
         FROM sagas.rollback_flags AS x
         JOIN flagd.flags AS f ON f.environment = x.environment AND f.key = x.flag
         WHERE x.rollback_id = r.id) AS limit_seconds
    FROM sagas.rollbacks AS r WHERE r.id = $1
), known AS (
    SELECT i.id, i.service, i.seen_at, i.generation, i.revision, i.signed_off_at, a.acknowledged_at, a.how, a.applied_at,
        (i.generation, i.revision) >= (k.generation, k.revision) AS reached,
        CASE WHEN i.obeys_staleness
            THEN k.killed_at + make_interval(secs => greatest(k.limit_seconds, $3) * 1.01 + $3::double precision)
        END AS stale_at
    FROM kill AS k
    JOIN flagd.instances AS i ON i.environment = k.environment
    LEFT JOIN flagd.acknowledgements AS a
        ON a.environment = k.environment AND a.generation = k.generation AND a.revision = k.revision AND a.instance_id = i.id
    WHERE i.started_at <= k.killed_at
        AND i.seen_at >= k.killed_at - make_interval(secs => $2::double precision)
        AND (i.signed_off_at IS NULL OR i.signed_off_at >= k.killed_at)
)
SELECT id, service, seen_at, generation, revision,
    CASE
        WHEN acknowledged_at IS NOT NULL THEN 'acknowledged'
        WHEN reached THEN 'acknowledged'
        WHEN signed_off_at IS NOT NULL THEN 'signed_off'
        WHEN stale_at <= clock_timestamp() THEN 'stale'
        ELSE 'unconfirmed'
    END AS state,
    coalesce(how, '') AS how, applied_at,
    CASE
        WHEN acknowledged_at IS NOT NULL THEN acknowledged_at
        WHEN reached THEN seen_at
        WHEN signed_off_at IS NOT NULL THEN signed_off_at
        WHEN stale_at <= clock_timestamp() THEN stale_at
    END AS done_at
FROM known ORDER BY service, id LIMIT $4

-- name: uncontained
SELECT id, generation, revision, fenced_at,
    (SELECT max(k.killed_at) FROM flagd.kills AS k WHERE k.rollback_id = r.id) AS killed_at
FROM sagas.rollbacks AS r
WHERE contained_at IS NULL AND fenced_at > clock_timestamp() - make_interval(secs => $1::double precision)
ORDER BY id DESC LIMIT 1000

-- name: contain
UPDATE sagas.rollbacks SET contained_at = greatest($2::timestamptz, fenced_at)
WHERE id = $1 AND contained_at IS NULL AND generation = $3 AND revision = $4
RETURNING pg_notify('rescind_rollback', id::text)

-- name: can_no_longer_act_at
-- The end of the last lease under which what waits here was tried: of these effects or compensations, or of all.
SELECT max(c.lease_until)
FROM sagas.members AS m
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id AND d.rollback_id = m.rollback_id AND d.state = 'waiting'
INNER JOIN sagas.compensations AS c ON c.id = d.compensation_id AND c.attempt > 0
WHERE m.rollback_id = $1
    AND ($2::uuid [] IS NULL OR d.effect_id = ANY($2::uuid []) OR d.compensation_id = ANY($2::uuid []))

-- name: waiting
SELECT count(*) FROM sagas.members AS m
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id AND d.rollback_id = m.rollback_id
WHERE m.rollback_id = $1 AND d.state = 'waiting'
