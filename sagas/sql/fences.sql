-- Fences: one row per flag, one more per scope under a standing narrowed kill.

-- name: ensure
INSERT INTO sagas.fences (environment, flag, lock_key, off_variant)
SELECT $1, wanted.flag, sagas.lock_key($1, wanted.flag), wanted.off_variant
FROM unnest($2::text [], $3::text []) AS wanted (flag, off_variant)
ORDER BY wanted.flag
ON CONFLICT (environment, flag, scope_key) DO UPDATE SET off_variant = excluded.off_variant
WHERE NOT sagas.fences.closed AND sagas.fences.off_variant <> excluded.off_variant

-- name: let_proceed
-- From the first time on, and for good: a line in a journal may be older than a change of mind.
UPDATE sagas.fences AS f SET proceeds_since = clock_timestamp()
WHERE f.environment = $1 AND f.flag = ANY($2::text []) AND f.scope_key = '' AND f.proceeds_since IS NULL
