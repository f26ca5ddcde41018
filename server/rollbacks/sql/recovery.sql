-- Calls of the functions that enter and end recovery.

-- name: recover
SELECT * FROM rollbacks.recover_v1($1::text, $2::bigint, $3::bigint, $4::jsonb, $5::text)

-- name: restored
SELECT * FROM rollbacks.restored_v1($1::text, $2::bigint, $3::bigint, $4::jsonb, $5::text, $6::text)

-- name: expect_current
SELECT rollbacks.expect_current_v1($1::text, $2::bigint, $3::bigint)
