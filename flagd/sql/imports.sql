-- What an import leaves as it is.

-- name: keys_in_service
SELECT f.key FROM flagd.flags AS f WHERE f.environment = $1 AND f.archived_at IS NULL ORDER BY f.key;
