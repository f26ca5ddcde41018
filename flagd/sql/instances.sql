-- Instances and what they acknowledged. Rows never go back to an older revision (P2).

-- name: beat
WITH beats AS (
    SELECT b.* FROM json_to_recordset($1::json) AS b (
        environment text, instance text, service text, generation bigint, revision bigint, how text,
        sdk_version text, service_version text, signing_off boolean, obeys_staleness boolean, proceeds boolean,
        journal_open boolean
    )
)
INSERT INTO flagd.instances AS i (
    environment, id, service, sdk_version, service_version, generation, revision, how, signed_off_at, obeys_staleness,
    proceeds, journal_open
)
SELECT b.environment, b.instance, b.service, b.sdk_version, b.service_version, b.generation, b.revision, b.how,
    CASE WHEN b.signing_off THEN clock_timestamp() END, coalesce(b.obeys_staleness, false),
    coalesce(b.proceeds, false), coalesce(b.journal_open, false)
FROM beats AS b INNER JOIN flagd.environments AS e ON e.name = b.environment
ORDER BY b.environment, b.instance
ON CONFLICT (environment, id) DO UPDATE SET
    service = excluded.service, sdk_version = excluded.sdk_version, service_version = excluded.service_version,
    how = CASE
        WHEN (excluded.generation, excluded.revision) > (i.generation, i.revision) THEN excluded.how ELSE i.how
    END,
    generation = greatest(i.generation, excluded.generation),
    revision = CASE
        WHEN excluded.generation > i.generation THEN excluded.revision
        WHEN excluded.generation < i.generation THEN i.revision
        ELSE greatest(i.revision, excluded.revision)
    END,
    seen_at = clock_timestamp(), signed_off_at = excluded.signed_off_at,
    obeys_staleness = excluded.obeys_staleness, proceeds = excluded.proceeds, journal_open = excluded.journal_open;

-- name: adopted
-- Instances that are gone: a sibling has delivered what they held.
UPDATE flagd.instances AS i
SET journal_open = false, signed_off_at = coalesce(i.signed_off_at, clock_timestamp())
FROM unnest($1::text [], $2::text []) AS gone (environment, id)
WHERE i.environment = gone.environment AND i.id = gone.id;

-- name: acknowledge
-- Every standing kill that the instance has reached and not yet acknowledged.
INSERT INTO flagd.acknowledgements (environment, generation, revision, instance_id, service, how)
SELECT DISTINCT b.environment, k.generation, k.revision, b.instance, b.service, b.how
FROM json_to_recordset($1::json) AS b (
    environment text, instance text, service text, generation bigint, revision bigint, how text
)
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
-- Live: seen within $2 seconds and not signed off, by PostgreSQL's clock.
SELECT i.id, i.service, i.sdk_version, i.service_version, i.generation, i.revision, i.how, i.started_at, i.seen_at,
    i.signed_off_at, i.journal_open,
    (i.generation, i.revision) < (e.generation, e.revision) AS behind,
    i.signed_off_at IS NULL AND i.seen_at > clock_timestamp() - make_interval(secs => $2) AS live
FROM flagd.instances AS i INNER JOIN flagd.environments AS e ON e.name = i.environment
WHERE i.environment = $1 AND i.id > $3 ORDER BY i.id LIMIT $4;

-- name: forget
DELETE FROM flagd.instances WHERE NOT journal_open AND seen_at < clock_timestamp() - make_interval(secs => $1);
