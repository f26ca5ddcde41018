-- Paces of steps (P17): the row of a pace is the right to admit under it, so the limits hold for every server.
-- Locks: after instances, in order of kind and connection; before effects and keys.

-- name: know
INSERT INTO sagas.paces (environment, kind, connection)
SELECT p.environment, p.kind, p.connection FROM unnest($1::text [], $2::text [], $3::text []) AS p (environment, kind, connection)
ORDER BY p.environment, p.kind, p.connection ON CONFLICT DO NOTHING

-- name: hold
SELECT p.environment, p.kind, p.connection,
    coalesce(extract(EPOCH FROM clock_timestamp() - nullif(p.next_at, '-infinity')), 86400)::double precision AS idle_seconds,
    greatest(0, coalesce(extract(EPOCH FROM nullif(p.tries_at, '-infinity') - clock_timestamp()), 0))::double precision AS tries_in_seconds
FROM sagas.paces AS p
INNER JOIN unnest($1::text [], $2::text [], $3::text []) AS w (environment, kind, connection)
    ON w.environment = p.environment AND w.kind = p.kind AND w.connection = p.connection
ORDER BY p.environment, p.kind, p.connection FOR UPDATE OF p

-- name: free
-- A statement after the paces are held: slots whose attempt has ended, or whose lease has run out.
DELETE FROM sagas.slots AS s USING unnest($1::text [], $2::text [], $3::text []) AS w (environment, kind, connection)
WHERE s.environment = w.environment AND s.kind = w.kind AND s.connection = w.connection
    AND NOT EXISTS (SELECT FROM sagas.effects AS e
        WHERE e.id = s.effect_id AND e.token = s.token AND e.status = 'admitted' AND e.lease_until > clock_timestamp())

-- name: count_slots
SELECT s.environment, s.kind, s.connection, count(*)::integer AS running
FROM sagas.slots AS s
INNER JOIN unnest($1::text [], $2::text [], $3::text []) AS w (environment, kind, connection)
    ON w.environment = s.environment AND w.kind = s.kind AND w.connection = s.connection
GROUP BY 1, 2, 3

-- name: fill
INSERT INTO sagas.slots (environment, kind, connection, effect_id, token)
SELECT n.environment, n.kind, n.connection, n.effect_id, n.token
FROM unnest($1::text [], $2::text [], $3::text [], $4::uuid [], $5::uuid []) AS n (environment, kind, connection, effect_id, token)

-- name: spend
-- `cost`: how far the next moves; `deferral`: how far the next try of what was held back does.
UPDATE sagas.paces AS p SET
    next_at = CASE WHEN n.cost = 0 THEN p.next_at
        ELSE greatest(p.next_at, clock_timestamp() - $6::double precision * interval '1 second') + n.cost * interval '1 second' END,
    tries_at = CASE WHEN n.deferral = 0 THEN p.tries_at ELSE least(
        greatest(p.tries_at, clock_timestamp()) + n.deferral * interval '1 second',
        clock_timestamp() + $7::double precision * interval '1 second') END
FROM unnest($1::text [], $2::text [], $3::text [], $4::double precision [], $5::double precision [])
    AS n (environment, kind, connection, cost, deferral)
WHERE p.environment = n.environment AND p.kind = n.kind AND p.connection = n.connection
