-- What became of effects in doubt, asked of the team's own look-up by its workers (P16, docs/decisions/0032).
-- Locks: effects, then look-ups.

-- name: lay
-- Once per effect and attempt, whoever asks. It is due when lease and settle delay are over: "not done" then is proof.
INSERT INTO sagas.look_ups AS l (effect_id, environment, saga, version, step, saga_instance, attempt, due_at)
SELECT e.id, e.environment, e.saga, e.saga_version, e.step, e.saga_instance, e.attempt,
    e.lease_until + n.settle_seconds * interval '1 second'
FROM unnest($1::uuid [], $2::double precision []) AS n (id, settle_seconds)
INNER JOIN sagas.effects AS e ON e.id = n.id
WHERE e.status IN ('admitted', 'in_doubt') AND e.saga IS NOT NULL AND e.saga_version IS NOT NULL AND e.step IS NOT NULL
ORDER BY e.id
ON CONFLICT (effect_id) DO UPDATE SET
    attempt = excluded.attempt, due_at = excluded.due_at, token = NULL, count = 0, said = NULL, given_up = false
WHERE l.attempt <> excluded.attempt

-- name: take
-- Like any claim: what nobody else is at. What was settled meanwhile, or begun again, is no question any more.
WITH due AS MATERIALIZED (
    SELECT l.effect_id FROM sagas.look_ups AS l
    WHERE l.environment = $1 AND l.saga = $2 AND l.version = ANY($3::text []) AND l.step = ANY($4::text [])
        AND NOT l.given_up AND l.due_at <= clock_timestamp() AND ($5::text IS NULL OR l.saga_instance = $5)
    ORDER BY l.due_at LIMIT $6 FOR UPDATE SKIP LOCKED
), asked AS MATERIALIZED (
    SELECT e.*, i.traceparent AS instance_traceparent
    FROM due AS d
    INNER JOIN sagas.look_ups AS l ON l.effect_id = d.effect_id
    INNER JOIN sagas.effects AS e ON e.id = d.effect_id AND e.attempt = l.attempt AND e.status IN ('admitted', 'in_doubt')
    LEFT JOIN sagas.instances AS i ON i.environment = e.environment AND i.saga = e.saga AND i.id = e.saga_instance
), settled AS (
    DELETE FROM sagas.look_ups AS l USING due AS d
    WHERE l.effect_id = d.effect_id AND NOT EXISTS (SELECT FROM asked AS a WHERE a.id = l.effect_id)
)
UPDATE sagas.look_ups AS l SET token = uuidv7(), due_at = clock_timestamp() + $7::double precision * interval '1 second'
FROM asked AS a WHERE l.effect_id = a.id
RETURNING a.id, l.token, l.count, a.kind, a.key, a.flag, a.variant, a.epoch, a.attributes, a.subject, a.payload, a.saga,
    a.saga_version, a.saga_instance, a.step, a.attempt, a.instance_traceparent

-- name: keep
UPDATE sagas.look_ups AS l SET due_at = clock_timestamp() + $4::double precision * interval '1 second'
FROM unnest($2::uuid [], $3::uuid []) AS n (id, token)
WHERE l.environment = $1 AND l.effect_id = n.id AND l.token = n.token AND l.due_at > clock_timestamp()
RETURNING l.effect_id

-- name: lock_effects
SELECT e.id FROM sagas.effects AS e WHERE e.id = ANY($1::uuid []) ORDER BY e.id FOR NO KEY UPDATE

-- name: held
-- Those that this very worker was asked, and whose attempt is still the one in doubt. `is_leased`: it lives after all.
SELECT l.effect_id, l.saga, l.version, l.step, l.count, e.lease_until > clock_timestamp() AS is_leased
FROM unnest($1::uuid [], $2::uuid []) AS n (id, token)
INNER JOIN sagas.look_ups AS l ON l.effect_id = n.id AND l.token = n.token
INNER JOIN sagas.effects AS e ON e.id = l.effect_id AND e.attempt = l.attempt AND e.status IN ('admitted', 'in_doubt')
ORDER BY l.effect_id FOR UPDATE OF l

-- name: found
-- It was done, and what the look-up says is its result. When it was completed stays unknown: it is placed by its admission (P14).
UPDATE sagas.effects AS e SET
    status = 'succeeded', begun = true, result = n.result::jsonb, error = NULL,
    evidence = CASE WHEN jsonb_array_length(e.evidence) >= $3 THEN e.evidence - 0 ELSE e.evidence END
        || jsonb_build_object('what', 'look_up', 'outcome', 'found', 'at', clock_timestamp())
FROM unnest($1::uuid [], $2::text []) AS n (id, result) WHERE e.id = n.id

-- name: absent
-- No attempt up to this one did it. Its key stays open: who goes forward begins it again, who undoes it closes the key.
UPDATE sagas.effects AS e SET
    status = 'failed', error = coalesce(n.error::jsonb, e.error),
    evidence = CASE WHEN jsonb_array_length(e.evidence) >= $3 THEN e.evidence - 0 ELSE e.evidence END
        || jsonb_build_object('what', 'look_up', 'outcome', 'absent', 'at', clock_timestamp())
FROM unnest($1::uuid [], $2::text []) AS n (id, error) WHERE e.id = n.id

-- name: settle
DELETE FROM sagas.look_ups AS l WHERE l.effect_id = ANY($1::uuid [])

-- name: ask_again
UPDATE sagas.look_ups AS l SET
    token = NULL, count = l.count + 1, said = n.said::jsonb, given_up = n.given_up,
    due_at = clock_timestamp() + n.in_seconds * interval '1 second'
FROM unnest($1::uuid [], $2::double precision [], $3::boolean [], $4::text []) AS n (id, in_seconds, given_up, said)
WHERE l.effect_id = n.id

-- name: note
INSERT INTO sagas.attempts (effect_id, attempt, verb, actor, started_at, ended_at, outcome, detail)
SELECT n.id, n.attempt, 'look_up', n.actor, clock_timestamp(), clock_timestamp(), n.outcome, n.detail::jsonb
FROM unnest($1::uuid [], $2::integer [], $3::text [], $4::text [], $5::text []) AS n (id, attempt, actor, outcome, detail)

-- name: stands
-- How look-ups that an undoing asks for stand; `is_served` false: it has lain there for so long, and no live worker can say.
SELECT l.effect_id, l.given_up,
    l.due_at > clock_timestamp() - $2::double precision * interval '1 second' OR EXISTS (
        SELECT FROM sagas.workers AS w
        WHERE w.environment = l.environment AND w.saga = l.saga AND w.version = l.version AND l.step = ANY(w.look_ups)
            AND w.seen_at > clock_timestamp() - $2::double precision * interval '1 second') AS is_served
FROM sagas.look_ups AS l WHERE l.effect_id = ANY($1::uuid [])

-- name: anew
-- A person said to try again: the question is put as if it never was.
UPDATE sagas.look_ups AS l SET given_up = false, count = 0, due_at = clock_timestamp(), token = NULL
WHERE l.effect_id = ANY($1::uuid []) AND l.given_up

-- name: revive
-- What waited for a person because no worker could say; now one can.
UPDATE sagas.dispositions AS d SET state = 'pending', reason = NULL, judge_at = clock_timestamp(), changed_at = clock_timestamp()
FROM sagas.look_ups AS l
WHERE l.environment = $1 AND l.saga = $2 AND l.version = ANY($3::text []) AND l.step = ANY($4::text [])
    AND d.effect_id = l.effect_id AND d.state = 'waiting' AND d.reason = 'no_worker' AND d.compensation_id IS NULL
RETURNING d.rollback_id
