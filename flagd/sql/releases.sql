-- Releases, the newest first by when they were deployed.

-- name: get_release
SELECT r.* FROM flagd.releases AS r WHERE r.environment = $1 AND r.name = $2;

-- name: take_release
-- The same, until the end of the transaction.
SELECT r.* FROM flagd.releases AS r WHERE r.environment = $1 AND r.name = $2 FOR UPDATE;

-- name: put_release
INSERT INTO flagd.releases AS r (
    environment, name, document, findings, services, flags, deployed_at, created_by, updated_by, reason
) VALUES ($1, $2, $3, $4, $5, $6, coalesce($7::timestamptz, clock_timestamp()), $8, $8, $9)
ON CONFLICT (environment, name) DO UPDATE SET
    document = excluded.document, findings = excluded.findings, services = excluded.services, flags = excluded.flags,
    deployed_at = coalesce($7::timestamptz, r.deployed_at), updated_by = excluded.updated_by, reason = excluded.reason,
    updated_at = clock_timestamp()
RETURNING r.*;

-- name: list_releases
-- Of a service, of a flag, after the release of that name.
SELECT r.* FROM flagd.releases AS r
WHERE
    r.environment = $1
    AND ($2::text IS NULL OR r.services @> ARRAY[$2::text])
    AND ($3::text IS NULL OR r.flags @> ARRAY[$3::text])
    AND ($4::text IS NULL OR (r.deployed_at, r.name) < (
        SELECT a.deployed_at, a.name FROM flagd.releases AS a WHERE a.environment = $1 AND a.name = $4
    ))
ORDER BY r.deployed_at DESC, r.name DESC
LIMIT $5;

-- name: last_of_service
SELECT r.* FROM flagd.releases AS r WHERE r.environment = $1 AND r.services @> ARRAY[$2::text]
ORDER BY r.deployed_at DESC, r.name DESC LIMIT 1;

-- name: last_of_flag
SELECT r.* FROM flagd.releases AS r WHERE r.environment = $1 AND r.flags @> ARRAY[$2::text]
ORDER BY r.deployed_at DESC, r.name DESC LIMIT 1;

-- name: release_names
SELECT r.name FROM flagd.releases AS r WHERE r.environment = $1 ORDER BY r.deployed_at DESC, r.name DESC LIMIT 10000;

-- name: unknown_flags
-- Archived ones are known: whoever served them may serve them still.
SELECT a.key
FROM unnest($2::text []) WITH ORDINALITY AS a (key, number)
WHERE NOT EXISTS (SELECT FROM flagd.flags AS f WHERE f.environment = $1 AND f.key = a.key)
ORDER BY a.number;

-- name: known_services
-- Whoever runs, is named by a flag in service, or was released.
SELECT i.service AS name FROM flagd.instances AS i WHERE i.environment = $1
UNION
SELECT s.name FROM flagd.flags AS f
CROSS JOIN LATERAL json_array_elements_text(coalesce(f.document -> 'services', '[]')) AS s (name)
WHERE f.environment = $1 AND f.archived_at IS NULL
UNION
SELECT s.name FROM flagd.releases AS r CROSS JOIN LATERAL unnest(r.services) AS s (name) WHERE r.environment = $1
ORDER BY name LIMIT 10000;

-- name: flags_of_service
-- Those in service that name it.
SELECT f.key
FROM flagd.flags AS f
WHERE
    f.environment = $1 AND f.archived_at IS NULL
    AND $2::text IN (SELECT json_array_elements_text(coalesce(f.document -> 'services', '[]')))
ORDER BY f.key LIMIT $3;

-- name: versions_of_service
-- What runs of it now, by the version that each instance told.
SELECT i.service_version AS version, count(*) AS number
FROM flagd.instances AS i
WHERE
    i.environment = $1 AND i.service = $2 AND i.signed_off_at IS NULL
    AND i.seen_at > clock_timestamp() - make_interval(secs => $3::double precision)
GROUP BY i.service_version ORDER BY i.service_version LIMIT 100;
