-- What is evaluated. The statement reads its state whole: one statement, one snapshot (P1).

-- name: load_since
-- An environment with what changed in it after a revision; after (-1, -1) is everything. Whoever depends on a flag that
-- changed has changed with it; what they depend on comes `beside`.
WITH RECURSIVE changed AS (
    SELECT f.key FROM flagd.flags AS f
    WHERE f.environment = $1 AND (f.changed_generation, f.changed_revision) > ($2::bigint, $3::bigint)
        AND ($2::bigint >= 0 OR f.archived_at IS NULL)
), moved AS (
    SELECT c.key FROM changed AS c
    UNION
    SELECT p.flag FROM flagd.prerequisites AS p INNER JOIN moved AS m ON p.prerequisite = m.key WHERE p.environment = $1
), needed AS (
    SELECT m.key FROM moved AS m
    UNION
    SELECT p.prerequisite FROM flagd.prerequisites AS p INNER JOIN needed AS n ON p.flag = n.key WHERE p.environment = $1
)
SELECT e.generation, e.revision, e.bucketing, e.evaluators::text AS evaluators, e.metadata::text AS metadata,
    (
        SELECT coalesce(json_agg(json_build_object(
            'flag', f.document, 'epoch', f.epoch, 'is_archived', f.archived_at IS NOT NULL
        )), '[]')::text
        FROM flagd.flags AS f
        WHERE f.environment = e.name AND f.key = ANY(ARRAY(SELECT m.key FROM moved AS m))
            AND ($2::bigint >= 0 OR f.archived_at IS NULL)
    ) AS flags,
    (
        SELECT coalesce(json_agg(json_build_object(
            'flag', f.document, 'epoch', f.epoch, 'is_archived', f.archived_at IS NOT NULL
        )), '[]')::text
        FROM flagd.flags AS f
        WHERE f.environment = e.name AND f.key = ANY(ARRAY(SELECT n.key FROM needed AS n EXCEPT SELECT m.key FROM moved AS m))
            AND f.archived_at IS NULL
    ) AS beside,
    (
        SELECT coalesce(json_agg(json_build_object(
            'flag', k.flag, 'kill', json_build_object(
                'rollback_id', k.rollback_id, 'off_variant', k.off_variant, 'closes_epoch', k.closes_epoch,
                'revision', json_build_array(k.generation, k.revision), 'scope', k.scope)
        )), '[]')::text
        FROM flagd.kills AS k WHERE k.environment = e.name AND k.lifted_at IS NULL
    ) AS kills,
    CASE WHEN $2::bigint < 0 THEN false ELSE EXISTS (
        SELECT FROM flagd.revisions AS r, json_array_elements(r.operations) AS o
        WHERE r.environment = e.name AND (r.generation, r.revision) > ($2::bigint, $3::bigint) AND o.value ->> 'op' = 'kill'
    ) END AS is_kill
FROM flagd.environments AS e WHERE e.name = $1;
