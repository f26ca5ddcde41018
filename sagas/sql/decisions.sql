-- Decisions of named persons on a rollback (P17, P20). Locks: compensations, dispositions, effects, then the rollback.

-- name: rollback
SELECT id, environment, state, version, paused, cancelled_by, outcome FROM sagas.rollbacks WHERE id = $1

-- name: near
SELECT id::text FROM sagas.rollbacks WHERE carries = 'kill' ORDER BY id DESC LIMIT 200

-- name: pause
UPDATE sagas.rollbacks SET paused = true, version = version + 1
WHERE id = $1 AND NOT paused AND state <> 'settled' RETURNING id

-- name: resume
-- Out of a pause, and out of `held`: what was held back begins.
UPDATE sagas.rollbacks SET
    paused = false, version = version + 1,
    state = CASE WHEN state IN ('paused', 'held') THEN 'compensating' ELSE state END
WHERE id = $1 AND (paused OR state IN ('paused', 'held')) RETURNING id

-- name: cancel
UPDATE sagas.rollbacks SET
    cancelled_by = $2, cancelled_reason = $3, paused = false, version = version + 1,
    state = CASE WHEN state IN ('grace', 'held', 'paused', 'waiting') THEN 'compensating' ELSE state END
WHERE id = $1 AND cancelled_by IS NULL AND state <> 'settled' RETURNING id

-- name: touched
-- Something was decided: whoever counts counts again.
UPDATE sagas.rollbacks SET
    version = version + 1, state = CASE WHEN state = 'waiting' THEN 'compensating' ELSE state END
WHERE id = $1

-- name: chosen
-- The effects meant: named by their own id or by their compensation's, or with no ids every one that waits.
SELECT d.effect_id, d.compensation_id, d.state, d.reason
FROM sagas.members AS m
INNER JOIN sagas.dispositions AS d ON d.effect_id = m.effect_id AND d.rollback_id = m.rollback_id
WHERE m.rollback_id = $1
    AND CASE WHEN $2::uuid [] IS NULL THEN d.state = 'waiting'
        ELSE d.effect_id = ANY($2::uuid []) OR d.compensation_id = ANY($2::uuid []) END
ORDER BY d.effect_id LIMIT $3

-- name: cancelled
SELECT cancelled_by, cancelled_reason FROM sagas.rollbacks WHERE id = $1 AND cancelled_by IS NOT NULL

-- name: page
SELECT m.effect_id, d.compensation_id
FROM sagas.members AS m
LEFT JOIN sagas.dispositions AS d
    ON d.effect_id = m.effect_id AND d.rollback_id = m.rollback_id AND d.state IN ('pending', 'waiting')
WHERE m.rollback_id = $1 AND ($2::uuid IS NULL OR m.effect_id > $2)
ORDER BY m.effect_id LIMIT $3

-- name: lock
SELECT c.id, c.state FROM sagas.compensations AS c WHERE c.id = ANY($1::uuid []) ORDER BY c.id FOR UPDATE

-- name: skip
UPDATE sagas.dispositions AS d
SET state = 'skipped', by_whom = $2, reason = $3, judge_at = NULL, changed_at = clock_timestamp()
WHERE d.effect_id = ANY($1::uuid []) AND d.rollback_id = $4 AND d.state IN ('pending', 'waiting')
    AND d.reason IS DISTINCT FROM 'continues' -- it is skipped once its instance has ended
    AND NOT EXISTS (SELECT FROM sagas.compensations AS c WHERE c.id = d.compensation_id AND c.state NOT IN ('due', 'waiting'))
RETURNING d.effect_id, d.compensation_id

-- name: lock_rollback
SELECT id FROM sagas.rollbacks WHERE id = $1 FOR NO KEY UPDATE

-- name: write_off
-- Whoever does it answers for records that these instances may have taken with them.
UPDATE sagas.holders AS h SET cleared_at = clock_timestamp(), how = 'written_off', by_whom = $3, reason = $4
WHERE h.rollback_id = $1 AND h.instance_id = ANY($2::text []) AND h.cleared_at IS NULL
RETURNING h.instance_id

-- name: retire
-- A compensation with nothing left to undo has ended.
UPDATE sagas.compensations AS c SET state = 'final', reason = 'skipped'
WHERE c.id = ANY($1::uuid []) AND c.state IN ('due', 'waiting')
    AND NOT EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.compensation_id = c.id AND d.state IN ('pending', 'waiting'))
RETURNING c.id

-- name: note
INSERT INTO sagas.attempts (compensation_id, effect_id, attempt, verb, actor, started_at, ended_at, outcome, detail)
SELECT n.compensation_id, CASE WHEN n.compensation_id IS NULL THEN n.effect_id END, coalesce(c.attempt, 0), $3, $4,
    clock_timestamp(), clock_timestamp(), $3, jsonb_build_object('reason', $5::text)
FROM unnest($1::uuid [], $2::uuid []) AS n (effect_id, compensation_id)
LEFT JOIN sagas.compensations AS c ON c.id = n.compensation_id

-- name: retry
-- The person answers for the doubt: it begins anew under the same key, with attempts and window counted from here.
UPDATE sagas.compensations AS c SET
    state = 'due', due_at = clock_timestamp(), reason = NULL, doubtful = false, first_sent_at = NULL, attempt_base = c.attempt
WHERE c.id = ANY($1::uuid []) AND c.state = 'waiting'
RETURNING c.id

-- name: follow_retry
UPDATE sagas.dispositions AS d SET state = 'pending', reason = NULL, changed_at = clock_timestamp()
WHERE d.compensation_id = ANY($1::uuid []) AND d.state = 'waiting'

-- name: judge_again
-- Those that wait without a compensation: a definition may be there now, or the person has just approved the notice.
UPDATE sagas.dispositions AS d SET by_whom = $3
WHERE d.effect_id = ANY($2::uuid []) AND d.rollback_id = $1 AND d.state = 'waiting' AND d.compensation_id IS NULL
RETURNING d.effect_id

-- name: look_again
INSERT INTO sagas.late (rollback_id, effect_id) SELECT $1, n.id FROM unnest($2::uuid []) AS n (id)
ON CONFLICT (rollback_id, effect_id) DO UPDATE SET at = clock_timestamp()

-- name: acknowledge
UPDATE sagas.dispositions AS d SET acknowledged_by = $3, acknowledged_at = clock_timestamp()
FROM sagas.members AS m
WHERE m.rollback_id = $1 AND d.effect_id = m.effect_id AND d.state = 'irreversible' AND d.acknowledged_at IS NULL
    AND ($2::uuid [] IS NULL OR d.effect_id = ANY($2::uuid []) OR d.compensation_id = ANY($2::uuid []))
RETURNING d.effect_id

-- name: acknowledge_untold
-- A notice that nobody approved is not sent: the effect is irreversible, and a person has said that they know.
UPDATE sagas.dispositions AS d SET
    state = 'irreversible', reason = NULL, acknowledged_by = $3, acknowledged_at = clock_timestamp(), changed_at = clock_timestamp()
FROM sagas.members AS m
WHERE m.rollback_id = $1 AND d.effect_id = m.effect_id AND d.rollback_id = $1 AND d.state = 'waiting'
    AND d.reason = 'notice_unapproved' AND d.compensation_id IS NULL
    AND d.effect_id = ANY($2::uuid [])
RETURNING d.effect_id

-- name: ring
SELECT pg_notify('rescind_rollback', $1::text)
