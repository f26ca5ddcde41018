-- What the admission benchmark needs beside the system's own queries.

-- name: environment
INSERT INTO flagd.environments (name) VALUES ($1)

-- name: flag
INSERT INTO flagd.flags (environment, key, document, off_variant, changed_generation, changed_revision)
VALUES ($1, $2, '{}', 'off', 1, 0)

-- name: barrier
SELECT pg_advisory_xact_lock(sagas.lock_key($1, $2))

-- name: admitted
-- Effects of the epoch that the last kill closed, through the flag's index.
SELECT count(*) FROM sagas.effects AS e
INNER JOIN sagas.fences AS f ON f.environment = e.environment AND f.flag = e.flag AND f.scope_key = ''
WHERE e.environment = $1 AND e.flag = $2 AND e.id >= $3 AND e.epoch = f.epoch - 1

-- name: id_now
SELECT uuidv7(interval '-1 second')

-- name: scans
SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables
WHERE schemaname = 'sagas' AND relname IN ('keys', 'effects') ORDER BY relname
