-- Calls of the functions that kill and lift, and what their refusals need.

-- name: kill
-- A person's clock that runs ahead decides no later than the kill.
SELECT * FROM rollbacks.kill_v3(
    $1::text, $2::text [], $3::text, $4::text, $5::text, $6::text, $7::double precision, $8::jsonb,
    $9::timestamptz, $10::bigint, $11::bigint, $12::timestamptz, $13::timestamptz, least($14::timestamptz, clock_timestamp()), $15::uuid, $16::boolean,
    $17::bigint, $18::bigint, $19::jsonb)

-- name: lift
SELECT * FROM rollbacks.lift_v2($1::text, $2::text, $3::text, $4::text, $5::integer, $6::boolean)

-- name: fenced
-- The instant after the commit, which no admission of the old epoch precedes; lost in a crash it is the kill's own, a little earlier.
-- Containment may have been written before it, and is never earlier.
UPDATE sagas.rollbacks AS r SET
    fenced_at = least(s.stamp, r.closed_at),
    contained_at = CASE WHEN r.contained_at IS NOT NULL THEN greatest(r.contained_at, least(s.stamp, r.closed_at)) END
FROM (SELECT clock_timestamp() AS stamp) AS s
WHERE r.id = $1 AND r.fenced_at = $2 AND set_config('synchronous_commit', 'off', true) IS NOT NULL
RETURNING r.fenced_at

-- name: environments
SELECT name FROM flagd.environments ORDER BY name LIMIT 1000

-- name: flags
SELECT key FROM flagd.flags WHERE environment = $1 ORDER BY key LIMIT 20000
