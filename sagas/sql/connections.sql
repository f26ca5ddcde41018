-- Connections of executors.

-- name: get
SELECT document FROM sagas.connections WHERE environment = $1 AND name = $2

-- name: listing
SELECT name, document, updated_by, updated_at FROM sagas.connections WHERE environment = $1 ORDER BY name

-- name: put
INSERT INTO sagas.connections (environment, name, document, updated_by)
VALUES ($1, $2, $3, $4)
ON CONFLICT (environment, name) DO UPDATE
SET document = excluded.document, updated_by = excluded.updated_by, updated_at = clock_timestamp()
RETURNING name, document, updated_by, updated_at

-- name: delete
DELETE FROM sagas.connections WHERE environment = $1 AND name = $2 RETURNING name

-- name: chosen
SELECT name, document FROM sagas.connections WHERE environment = $1 AND name = ANY($2::text [])
