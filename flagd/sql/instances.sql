-- Instances and what they acknowledged. Rows never go back to an older revision (P2), nor to one that was never given out: what
-- an instance claims beyond the environment's own revision is kept as far as it is proven, or else as far as a restore may have lost.

-- name: beat
-- Without a proof a claim may be $2 revisions beyond the environment's own, in its generation.
WITH beats AS (
    SELECT b.*, e.generation AS held_generation, e.revision AS held_revision
    FROM json_to_recordset($1::json) AS b (
        environment text, instance text, service text, generation bigint, revision bigint, how text,
        sdk_version text, service_version text, signing_off boolean, obeys_staleness boolean, applied_ago_ms double precision,
        declared text [], proven_generation bigint, proven_revision bigint, proceeds boolean, journal_open boolean
    ) INNER JOIN flagd.environments AS e ON e.name = b.environment
), kept AS (
    SELECT b.*, CASE
        WHEN (b.generation, b.revision) <= (b.held_generation, b.held_revision) THEN ARRAY[b.generation, b.revision]
        WHEN (b.proven_generation, b.proven_revision) > (b.held_generation, b.held_revision)
            THEN ARRAY[b.proven_generation, b.proven_revision]
        WHEN b.generation = b.held_generation AND b.revision <= b.held_revision + $2::bigint
            THEN ARRAY[b.generation, b.revision]
        ELSE ARRAY[0, 0]::bigint []
    END AS at
    FROM beats AS b
)
INSERT INTO flagd.instances AS i (
    environment, id, service, sdk_version, service_version, generation, revision, how, signed_off_at, obeys_staleness,
    applied_at, declared, proceeds, journal_open
)
SELECT b.environment, b.instance, b.service, b.sdk_version, b.service_version, b.at[1], b.at[2], b.how,
    CASE WHEN b.signing_off THEN clock_timestamp() END, coalesce(b.obeys_staleness, false),
    clock_timestamp() - make_interval(secs => b.applied_ago_ms / 1000), b.declared,
    coalesce(b.proceeds, false), coalesce(b.journal_open, false)
FROM kept AS b
ORDER BY b.environment, b.instance
ON CONFLICT (environment, id) DO UPDATE SET
    service = excluded.service, sdk_version = excluded.sdk_version, service_version = excluded.service_version,
    how = CASE
        WHEN (excluded.generation, excluded.revision) > (i.generation, i.revision) THEN excluded.how
        -- the revision is the same, but a staleness limit has run out over it, or does no longer
        WHEN (excluded.generation, excluded.revision) = (i.generation, i.revision) AND 'staleness' IN (excluded.how, i.how)
            THEN excluded.how
        ELSE i.how
    END,
    applied_at = CASE
        WHEN (excluded.generation, excluded.revision) > (i.generation, i.revision) THEN excluded.applied_at ELSE i.applied_at
    END,
    declared = coalesce(excluded.declared, i.declared),
    generation = greatest(i.generation, excluded.generation),
    revision = CASE
        WHEN excluded.generation > i.generation THEN excluded.revision
        WHEN excluded.generation < i.generation THEN i.revision
        ELSE greatest(i.revision, excluded.revision)
    END,
    seen_at = clock_timestamp(), signed_off_at = excluded.signed_off_at,
    obeys_staleness = excluded.obeys_staleness, proceeds = excluded.proceeds, journal_open = excluded.journal_open
RETURNING i.environment, i.id, cardinality(i.declared) AS declared_count;

-- name: adopted
-- Instances that are gone: a sibling has delivered what they held.
UPDATE flagd.instances AS i
SET journal_open = false, signed_off_at = coalesce(i.signed_off_at, clock_timestamp())
FROM unnest($1::text [], $2::text []) AS gone (environment, id)
WHERE i.environment = gone.environment AND i.id = gone.id;

-- name: acknowledge
-- Every standing kill that the instance has reached and not yet acknowledged. Who claims a revision that was never given out, or
-- was lost with what PostgreSQL has lost, acknowledges nothing by it.
INSERT INTO flagd.acknowledgements (environment, generation, revision, instance_id, service, how, applied_at)
SELECT DISTINCT ON (b.environment, k.generation, k.revision, b.instance)
    b.environment, k.generation, k.revision, b.instance, b.service, b.how,
    clock_timestamp() - make_interval(secs => b.applied_ago_ms / 1000)
FROM json_to_recordset($1::json) AS b (
    environment text, instance text, service text, generation bigint, revision bigint, how text, applied_ago_ms double precision
)
INNER JOIN flagd.environments AS e ON e.name = b.environment AND (b.generation, b.revision) <= (e.generation, e.revision)
INNER JOIN flagd.kills AS k ON k.environment = b.environment AND k.lifted_at IS NULL
    AND (k.generation, k.revision) <= (b.generation, b.revision)
WHERE NOT EXISTS (
    SELECT FROM flagd.acknowledgements AS a
    WHERE a.environment = b.environment AND a.generation = k.generation AND a.revision = k.revision
        AND a.instance_id = b.instance
)
ORDER BY b.environment, k.generation, k.revision, b.instance
ON CONFLICT DO NOTHING;

-- name: listing
-- Live: seen within $2 seconds and not signed off, by PostgreSQL's clock. Behind: by how many revisions, and since the first of
-- those was committed. $5 to $7 filter where they are not null: service, whether it is behind, a flag of whose services it is one.
SELECT i.id, i.service, i.sdk_version, i.service_version, i.generation, i.revision, i.how, i.started_at, i.seen_at,
    i.signed_off_at, i.applied_at, i.declared, i.journal_open,
    (i.generation, i.revision) < (e.generation, e.revision) AS behind,
    CASE
        WHEN i.generation = e.generation THEN greatest(e.revision - i.revision, 0)
        ELSE (
            SELECT count(*) FROM flagd.revisions AS r
            WHERE r.environment = i.environment AND (r.generation, r.revision) > (i.generation, i.revision)
        )
    END AS behind_count,
    extract(epoch FROM clock_timestamp() - (
        SELECT r.committed_at FROM flagd.revisions AS r
        WHERE r.environment = i.environment AND (r.generation, r.revision) > (i.generation, i.revision)
        ORDER BY r.generation, r.revision LIMIT 1
    ))::double precision AS behind_seconds,
    i.signed_off_at IS NULL AND i.seen_at > clock_timestamp() - make_interval(secs => $2) AS live
FROM flagd.instances AS i INNER JOIN flagd.environments AS e ON e.name = i.environment
WHERE i.environment = $1 AND i.id > $3
    AND ($5::text IS NULL OR i.service = $5)
    AND ($6::boolean IS NULL OR ((i.generation, i.revision) < (e.generation, e.revision)) = $6)
    AND ($7::text IS NULL OR i.service IN (
        SELECT s.service FROM flagd.flags AS f, json_array_elements_text(f.document -> 'services') AS s (service)
        WHERE f.environment = $1 AND f.key = $7
    ))
ORDER BY i.id LIMIT $4;

-- name: proof_key
SELECT e.proof_key::text FROM flagd.environments AS e WHERE e.name = $1;

-- name: forget
DELETE FROM flagd.instances WHERE NOT journal_open AND seen_at < clock_timestamp() - make_interval(secs => $1);
