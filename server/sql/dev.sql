-- What `rescind dev` looks up in its own database.

-- name: token_is_good
SELECT EXISTS (
    SELECT FROM runtime.tokens
    WHERE id = $1 AND secret_hash = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()))
