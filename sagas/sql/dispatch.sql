-- Attempts: claimed in a transaction that reserves subject and pace and finds the rollback running; outcomes in batches (P13 to P17).

-- name: prefer_indexes
-- For transactions without a fence, which says the same: plans made while a table is empty must not read all of it later.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: running_rollback
-- Shared with other claims; whoever pauses, cancels or reopens waits for this transaction, and is seen by the next (hazard 15).
SELECT id FROM sagas.rollbacks
WHERE id = $1 AND state IN ('compensating', 'waiting') AND NOT paused AND cancelled_by IS NULL
FOR SHARE

-- name: candidates
-- The next window of what is due, latest completion first; from after (position, id), or the beginning.
SELECT
    c.id, c.environment, c.kind, c.connection, c.subject, c.position, c.attempt, c.attempt_base, c.doubtful, c.merge_key IS NOT NULL AS merged,
    c.definition, c.definition_is_kind, c.definition_version, c.step, 
    extract(EPOCH FROM c.due_at - clock_timestamp())::double precision AS due_in_seconds,
    coalesce(extract(EPOCH FROM clock_timestamp() - c.first_sent_at), 0)::double precision AS since_first_seconds,
    c.merge_key IS NOT NULL AND (r.enumerated_at IS NULL OR EXISTS (
        SELECT FROM sagas.dispositions AS d
        WHERE d.rollback_id = c.rollback_id AND d.judge_at IS NOT NULL AND d.merge_key = c.merge_key)) AS is_open,
    EXISTS (SELECT FROM sagas.subjects AS s
        WHERE s.environment = c.environment AND s.subject = c.subject AND s.compensation_id <> c.id) AS is_busy
FROM sagas.compensations AS c
INNER JOIN sagas.rollbacks AS r ON r.id = c.rollback_id
WHERE c.rollback_id = $1 AND c.state = 'due' AND c.action <> 'worker'
    AND ($2::timestamptz IS NULL OR (c.position, c.id) < ($2, $3::uuid))
ORDER BY c.position DESC, c.id DESC
LIMIT $4

-- name: worker_candidates
-- What workers may begin of these rollbacks, as far as they run: from each in turn, latest completion first.
SELECT
    c.id, c.environment, c.kind, c.connection, c.subject, c.position, c.attempt, c.attempt_base, c.doubtful, c.merge_key IS NOT NULL AS merged,
    c.definition, c.definition_is_kind, c.definition_version, c.step,
    0::double precision AS due_in_seconds,
    coalesce(extract(EPOCH FROM clock_timestamp() - c.first_sent_at), 0)::double precision AS since_first_seconds,
    c.merge_key IS NOT NULL AND (r.enumerated_at IS NULL OR EXISTS (
        SELECT FROM sagas.dispositions AS d
        WHERE d.rollback_id = c.rollback_id AND d.judge_at IS NOT NULL AND d.merge_key = c.merge_key)) AS is_open,
    EXISTS (SELECT FROM sagas.subjects AS s
        WHERE s.environment = c.environment AND s.subject = c.subject AND s.compensation_id <> c.id) AS is_busy
FROM unnest($1::uuid []) AS n (id)
INNER JOIN sagas.rollbacks AS r
    ON r.id = n.id AND r.state IN ('compensating', 'waiting') AND NOT r.paused AND r.cancelled_by IS NULL
CROSS JOIN LATERAL (
    SELECT x.*, row_number() OVER (ORDER BY x.position DESC, x.id DESC) AS place
    FROM sagas.compensations AS x
    WHERE x.rollback_id = r.id AND x.state = 'due' AND x.action = 'worker' AND x.due_at <= clock_timestamp()
        AND x.definition = $3 AND NOT x.definition_is_kind AND x.definition_version = ANY($4::text []) AND x.step = ANY($5::text [])
    ORDER BY x.position DESC, x.id DESC LIMIT $2
) AS c
ORDER BY c.place, r.id
LIMIT $2

-- name: stands
-- Everything unfinished in the saga instances in which these compensations stand, whichever rollback undoes it (P14); from the
-- few to their neighbours, by index.
WITH places AS MATERIALIZED (
    SELECT DISTINCT d.environment, d.saga, d.saga_instance
    FROM sagas.dispositions AS d
    WHERE d.compensation_id = ANY($1::uuid []) AND d.saga_instance IS NOT NULL
)
SELECT o.saga, o.saga_instance, o.position, o.compensation_id
FROM places AS p
CROSS JOIN LATERAL (
    SELECT x.saga, x.saga_instance, x.position, x.compensation_id
    FROM sagas.dispositions AS x
    WHERE x.environment = p.environment AND x.saga = p.saga AND x.saga_instance = p.saga_instance
        AND x.state = 'pending'
    OFFSET 0
) AS o

-- name: know_paces
INSERT INTO sagas.paces (environment, kind, connection)
SELECT $1, p.kind, p.connection FROM unnest($2::text [], $3::text []) AS p (kind, connection)
ORDER BY p.kind, p.connection ON CONFLICT DO NOTHING

-- name: hold_paces
SELECT p.kind, p.connection,
    coalesce(extract(EPOCH FROM clock_timestamp() - nullif(p.next_at, '-infinity')), 86400)::double precision AS idle_seconds
FROM sagas.paces AS p
INNER JOIN unnest($2::text [], $3::text []) AS w (kind, connection) ON w.kind = p.kind AND w.connection = p.connection
WHERE p.environment = $1
ORDER BY p.kind, p.connection FOR UPDATE OF p

-- name: count_running
-- A statement after the paces are held, so that what the last claimer began is seen.
SELECT c.kind, c.connection, count(*)::integer AS running
FROM sagas.compensations AS c
WHERE c.environment = $1 AND c.state = 'running' AND c.kind = ANY($2::text [])
GROUP BY 1, 2

-- name: spend
UPDATE sagas.paces AS p
SET next_at = greatest(p.next_at, clock_timestamp() - $5::double precision * interval '1 second') + n.cost * interval '1 second'
FROM unnest($2::text [], $3::text [], $4::double precision []) AS n (kind, connection, cost)
WHERE p.environment = $1 AND p.kind = n.kind AND p.connection = n.connection

-- name: take_subjects
INSERT INTO sagas.subjects AS s (environment, subject, compensation_id)
SELECT $1, n.subject, n.compensation_id FROM unnest($2::text [], $3::uuid []) AS n (subject, compensation_id) ORDER BY n.subject
ON CONFLICT (environment, subject) DO UPDATE SET compensation_id = excluded.compensation_id
WHERE s.compensation_id = excluded.compensation_id
RETURNING s.compensation_id

-- name: lock_due
-- Here and below by id alone: asked in so many words for what is due, a plan made while little was would go over all of it.
SELECT c.id FROM sagas.compensations AS c
WHERE c.id = ANY($1::uuid []) AND c.state NOT IN ('running', 'waiting', 'final') ORDER BY c.id FOR UPDATE SKIP LOCKED

-- name: begin
-- Durable before anything is sent: an attempt that is not heard of again may have acted.
WITH begun AS (
    UPDATE sagas.compensations AS c SET
        state = 'running', attempt = c.attempt + 1, token = n.token, reason = NULL,
        lease_until = clock_timestamp() + n.lease_seconds * interval '1 second',
        first_sent_at = coalesce(c.first_sent_at, clock_timestamp())
    FROM unnest($1::uuid [], $2::uuid [], $3::double precision [], $4::boolean [], $5::text [])
        AS n (id, token, lease_seconds, relaxed, actor)
    WHERE c.id = n.id AND c.state NOT IN ('running', 'waiting', 'final')
    RETURNING c.*, n.relaxed, n.actor
), noted AS (
    INSERT INTO sagas.attempts (compensation_id, attempt, verb, actor, relaxed)
    SELECT b.id, b.attempt, 'act', b.actor, b.relaxed FROM begun AS b
)
SELECT
    b.id, b.environment, b.rollback_id, b.kind, b.action, b.action_key, b.ends_as, b.definition, b.definition_is_kind,
    b.definition_version, b.step, b.connection, b.subject, b.attempt, b.attempt_base, b.token, b.doubtful,
    extract(EPOCH FROM clock_timestamp() - b.first_sent_at)::double precision AS since_first_seconds
FROM begun AS b

-- name: effects_of
SELECT d.compensation_id, e.id, e.kind, e.key, e.subject, e.payload, e.result, e.saga, e.saga_instance, e.step, d.amount_minor,
    d.currency, e.traceparent, i.traceparent AS instance_traceparent
FROM sagas.dispositions AS d
INNER JOIN sagas.effects AS e ON e.id = d.effect_id
LEFT JOIN sagas.instances AS i ON i.environment = e.environment AND i.saga = e.saga AND i.id = e.saga_instance
WHERE d.compensation_id = ANY($1::uuid []) AND d.state = 'pending'
ORDER BY d.compensation_id, e.id

-- name: rollbacks_of
SELECT r.id, r.reason, r.incident FROM sagas.rollbacks AS r WHERE r.id = ANY($1::uuid [])

-- name: expire
-- Past the provider's window: repeating it could act twice. A person decides.
UPDATE sagas.compensations SET state = 'waiting', reason = $2
WHERE id = ANY($1::uuid []) AND state NOT IN ('running', 'waiting', 'final') RETURNING id

-- name: interrupted
-- Attempts that can act no longer and of which nothing was heard.
SELECT c.id, c.environment, c.token, c.attempt, c.attempt_base, c.doubtful, c.definition, c.definition_is_kind, c.definition_version, c.step,
    coalesce(extract(EPOCH FROM clock_timestamp() - c.first_sent_at), 0)::double precision AS since_first_seconds
FROM sagas.compensations AS c
WHERE c.environment = $1 AND c.rollback_id = $2 AND c.state = 'running' AND c.lease_until <= clock_timestamp()
    AND c.id <> ALL($3::uuid [])
LIMIT 1000

-- name: lock_compensations
SELECT c.id FROM sagas.compensations AS c WHERE c.id = ANY($1::uuid []) ORDER BY c.id FOR UPDATE

-- name: finish
-- Whoever holds the attempt's token may say how it ended, until it is final. The doubt of an earlier attempt stays on record.
UPDATE sagas.compensations AS c SET
    state = n.state, reason = n.reason, doubtful = n.doubtful, proof = coalesce(n.proof::jsonb, c.proof),
    due_at = CASE WHEN n.state = 'due' THEN clock_timestamp() + n.delay_seconds * interval '1 second' ELSE c.due_at END
FROM unnest(
    $1::uuid [], $2::uuid [], $3::text [], $4::text [], $5::boolean [], $6::double precision [], $7::text []
) AS n (id, token, state, reason, doubtful, delay_seconds, proof)
WHERE c.id = n.id AND c.token = n.token AND c.state <> 'final' AND (c.state = 'running' OR n.state = 'final')
RETURNING c.id, c.rollback_id

-- name: follow
-- The dispositions of these compensations say what the compensations say.
UPDATE sagas.dispositions AS d SET
    state = CASE c.state WHEN 'final' THEN c.ends_as WHEN 'waiting' THEN 'waiting' ELSE 'pending' END,
    reason = CASE WHEN c.state = 'waiting' THEN c.reason END,
    proof = c.proof, changed_at = clock_timestamp()
FROM sagas.compensations AS c
WHERE d.compensation_id = ANY($1::uuid []) AND c.id = d.compensation_id AND d.state IN ('pending', 'waiting')

-- name: close_effects
UPDATE sagas.effects AS e SET undone = true
FROM sagas.dispositions AS d
WHERE d.compensation_id = ANY($1::uuid []) AND e.id = d.effect_id AND d.state IN ('compensated', 'irreversible')

-- name: release_subjects
DELETE FROM sagas.subjects WHERE compensation_id = ANY($1::uuid [])

-- name: end_attempts
UPDATE sagas.attempts AS a SET ended_at = clock_timestamp(), outcome = n.outcome, detail = n.detail::jsonb
FROM unnest($1::uuid [], $2::integer [], $3::text [], $4::text []) AS n (id, attempt, outcome, detail)
WHERE a.compensation_id = n.id AND a.attempt = n.attempt AND a.verb = 'act' AND a.ended_at IS NULL

-- name: standing
-- Where a rollback stands of which nothing may begin here. `is_asked`: nothing of it runs, is undetermined, or is due without
-- standing behind a question. `is_calm`: nothing runs, nothing is undetermined, and nothing comes due later or may be claimed by a
-- worker, but behind a question: what is due and blocked now stays blocked for ever.
SELECT
    NOT b.is_at_work AND NOT EXISTS (SELECT FROM sagas.compensations AS c
        WHERE c.rollback_id = $2 AND c.state = 'due' AND NOT sagas.is_behind_question(c.id)) AS is_asked,
    NOT b.is_at_work AND NOT EXISTS (SELECT FROM sagas.compensations AS c
        WHERE c.rollback_id = $2 AND c.state = 'due' AND NOT sagas.is_behind_question(c.id)
            AND (c.due_at > clock_timestamp() OR (c.action = 'worker' AND NOT sagas.is_out_of_turn(c.id)))) AS is_calm
FROM (SELECT
    EXISTS (SELECT FROM sagas.compensations AS c WHERE c.environment = $1 AND c.rollback_id = $2 AND c.state = 'running')
    OR EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.rollback_id = $2 AND d.judge_at IS NOT NULL) AS is_at_work) AS b

-- name: moves_elsewhere
-- Whether something due here is held back by what another rollback undoes and what may still end by itself: it runs, comes due
-- later, is undetermined, or it is its turn, a worker's too (docs/decisions/0019).
SELECT EXISTS (
    SELECT FROM sagas.compensations AS c
    INNER JOIN sagas.dispositions AS d ON d.compensation_id = c.id AND d.state = 'pending' AND d.saga_instance IS NOT NULL
    INNER JOIN sagas.dispositions AS x
        ON x.environment = d.environment AND x.saga = d.saga AND x.saga_instance = d.saga_instance
        AND x.rollback_id <> c.rollback_id AND x.state = 'pending' AND x.position > d.position
    LEFT JOIN sagas.compensations AS o ON o.id = x.compensation_id
    WHERE c.rollback_id = $1 AND c.state = 'due' AND (
        o.id IS NULL OR o.state <> 'due' OR o.due_at > clock_timestamp() OR NOT sagas.is_out_of_turn(o.id)))

-- name: no_worker
-- Due for a while, and no live worker serves it: it waits for a person, or for a worker to appear (P15).
UPDATE sagas.compensations AS c SET state = 'waiting', reason = 'no_worker'
WHERE c.rollback_id = $1 AND c.state = 'due' AND c.action = 'worker'
    AND c.due_at < clock_timestamp() - $2::double precision * interval '1 second'
    AND NOT EXISTS (SELECT FROM sagas.workers AS w
        WHERE w.environment = c.environment AND w.saga = c.definition AND w.version = c.definition_version
            AND c.step = ANY(w.steps) AND w.seen_at > clock_timestamp() - $2::double precision * interval '1 second')
RETURNING c.id

-- name: note_lost
-- An outcome that no longer counts is evidence all the same, unless it only repeats what is on record.
INSERT INTO sagas.attempts (compensation_id, attempt, verb, actor, started_at, ended_at, outcome, detail)
SELECT a.compensation_id, a.attempt, 'act', a.actor, a.started_at, clock_timestamp(), 'lost', n.detail::jsonb
FROM unnest($1::uuid [], $2::integer [], $3::text [], $4::text []) AS n (id, attempt, event, detail)
INNER JOIN sagas.attempts AS a ON a.compensation_id = n.id AND a.attempt = n.attempt AND a.verb = 'act'
WHERE a.outcome NOT IN (n.event, 'lost')
    AND NOT EXISTS (SELECT FROM sagas.attempts AS b
        WHERE b.compensation_id = n.id AND b.attempt = n.attempt AND b.outcome = 'lost' AND b.detail = n.detail::jsonb)

-- name: unfenced
-- For outcomes that stand by their attempt's token alone. A writer that stalls inside is cut off like a fenced one.
SELECT set_config('idle_in_transaction_session_timeout', $1::text, true), set_config('transaction_timeout', $2::text, true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: ring
SELECT pg_notify('rescind_rollback', n.id::text) FROM unnest($1::uuid []) AS n (id)
