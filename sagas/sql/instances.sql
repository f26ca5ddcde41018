-- Saga instances: what is read and written as they begin, go on and end (docs/decisions/0024).
-- Locks: the flags' advisory locks, then new instances by id, instances by uid, effects and keys.

-- name: due
-- Steps that a worker may take, the oldest first. Not locked: who takes one locks its instance and looks again.
SELECT r.uid, r.step FROM sagas.ready AS r
WHERE r.environment = $1 AND r.saga = $2 AND r.version = ANY($3::text []) AND r.due_at <= clock_timestamp()
    AND r.step = ANY($4::text []) AND (r.run_by IS NULL OR r.run_by = $5)
    AND ($6::text IS NULL OR r.uid = (
        SELECT i.uid FROM sagas.instances AS i WHERE i.environment = $1 AND i.saga = $2 AND i.id = $6))
ORDER BY r.due_at, r.uid LIMIT $7

-- name: places
-- Which flags' locks the report of a step takes, and whose step it is.
SELECT e.id, e.environment, e.saga, e.kind, i.uid, e.flag, sagas.lock_key(e.environment, e.flag) AS lock_key, s.flag AS sibling_flag,
    sagas.lock_key(e.environment, s.flag) AS sibling_lock_key, l.stripe
FROM unnest($1::uuid []) AS asked (id)
INNER JOIN sagas.effects AS e ON e.id = asked.id
LEFT JOIN sagas.instances AS i ON i.environment = e.environment AND i.saga = e.saga AND i.id = e.saga_instance
LEFT JOIN sagas.lines AS l ON l.uid = i.uid
LEFT JOIN sagas.effects AS s
    ON s.environment = e.environment AND s.saga = e.saga AND s.saga_instance = e.saga_instance AND s.flag <> e.flag

-- name: flags
-- The flags of instances and of what else was done under them, and the lock of the line that they stand in.
SELECT i.uid, i.environment, i.flag, sagas.lock_key(i.environment, i.flag) AS lock_key, l.stripe, i.state, i.saga, i.version, i.subject
FROM sagas.instances AS i
LEFT JOIN sagas.lines AS l ON l.uid = i.uid
WHERE i.uid = ANY($1::uuid [])
UNION
SELECT i.uid, e.environment, e.flag, sagas.lock_key(e.environment, e.flag), NULL, NULL, NULL, NULL, NULL
FROM sagas.instances AS i
INNER JOIN sagas.effects AS e ON e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id
WHERE i.uid = ANY($1::uuid [])

-- name: insert
-- Those whose id is taken get no row back, nor those of which only that they ended is known any more.
INSERT INTO sagas.instances (
    uid, environment, saga, id, version, flag, variant, is_off, revision_generation, revision, subject, attributes, input,
    input_hash, run_by, lease_seconds, traceparent, started_by)
SELECT
    n.uid, n.environment, n.saga, n.id, n.version, n.flag, n.variant, n.is_off, n.revision_generation, n.revision, n.subject,
    n.attributes::jsonb, n.input::jsonb, n.input_hash, n.run_by, n.lease_seconds, n.traceparent, n.started_by
FROM unnest(
    $1::uuid [], $2::text [], $3::text [], $4::text [], $5::text [], $6::text [], $7::text [], $8::boolean [], $9::bigint [],
    $10::bigint [], $11::text [], $12::text [], $13::text [], $14::bytea [], $15::text [], $16::double precision [],
    $17::text [], $18::text []
) AS n (
    uid, environment, saga, id, version, flag, variant, is_off, revision_generation, revision, subject, attributes, input,
    input_hash, run_by, lease_seconds, traceparent, started_by)
WHERE NOT EXISTS (
    SELECT FROM sagas.instance_remains AS m WHERE m.environment = n.environment AND m.saga = n.saga AND m.id = n.id)
ORDER BY n.environment, n.saga, n.id
ON CONFLICT (environment, saga, id) DO NOTHING
RETURNING uid

-- name: standing_ids
SELECT i.environment, i.saga, i.id, i.uid, i.state, i.input_hash
FROM unnest($1::text [], $2::text [], $3::text []) AS n (environment, saga, id)
INNER JOIN sagas.instances AS i ON i.environment = n.environment AND i.saga = n.saga AND i.id = n.id
UNION ALL
SELECT m.environment, m.saga, m.id, m.uid, m.state, m.input_hash
FROM unnest($1::text [], $2::text [], $3::text []) AS n (environment, saga, id)
INNER JOIN sagas.instance_remains AS m ON m.environment = n.environment AND m.saga = n.saga AND m.id = n.id

-- name: lock
SELECT i.uid, i.environment, i.saga, i.id, i.version, i.flag, i.variant, i.is_off, i.revision_generation, i.revision, i.subject,
    i.attributes, i.input, i.run_by, i.lease_seconds, i.traceparent, i.state, i.paused, i.turned_back, i.laid, i.reason, i.error
FROM sagas.instances AS i WHERE i.uid = ANY($1::uuid []) ORDER BY i.uid FOR NO KEY UPDATE

-- name: lock_free
-- Of what lies ready, only what nobody else is at.
SELECT i.uid, i.environment, i.saga, i.id, i.version, i.flag, i.variant, i.is_off, i.revision_generation, i.revision, i.subject,
    i.attributes, i.input, i.run_by, i.lease_seconds, i.traceparent, i.state, i.paused, i.turned_back, i.laid, i.reason, i.error
FROM sagas.instances AS i WHERE i.uid = ANY($1::uuid []) ORDER BY i.uid FOR NO KEY UPDATE SKIP LOCKED

-- name: take
-- What lay ready and is due is in the caller's hands; in the same transaction it is begun, or laid there again.
DELETE FROM sagas.ready AS r USING unnest($1::uuid [], $2::text []) AS n (uid, step)
WHERE r.uid = n.uid AND r.step = n.step AND r.due_at <= clock_timestamp()
RETURNING r.uid, r.step

-- name: hurry
-- A person does not wait for a retry's delay.
DELETE FROM sagas.ready AS r WHERE r.uid = $1 RETURNING r.uid, r.step

-- name: known
-- Per effect done under these instances, and at least once each: what was said of the instance (of events of one name what the first
-- brought), and the effect. How long ago a step
-- was first begun: by its id where it was begun again, which carries a server's clock, else by PostgreSQL's.
WITH said AS MATERIALIZED (
    SELECT n.*,
        (SELECT jsonb_agg(jsonb_build_array(f.fact, f.name, CASE WHEN f.fact = 'retry' THEN f.detail -> 'attempts'
                WHEN f.fact = 'event' AND f.nth = 1 THEN f.detail -> 'payload' END) ORDER BY f.id)
         FROM (SELECT x.*, row_number() OVER (PARTITION BY x.fact, x.name ORDER BY x.id) AS nth FROM sagas.facts AS x
            WHERE x.uid = n.uid) AS f) AS facts,
        (SELECT array_agg(w.name) FROM sagas.waits AS w WHERE w.uid = n.uid) AS waits,
        (SELECT array_agg(r.step) FROM sagas.ready AS r WHERE r.uid = n.uid) AS queued,
        (SELECT l.leads FROM sagas.lines AS l WHERE l.uid = n.uid) AS leads,
        EXISTS (SELECT FROM sagas.moving AS m WHERE m.range = sagas.lease_range(n.uid) AND m.uid = n.uid) AS is_watched
    FROM unnest($1::uuid [], $2::text [], $3::text [], $4::text []) AS n (uid, environment, saga, id)
)
SELECT n.uid, n.facts, n.waits, n.queued, n.is_watched, n.leads,
    e.id, e.step, e.kind, e.key, e.flag, e.epoch, e.attributes, e.is_off, e.status, e.attempt, e.generation,
    e.tombstoned, e.result, e.error, e.lease_until > clock_timestamp() AS is_leased,
    extract(EPOCH FROM clock_timestamp()
        - CASE WHEN e.attempt > 1 THEN uuid_extract_timestamp(e.id) ELSE e.admitted_at END)::double precision AS since_first_seconds,
    e.admitted_at, e.completed_at, e.revision_generation, e.revision, d.state AS disposition, d.reason AS disposition_reason,
    r.carries, d.rollback_id, k.given_up AS look_up_given_up
FROM said AS n
LEFT JOIN sagas.effects AS e
    ON e.environment = n.environment AND e.saga = n.saga AND e.saga_instance = n.id AND e.saga_instance IS NOT NULL
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
LEFT JOIN sagas.rollbacks AS r ON r.id = d.rollback_id
LEFT JOIN sagas.look_ups AS k ON k.effect_id = e.id AND k.attempt = e.attempt
ORDER BY e.generation, e.id

-- name: queue
INSERT INTO sagas.ready (environment, saga, version, due_at, uid, step, run_by)
SELECT n.environment, n.saga, n.version, clock_timestamp() + n.in_seconds * interval '1 second', n.uid, n.step, n.run_by
FROM unnest($1::text [], $2::text [], $3::text [], $4::double precision [], $5::uuid [], $6::text [], $7::text [])
    AS n (environment, saga, version, in_seconds, uid, step, run_by)
ON CONFLICT DO NOTHING

-- name: ring
SELECT pg_notify('rescind_ready', '')

-- name: stand
INSERT INTO sagas.waits (range, at, uid, name)
SELECT sagas.lease_range(n.uid), coalesce(clock_timestamp() + n.in_seconds * interval '1 second', 'infinity'), n.uid, n.name
FROM unnest($1::uuid [], $2::text [], $3::double precision []) AS n (uid, name, in_seconds)
ON CONFLICT DO NOTHING

-- name: end_waits
-- By the clock: one that ended otherwise meanwhile is not there any more.
DELETE FROM sagas.waits AS w USING unnest($1::uuid [], $2::text []) AS n (uid, name)
WHERE w.uid = n.uid AND w.name = n.name AND w.at <= clock_timestamp()
RETURNING w.uid, w.name

-- name: close_wait
DELETE FROM sagas.waits AS w WHERE w.uid = $1 AND w.name = $2

-- name: say
INSERT INTO sagas.facts (uid, fact, name, detail, by_whom, reason)
SELECT n.uid, n.fact, n.name, n.detail::jsonb, n.by_whom, n.reason
FROM unnest($1::uuid [], $2::text [], $3::text [], $4::text [], $5::text [], $6::text [])
    AS n (uid, fact, name, detail, by_whom, reason)

-- name: clear
-- Nothing lies ready of what goes forward no more, and nothing waits but what is named.
WITH unqueued AS (
    DELETE FROM sagas.ready AS r WHERE r.uid = ANY($1::uuid [])
)
DELETE FROM sagas.waits AS w WHERE w.uid = ANY($1::uuid [])
    AND NOT EXISTS (SELECT FROM unnest($2::uuid [], $3::text []) AS k (uid, name) WHERE k.uid = w.uid AND k.name = w.name)

-- name: let_go
DELETE FROM sagas.stopped AS s WHERE s.uid = ANY($1::uuid [])

-- name: stop
-- To be looked at again once one of these flags is open under a later epoch.
INSERT INTO sagas.stopped (range, environment, flag, epoch, uid)
SELECT sagas.lease_range(n.uid), n.environment, n.flag, n.epoch, n.uid
FROM unnest($1::uuid [], $2::text [], $3::text [], $4::bigint []) AS n (uid, environment, flag, epoch)
ORDER BY n.uid, n.flag
ON CONFLICT DO NOTHING

-- name: lifted
-- Instances of these ranges that a kill stopped and whose flag is open again: from one flag to the next by the key, however many each has.
SELECT x.range, x.uid, x.flag
FROM unnest($1::smallint []) AS h (range)
CROSS JOIN LATERAL (
    WITH RECURSIVE places AS (
        (SELECT s.environment, s.flag FROM sagas.stopped AS s WHERE s.range = h.range ORDER BY s.environment, s.flag LIMIT 1)
        UNION ALL
        SELECT n.environment, n.flag
        FROM places AS p
        CROSS JOIN LATERAL (
            SELECT s.environment, s.flag FROM sagas.stopped AS s
            WHERE s.range = h.range AND (s.environment, s.flag) > (p.environment, p.flag)
            ORDER BY s.environment, s.flag LIMIT 1
        ) AS n
    )
    SELECT h.range, y.uid, p.flag
    FROM places AS p
    INNER JOIN sagas.fences AS f ON f.environment = p.environment AND f.flag = p.flag AND f.scope_key = '' AND NOT f.closed
    CROSS JOIN LATERAL (
        SELECT s.uid FROM sagas.stopped AS s
        WHERE s.range = h.range AND s.environment = p.environment AND s.flag = p.flag AND s.epoch < f.epoch
        ORDER BY s.epoch, s.uid LIMIT $2
    ) AS y
    LIMIT $2
) AS x
LIMIT $2

-- name: grants
-- What kills of these flags grant, as long as their rollbacks are not done.
SELECT g.rollback_id, g.environment, g.flag, g.closes_epoch, g.saga, g.version, g.pivot, g.granted_at
FROM unnest($1::text [], $2::text []) AS n (environment, flag)
INNER JOIN sagas.grants AS g ON g.environment = n.environment AND g.flag = n.flag
INNER JOIN sagas.rollbacks AS r ON r.id = g.rollback_id
WHERE r.state <> 'settled' OR r.outcome = 'not_compensated'

-- name: continue
INSERT INTO sagas.continued (rollback_id, effect_id, kind)
SELECT n.rollback_id, n.effect_id, n.kind FROM unnest($1::uuid [], $2::uuid [], $3::text []) AS n (rollback_id, effect_id, kind)
ORDER BY n.rollback_id, n.effect_id
ON CONFLICT DO NOTHING

-- name: openings
SELECT o.environment, o.flag, o.epoch, o.generation, o.revision, o.by_whom, o.reason
FROM unnest($1::text [], $2::text [], $3::bigint []) AS n (environment, flag, epoch)
INNER JOIN sagas.openings AS o ON o.environment = n.environment AND o.flag = n.flag AND o.epoch = n.epoch
ORDER BY o.at

-- name: watch
INSERT INTO sagas.moving (range, uid) SELECT sagas.lease_range(u.uid), u.uid FROM unnest($1::uuid []) AS u (uid)
ON CONFLICT DO NOTHING

-- name: unwatch
DELETE FROM sagas.moving AS m USING unnest($1::uuid []) AS u (uid) WHERE m.range = sagas.lease_range(u.uid) AND m.uid = u.uid

-- name: change
-- Who leaves the straight way, or comes back to it, is named in `strays`, or no more. A pause ends where nothing begins any more.
WITH changed AS (
    UPDATE sagas.instances AS i SET paused = i.paused AND NOT n.turned_back AND n.state <> 'done',
        state = n.state, reason = n.reason, error = n.error::jsonb, result = n.result::jsonb, turned_back = n.turned_back,
        laid = n.laid, run_by = CASE WHEN n.taken_over THEN NULL ELSE i.run_by END, changed_at = clock_timestamp(),
        ended_at = CASE WHEN n.state IN ('done', 'undone', 'killed') THEN clock_timestamp() END
    FROM unnest($1::uuid [], $2::text [], $3::text [], $4::text [], $5::text [], $6::boolean [], $7::boolean [], $8::boolean [])
        AS n (uid, state, reason, error, result, turned_back, laid, taken_over)
    WHERE i.uid = n.uid
    RETURNING i.environment, i.uid, i.saga, old.state AS was, new.state AS stands, old.paused AND NOT new.paused AS resumed
), gone AS (
    DELETE FROM sagas.strays AS t USING changed AS c
    WHERE t.environment = c.environment AND t.state = c.was AND t.uid = c.uid AND c.was <> c.stands
), resumed AS (
    DELETE FROM sagas.strays AS t USING changed AS c
    WHERE t.environment = c.environment AND t.state = 'paused' AND t.uid = c.uid AND c.resumed
)
INSERT INTO sagas.strays (environment, state, uid, saga)
SELECT c.environment, c.stands, c.uid, c.saga FROM changed AS c WHERE c.was <> c.stands AND c.stands NOT IN ('running', 'done')
ON CONFLICT DO NOTHING

-- name: pause
WITH changed AS (
    UPDATE sagas.instances AS i SET paused = $2, changed_at = clock_timestamp() WHERE i.uid = $1 AND i.paused <> $2
    RETURNING i.environment, i.uid, i.saga, i.paused
), gone AS (
    DELETE FROM sagas.strays AS t USING changed AS c
    WHERE t.environment = c.environment AND t.state = 'paused' AND t.uid = c.uid AND NOT c.paused
), come AS (
    INSERT INTO sagas.strays (environment, state, uid, saga)
    SELECT c.environment, 'paused', c.uid, c.saga FROM changed AS c WHERE c.paused ON CONFLICT DO NOTHING
)
SELECT c.uid FROM changed AS c

-- name: standing
SELECT n.environment, n.range, r.id, r.state
FROM unnest($1::text [], $2::integer []) AS n (environment, range)
INNER JOIN sagas.rollbacks AS r
    ON r.environment = n.environment AND sagas.lease_range(r.id) = n.range AND r.carries = 'instances'

-- name: raise_standing
-- Closed, drained and enumerated from its first moment: it has no flags, and its set is what is joined to it.
INSERT INTO sagas.rollbacks (
    id, environment, state, generation, revision, compensate, reason, actor, carries, closed_at, contained_at, drained_at,
    enumerated_at)
SELECT c.id, $1, 'compensating', 0, 0, 'auto', 'a saga turned back', 'rescind', 'instances', clock_timestamp(),
    clock_timestamp(), clock_timestamp(), clock_timestamp()
FROM (SELECT uuidv7() AS id FROM generate_series(1, 1000)) AS c
WHERE sagas.lease_range(c.id) = $2
LIMIT 1
ON CONFLICT (environment, sagas.lease_range(id)) WHERE carries = 'instances' DO NOTHING

-- name: to_undo
-- Everything done under these instances that has not ended, as the enumeration of a kill reads it; `number` says whose it is.
SELECT
    n.number, e.id, e.environment, e.kind, e.key, e.kind_version, e.flag, e.status, e.saga, e.saga_version, e.saga_instance, e.step,
    e.subject, e.payload, e.result, e.admitted_at, e.completed_at, d.rollback_id AS owner, d.state AS disposition,
    d.compensation_id, d.judge_count, d.by_whom AS decided_by, d.reason,
    extract(EPOCH FROM e.lease_until - clock_timestamp())::double precision AS lease_left_seconds, false AS continues
FROM unnest($1::text [], $2::text [], $3::text []) WITH ORDINALITY AS n (environment, saga, id, number)
INNER JOIN sagas.effects AS e ON e.environment = n.environment AND e.saga = n.saga AND e.saga_instance = n.id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.saga_instance IS NOT NULL AND (d.effect_id IS NULL OR d.state IN ('pending', 'waiting'))
ORDER BY e.id

-- name: reopen_standing
-- An older server may have taken a standing rollback for one that has settled.
UPDATE sagas.rollbacks AS r SET state = 'compensating', version = r.version + 1 WHERE r.id = ANY($1::uuid []) AND r.state = 'settled'

-- name: ring_drives
SELECT pg_notify('rescind_rollback', n.id::text) FROM unnest($1::uuid []) AS n (id)

-- name: held
SELECT e.id FROM unnest($2::uuid [], $3::uuid []) AS n (id, token)
INNER JOIN sagas.effects AS e ON e.id = n.id AND e.token = n.token
WHERE e.environment = $1 AND e.status = 'admitted' AND e.lease_until > clock_timestamp()

-- name: states
SELECT i.id, i.state, i.result, i.reason, i.error FROM sagas.instances AS i
WHERE i.environment = $1 AND i.saga = $2 AND i.id = ANY($3::text [])
UNION ALL
SELECT m.id, m.state, m.result, m.reason, m.error FROM sagas.instance_remains AS m
WHERE m.environment = $1 AND m.saga = $2 AND m.id = ANY($3::text [])

-- name: overdue
-- What asks for a coordinator in its ranges: steps whose lease ran out, processes that fell silent.
SELECT m.range, m.uid, x.is_out, false AS is_silent
FROM sagas.moving AS m
INNER JOIN sagas.instances AS i ON i.uid = m.uid
CROSS JOIN LATERAL (
    SELECT bool_or(e.status = 'admitted' AND e.lease_until <= clock_timestamp()) AS is_out FROM sagas.effects AS e
    WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id
) AS x
WHERE m.range = ANY($1::smallint []) AND NOT i.laid AND x.is_out
UNION ALL
SELECT m.range, m.uid, false, true
FROM sagas.moving AS m
INNER JOIN sagas.instances AS i ON i.uid = m.uid AND i.run_by IS NOT NULL AND i.state = 'running'
WHERE m.range = ANY($1::smallint []) AND EXISTS (
    SELECT FROM sagas.ready AS r
    WHERE r.uid = i.uid AND r.due_at < clock_timestamp() - i.lease_seconds * interval '1 second'
    UNION ALL
    SELECT FROM sagas.effects AS e
    INNER JOIN sagas.look_ups AS k ON k.effect_id = e.id
    WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id AND NOT k.given_up
        AND k.due_at < clock_timestamp() - i.lease_seconds * interval '1 second')
LIMIT $2

-- name: passed
SELECT w.range, w.uid, w.name FROM sagas.waits AS w
WHERE w.range = ANY($1::smallint []) AND w.at <= clock_timestamp() ORDER BY w.range, w.at LIMIT $2

-- name: abandon
-- Still lying there under the lock: nobody of its process has come for it.
DELETE FROM sagas.ready AS r USING sagas.instances AS i
WHERE r.uid = ANY($1::uuid []) AND i.uid = r.uid AND r.run_by IS NOT NULL
    AND r.due_at < clock_timestamp() - i.lease_seconds * interval '1 second'
RETURNING r.uid, r.step

-- name: unanswered
-- Of whom a look-up still lies there under the lock, though its process should have come for it.
SELECT DISTINCT i.uid
FROM sagas.instances AS i
INNER JOIN sagas.effects AS e ON e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id
INNER JOIN sagas.look_ups AS k ON k.effect_id = e.id AND NOT k.given_up
WHERE i.uid = ANY($1::uuid []) AND i.run_by IS NOT NULL
    AND k.due_at < clock_timestamp() - i.lease_seconds * interval '1 second'

-- name: adopt
-- What lay ready for a process that is gone is anybody's.
UPDATE sagas.ready SET run_by = NULL WHERE uid = ANY($1::uuid [])

-- name: being_undone
-- How the undoing of instances stands: null where something goes on by itself, else why it waits, or that it has ended.
SELECT m.range, m.uid, i.state, x.is_final, x.reason
FROM sagas.moving AS m
INNER JOIN sagas.instances AS i ON i.uid = m.uid AND i.laid
CROSS JOIN LATERAL sagas.undoing_v1(i.environment, i.saga, i.id) AS x
WHERE m.range = ANY($1::smallint []) AND (
    coalesce(x.is_final, true) OR (x.reason IS NOT NULL) <> (i.state = 'waiting'))
LIMIT $2

-- name: lock_undone
-- The instances in which these compensations undid something, as far as nobody else is at them: whoever is, or a coordinator's next
-- look, says how they stand.
SELECT i.uid FROM sagas.instances AS i
INNER JOIN (
    SELECT DISTINCT d.environment, d.saga, d.saga_instance FROM sagas.dispositions AS d
    WHERE d.compensation_id = ANY($1::uuid []) AND d.saga_instance IS NOT NULL
) AS t ON i.environment = t.environment AND i.saga = t.saga AND i.id = t.saga_instance
WHERE i.laid AND i.state <> 'undone'
ORDER BY i.uid FOR NO KEY UPDATE OF i SKIP LOCKED

-- name: undone_now
-- How the undoing of these instances stands, of those of which it is to be said: see `being_undone`. After their locks, so that it
-- sees what others have ended before. Who stands in a line leaves it under that line's lock, which comes before all others: of those
-- only who holds it says it (`$2`), a coordinator.
SELECT i.uid, x.is_final, x.reason
FROM sagas.instances AS i
CROSS JOIN LATERAL sagas.undoing_v1(i.environment, i.saga, i.id) AS x
WHERE i.uid = ANY($1::uuid []) AND (coalesce(x.is_final, true) OR (x.reason IS NOT NULL) <> (i.state = 'waiting'))
    AND ($2::boolean OR NOT EXISTS (SELECT FROM sagas.lines AS l WHERE l.uid = i.uid))

-- name: conclude
WITH changed AS (
    UPDATE sagas.instances AS i SET
        state = CASE WHEN n.is_final THEN 'undone' WHEN n.reason IS NOT NULL THEN 'waiting' ELSE 'undoing' END,
        reason = CASE WHEN n.is_final OR n.reason IS NULL THEN i.error ->> 'reason' ELSE n.reason END,
        changed_at = clock_timestamp(), ended_at = CASE WHEN n.is_final THEN clock_timestamp() END
    FROM unnest($1::uuid [], $2::boolean [], $3::text []) AS n (uid, is_final, reason)
    WHERE i.uid = n.uid AND i.laid AND i.state <> 'undone'
    RETURNING i.environment, i.uid, i.saga, old.state AS was, new.state AS stands
), gone AS (
    DELETE FROM sagas.strays AS t USING changed AS c
    WHERE t.environment = c.environment AND t.state = c.was AND t.uid = c.uid AND c.was <> c.stands
)
INSERT INTO sagas.strays (environment, state, uid, saga)
SELECT c.environment, c.stands, c.uid, c.saga FROM changed AS c WHERE c.was <> c.stands
ON CONFLICT DO NOTHING

-- name: one
SELECT i.uid, i.environment, i.saga, i.id, i.version, i.flag, i.variant, i.is_off, i.revision_generation, i.revision, i.subject,
    i.attributes, i.input, i.run_by, i.traceparent, i.started_by, i.started_at, i.state, i.paused, i.reason, i.error, i.result,
    i.changed_at, i.ended_at, i.turned_back, i.laid
FROM sagas.instances AS i WHERE i.environment = $1 AND i.saga = $2 AND i.id = $3

-- name: near
SELECT i.id FROM sagas.instances AS i WHERE i.environment = $1 AND i.saga = $2 ORDER BY i.uid DESC LIMIT 200

-- name: history
SELECT f.id, f.fact, f.name, f.detail, f.by_whom, f.reason, f.at FROM sagas.facts AS f WHERE f.uid = $1 ORDER BY f.id LIMIT $2

-- name: waiting_for
SELECT w.name, nullif(w.at, 'infinity') AS at FROM sagas.waits AS w WHERE w.uid = $1 ORDER BY w.name

-- name: ready_steps
SELECT r.step, r.due_at FROM sagas.ready AS r WHERE r.uid = $1 ORDER BY r.due_at, r.step

-- name: done_under
SELECT e.id, e.step, e.kind, e.key, e.status, e.attempt, e.generation, e.admitted_at, e.completed_at, e.lease_until,
    e.instance_id, e.error, e.result, e.evidence, d.state AS disposition, d.reason AS disposition_reason, d.rollback_id,
    CASE WHEN k.effect_id IS NOT NULL THEN jsonb_build_object(
        'asked', k.count, 'given_up', k.given_up, 'said', k.said, 'due_at', k.due_at) END AS look_up
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
LEFT JOIN sagas.look_ups AS k ON k.effect_id = e.id
WHERE e.environment = $1 AND e.saga = $2 AND e.saga_instance = $3
ORDER BY e.id LIMIT $4

-- name: event_is_known
SELECT EXISTS (SELECT FROM sagas.facts AS f
    WHERE f.uid = $1 AND f.fact = 'event' AND f.name = $2 AND f.detail ->> 'event_id' = $3)

-- name: facts_count
SELECT count(*) FROM sagas.facts AS f WHERE f.uid = $1

-- name: undoing_effects
-- What of an instance's undoing waits for a person, of one step or of all, by the rollback that undoes it.
SELECT d.rollback_id, d.effect_id
FROM sagas.effects AS e
INNER JOIN sagas.dispositions AS d ON d.effect_id = e.id
INNER JOIN sagas.rollbacks AS r ON r.id = d.rollback_id AND r.carries = 'instances'
WHERE e.environment = $1 AND e.saga = $2 AND e.saga_instance = $3 AND ($4::text IS NULL OR e.step = $4)
    AND (d.state = 'waiting' OR ($5::boolean AND d.state = 'pending'))
ORDER BY d.effect_id
