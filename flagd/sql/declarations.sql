-- Which live instances have declared which flags.

-- name: undeclared
-- Who keeps a flag from being turned on: of each ($2, $3) of flag and service, the live instances that have not declared it, or
-- none (a null id) where the service has no live instance. The first $5 of each flag, with the number of all.
SELECT u.* FROM (
    SELECT w.flag, w.service, i.id, coalesce(i.service_version, '') AS service_version,
        count(*) OVER (PARTITION BY w.flag) AS number,
        row_number() OVER (PARTITION BY w.flag ORDER BY w.service, i.id) AS place
    FROM unnest($2::text [], $3::text []) AS w (flag, service)
    LEFT JOIN flagd.instances AS i ON i.environment = $1 AND i.service = w.service AND i.signed_off_at IS NULL
        AND i.seen_at > clock_timestamp() - make_interval(secs => $4)
    WHERE NOT coalesce(w.flag = ANY(i.declared), false)
) AS u
WHERE u.place <= $5 ORDER BY u.flag, u.place;
