-- Definitions of sagas and loose kinds, pinned by version.

-- name: get
SELECT environment, name, is_kind, version, document, arguments, semantics_hash, created_by, created_at
FROM sagas.definitions WHERE environment = $1 AND name = $2 AND is_kind = $3 AND version = $4

-- name: insert
INSERT INTO sagas.definitions (environment, name, is_kind, version, document, arguments, semantics_hash, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (environment, name, is_kind, version) DO NOTHING
RETURNING created_at

-- name: tune
-- Arguments are said once: who says none leaves them.
UPDATE sagas.definitions SET document = $5, arguments = CASE WHEN arguments = '{}' THEN $6 ELSE arguments END
WHERE environment = $1 AND name = $2 AND is_kind = $3 AND version = $4 AND semantics_hash = $7
    AND (arguments = '{}' OR $6 = '{}'::jsonb OR arguments = $6)
RETURNING created_at

-- name: unserved
-- Versions of a saga that no live worker serves, newest first; `has_ready`: steps of it lie ready to be taken.
SELECT d.version, EXISTS (
    SELECT FROM sagas.ready AS r WHERE r.environment = d.environment AND r.saga = d.name AND r.version = d.version
) AS has_ready
FROM sagas.definitions AS d
WHERE d.environment = $1 AND d.name = $2 AND NOT d.is_kind AND NOT EXISTS (
    SELECT FROM sagas.workers AS w
    WHERE w.environment = d.environment AND w.saga = d.name AND w.version = d.version
        AND w.seen_at > clock_timestamp() - $3::double precision * interval '1 second'
)
ORDER BY d.created_at DESC, d.version LIMIT $4

-- name: served
-- Versions of a saga that live workers serve.
SELECT DISTINCT w.version FROM sagas.workers AS w
WHERE w.environment = $1 AND w.saga = $2 AND w.seen_at > clock_timestamp() - $3::double precision * interval '1 second'
ORDER BY w.version LIMIT $4

-- name: listing
SELECT environment, name, is_kind, version, document, arguments, semantics_hash, created_by, created_at
FROM sagas.definitions
WHERE environment = $1 AND is_kind = $2 AND (name, version) > ($3::text, $4::text)
ORDER BY name, version
LIMIT $5

-- name: names
SELECT DISTINCT name FROM sagas.definitions WHERE environment = $1 AND is_kind = $2 ORDER BY name LIMIT $3

-- name: versions
SELECT version FROM sagas.definitions WHERE environment = $1 AND name = $2 AND is_kind = $3 ORDER BY created_at, version LIMIT $4
