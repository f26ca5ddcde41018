-- name: create_token
INSERT INTO runtime.tokens (id, name, secret_hash, environment, scopes, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: live_tokens
-- How long each is good is told as seconds from now: two clocks are never compared.
SELECT id, name, secret_hash, environment, scopes,
    extract(EPOCH FROM expires_at - clock_timestamp())::float8 AS remaining_seconds
FROM runtime.tokens
WHERE id = ANY($1::text []) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- name: seconds_left
-- How long a token is good from now: null for ever, no row if it is revoked, expired or unknown.
SELECT extract(EPOCH FROM t.expires_at - clock_timestamp())::float8 AS seconds
FROM runtime.tokens AS t
WHERE t.id = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp());

-- name: revoke_token
UPDATE runtime.tokens SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1
RETURNING revoked_at;

-- name: listing
SELECT id, name, environment, scopes, created_by, created_at, expires_at, revoked_at
FROM runtime.tokens
ORDER BY created_at, id;
