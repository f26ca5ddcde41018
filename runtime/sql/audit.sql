-- name: append
INSERT INTO runtime.audit (actor, action, environment, object, reason, detail, trace_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING id;

-- name: newest
SELECT id, at, actor, action, environment, object, reason, detail, trace_id
FROM runtime.audit
WHERE
    ($1::text IS NULL OR environment = $1)
    AND ($2::text IS NULL OR object = $2)
    AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC
LIMIT $4;

-- name: limit_lock_wait
SELECT set_config('lock_timeout', $1::text, true);

-- name: make_partition
SELECT runtime.make_audit_partition_v1($1::integer);

-- name: drop_partition
SELECT runtime.drop_audit_partition_v1($1::integer);

-- name: rest_holds
-- Whether entries lie where no partition was made for them.
SELECT EXISTS (SELECT FROM runtime.audit_rest);
