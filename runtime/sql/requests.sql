-- name: begin_request
-- Takes the key if it is new, if whoever held it has vanished in mid-request, or if its answer is no longer kept.
-- The instant names this attempt: only its holder may finish or release it.
INSERT INTO runtime.requests AS held (token_id, idempotency_key, fingerprint)
VALUES ($1, $2, $3)
ON CONFLICT (token_id, idempotency_key) DO UPDATE
SET fingerprint = excluded.fingerprint, status = NULL, content_type = NULL, body = NULL, created_at = clock_timestamp()
WHERE
    held.created_at < clock_timestamp() - make_interval(secs => $5)
    OR (
        held.status IS NULL
        AND held.fingerprint = excluded.fingerprint
        AND held.created_at < clock_timestamp() - make_interval(secs => $4)
    )
RETURNING created_at;

-- name: held_request
SELECT fingerprint, status, content_type, body FROM runtime.requests WHERE token_id = $1 AND idempotency_key = $2;

-- name: finish_request
UPDATE runtime.requests SET status = $4, content_type = $5, body = $6
WHERE token_id = $1 AND idempotency_key = $2 AND created_at = $3;

-- name: release_request
DELETE FROM runtime.requests WHERE token_id = $1 AND idempotency_key = $2 AND created_at = $3 AND status IS NULL;

-- name: purge_requests
-- So many at a time: it holds no lock for long.
DELETE FROM runtime.requests AS r USING (
    SELECT x.token_id, x.idempotency_key FROM runtime.requests AS x
    WHERE x.created_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
) AS old
WHERE r.token_id = old.token_id AND r.idempotency_key = old.idempotency_key
RETURNING 1;
