-- The set of a rollback, chunk by chunk, and what becomes of each of its effects (P12, P16, hazard 13).

-- name: next_flag
SELECT f.flag, f.scope_key, f.cursor, f.sweep
FROM sagas.rollback_flags AS f
WHERE f.rollback_id = $1 AND NOT f.enumerated ORDER BY f.flag, f.scope_key LIMIT 1

-- name: chunk
-- By keyset over the flag's effects, those outside the set included, so that no chunk is longer than a chunk.
SELECT
    e.id, e.environment, e.kind, e.key, e.kind_version, e.flag, e.status, e.saga, e.saga_version, e.saga_instance, e.step, e.subject,
    e.payload, e.result, e.admitted_at, e.completed_at, d.rollback_id AS owner, d.state AS disposition,
    d.compensation_id, d.judge_count, d.by_whom AS decided_by, d.reason,
    extract(EPOCH FROM e.lease_until - clock_timestamp())::double precision AS lease_left_seconds,
    e.in_set, e.in_set AND sagas.continues($1, e.whole) AS continues
FROM sagas.rollback_flags AS f
CROSS JOIN LATERAL (
    SELECT x.*, x AS whole, sagas.is_named(f, x) AS in_set FROM sagas.effects AS x
    WHERE x.environment = f.environment AND x.flag = f.flag
        AND x.id > coalesce(f.cursor, '00000000-0000-0000-0000-000000000000')
    ORDER BY x.id LIMIT $4
) AS e
LEFT JOIN LATERAL (SELECT y.* FROM sagas.dispositions AS y WHERE y.effect_id = e.id OFFSET 0) AS d ON true
WHERE f.rollback_id = $1 AND f.flag = $2 AND f.scope_key = $3
ORDER BY e.id

-- name: extension
-- What was completed after these effects in their saga instances, or may yet be, and is not joined yet (hazard 13).
WITH anchors AS MATERIALIZED (
    SELECT a.environment, a.saga, a.saga_instance, min(sagas.completion(a)) AS after
    FROM sagas.effects AS a
    WHERE a.id = ANY($2::uuid []) AND sagas.is_anchor(a)
        AND EXISTS (SELECT FROM sagas.rollback_flags AS f
            WHERE f.rollback_id = $1 AND f.environment = a.environment AND f.flag = a.flag AND sagas.is_named(f, a))
    GROUP BY a.environment, a.saga, a.saga_instance
), later AS MATERIALIZED (
    SELECT e.id
    FROM anchors AS w
    INNER JOIN sagas.effects AS e ON e.environment = w.environment AND e.saga = w.saga AND e.saga_instance = w.saga_instance
    WHERE e.saga_instance IS NOT NULL AND sagas.comes_after(e, w.after)
        AND NOT EXISTS (SELECT FROM sagas.members AS m WHERE m.rollback_id = $1 AND m.effect_id = e.id)
)
SELECT
    e.id, e.environment, e.kind, e.key, e.kind_version, e.flag, e.status, e.saga, e.saga_version, e.saga_instance, e.step, e.subject,
    e.payload, e.result, e.admitted_at, e.completed_at, d.rollback_id AS owner, d.state AS disposition,
    d.compensation_id, d.judge_count, d.by_whom AS decided_by, d.reason,
    extract(EPOCH FROM e.lease_until - clock_timestamp())::double precision AS lease_left_seconds,
    true AS in_set, sagas.continues($1, e) AS continues
FROM later AS l
INNER JOIN sagas.effects AS e ON e.id = l.id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE NOT sagas.is_independent(e)
ORDER BY e.id

-- name: by_id
SELECT
    e.id, e.environment, e.kind, e.key, e.kind_version, e.flag, e.status, e.saga, e.saga_version, e.saga_instance, e.step, e.subject,
    e.payload, e.result, e.admitted_at, e.completed_at, d.rollback_id AS owner, d.state AS disposition,
    d.compensation_id, d.judge_count, d.by_whom AS decided_by, d.reason,
    extract(EPOCH FROM e.lease_until - clock_timestamp())::double precision AS lease_left_seconds,
    true AS in_set, sagas.continues(d.rollback_id, e) AS continues
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.id = ANY($1::uuid [])
ORDER BY e.id

-- name: news
-- Effects to look at again; one that is not in the set is none of this rollback's business.
SELECT
    e.id, e.environment, e.kind, e.key, e.kind_version, e.flag, e.status, e.saga, e.saga_version, e.saga_instance, e.step, e.subject,
    e.payload, e.result, e.admitted_at, e.completed_at, d.rollback_id AS owner, d.state AS disposition,
    d.compensation_id, d.judge_count, d.by_whom AS decided_by, d.reason,
    extract(EPOCH FROM e.lease_until - clock_timestamp())::double precision AS lease_left_seconds,
    sagas.in_set($1, e) AS in_set, sagas.continues($1, e) AS continues
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.id = ANY($2::uuid [])
ORDER BY e.id

-- name: advance
-- A kill that widened the set meanwhile has begun another sweep: this chunk is taken again, and no place is lost.
UPDATE sagas.rollback_flags SET cursor = coalesce($4, cursor), enumerated = $5
WHERE rollback_id = $1 AND flag = $2 AND scope_key = $3 AND sweep = $6

-- name: enumerated
UPDATE sagas.rollbacks AS r SET enumerated_at = clock_timestamp()
WHERE r.id = $1 AND r.version = $2 AND r.enumerated_at IS NULL
    AND NOT EXISTS (SELECT FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND NOT f.enumerated)
RETURNING r.id

-- name: join
INSERT INTO sagas.members (rollback_id, effect_id, undetermined)
SELECT m.rollback_id, m.effect_id, m.undetermined
FROM unnest($1::uuid [], $2::uuid [], $3::boolean []) AS m (rollback_id, effect_id, undetermined)
ORDER BY m.rollback_id, m.effect_id
ON CONFLICT DO NOTHING

-- name: canceller
-- Read after the effects it is to hold for: a kill that widens the set takes the cancelling back.
SELECT cancelled_by FROM sagas.rollbacks WHERE id = $1

-- name: merged
-- What is already merged under these keys; locked, so that none starts while it is joined.
SELECT c.id, c.merge_key, c.state = 'due' AND c.attempt = 0 AS joinable
FROM sagas.compensations AS c WHERE c.merge_key = ANY($1::text []) ORDER BY c.id FOR UPDATE

-- name: dispose
-- One row per effect for ever. One that is undone, or being undone, is left as it is; what waited or never happened may move on.
INSERT INTO sagas.dispositions AS d (
    effect_id, environment, rollback_id, compensation_id, kind, saga, saga_instance, position, amount_minor, currency,
    merge_key, judge_at, state, reason, by_whom)
SELECT
    n.effect_id, n.environment, n.rollback_id, n.compensation_id, n.kind, n.saga, n.saga_instance, n.position, n.amount_minor,
    n.currency, n.merge_key, clock_timestamp() + n.judge_in_seconds * interval '1 second', n.state, n.reason, n.by_whom
FROM unnest(
    $1::uuid [], $2::text [], $3::uuid [], $4::uuid [], $5::text [], $6::text [], $7::text [], $8::timestamptz [], $9::bigint [],
    $10::text [], $11::text [], $12::double precision [], $13::text [], $14::text [], $15::text []
) AS n (rollback_id, environment, effect_id, compensation_id, kind, saga, saga_instance, position, amount_minor, currency, merge_key,
    judge_in_seconds, state, reason, by_whom)
ORDER BY n.effect_id
ON CONFLICT (effect_id) DO UPDATE SET
    compensation_id = excluded.compensation_id, position = excluded.position, judge_at = excluded.judge_at,
    merge_key = excluded.merge_key, state = excluded.state, reason = excluded.reason, by_whom = excluded.by_whom,
    amount_minor = excluded.amount_minor, currency = excluded.currency, changed_at = clock_timestamp()
WHERE d.rollback_id = excluded.rollback_id AND d.compensation_id IS NULL AND d.state IN ('pending', 'waiting', 'never_happened')
RETURNING d.effect_id

-- name: create
INSERT INTO sagas.compensations (
    id, environment, rollback_id, kind, action, action_key, merge_key, ends_as, definition, definition_is_kind,
    definition_version, step, connection, subject, position)
SELECT
    n.id, n.environment, n.rollback_id, n.kind, n.action, n.action_key, n.merge_key, n.ends_as, n.definition, n.definition_is_kind,
    n.definition_version, n.step, n.connection, n.subject, n.position
FROM unnest(
    $1::uuid [], $2::text [], $3::uuid [], $4::text [], $5::text [], $6::text [], $7::text [], $8::text [], $9::text [],
    $10::boolean [], $11::text [], $12::text [], $13::text [], $14::text [], $15::timestamptz []
) AS n (rollback_id, environment, id, kind, action, action_key, merge_key, ends_as, definition, definition_is_kind, definition_version, step, connection,
    subject, position)
ORDER BY n.action_key

-- name: extend_merged
UPDATE sagas.compensations AS c SET position = greatest(c.position, n.position)
FROM unnest($1::uuid [], $2::timestamptz []) AS n (id, position) WHERE c.id = n.id

-- name: tombstone
UPDATE sagas.effects SET tombstoned = true WHERE id = ANY($1::uuid []) AND NOT tombstoned

-- name: undone
UPDATE sagas.effects SET undone = true WHERE id = ANY($1::uuid []) AND NOT undone

-- name: late
SELECT l.effect_id, l.at FROM sagas.late AS l WHERE l.rollback_id = $1 ORDER BY l.effect_id LIMIT $2

-- name: dealt_with
DELETE FROM sagas.late AS l USING unnest($2::uuid [], $3::timestamptz []) AS n (effect_id, at)
WHERE l.rollback_id = $1 AND l.effect_id = n.effect_id AND l.at = n.at

-- name: to_judge
SELECT d.effect_id FROM sagas.dispositions AS d
WHERE d.rollback_id = $1 AND d.judge_at <= clock_timestamp() AND d.effect_id <> ALL($2::uuid [])
ORDER BY d.judge_at LIMIT $3

-- name: ask_again
UPDATE sagas.dispositions AS d
SET judge_at = clock_timestamp() + n.in_seconds * interval '1 second', judge_count = n.judge_count
FROM unnest($1::uuid [], $2::double precision [], $3::integer []) AS n (effect_id, in_seconds, judge_count)
WHERE d.effect_id = n.effect_id AND d.judge_at IS NOT NULL

-- name: give_up
UPDATE sagas.dispositions SET state = 'waiting', reason = $2, judge_at = NULL, changed_at = clock_timestamp()
WHERE effect_id = ANY($1::uuid []) AND judge_at IS NOT NULL

-- name: lock_undetermined
SELECT e.id, e.status FROM sagas.effects AS e WHERE e.id = ANY($1::uuid []) ORDER BY e.id FOR NO KEY UPDATE

-- name: found
-- The provider has it: what the look-up says becomes the effect's result. When it was completed stays unknown.
UPDATE sagas.effects AS e SET
    status = 'succeeded', result = n.result::jsonb,
    evidence = e.evidence || jsonb_build_object('what', 'look_up', 'outcome', 'found', 'at', clock_timestamp())
FROM unnest($1::uuid [], $2::text []) AS n (id, result)
WHERE e.id = n.id AND e.status IN ('admitted', 'in_doubt')
RETURNING e.id

-- name: absent
-- The provider has never heard of it, and the settle delay is over: this generation of its key is closed, a late start refused.
UPDATE sagas.effects AS e SET
    status = 'failed', tombstoned = true,
    evidence = e.evidence || jsonb_build_object('what', 'look_up', 'outcome', 'absent', 'at', clock_timestamp())
WHERE e.id = ANY($1::uuid []) AND e.status IN ('admitted', 'in_doubt')
RETURNING e.id

-- name: note_look_ups
INSERT INTO sagas.attempts (effect_id, attempt, verb, actor, started_at, ended_at, outcome, detail)
SELECT n.effect_id, n.attempt, 'look_up', $1, clock_timestamp(), clock_timestamp(), n.outcome, n.detail::jsonb
FROM unnest($2::uuid [], $3::integer [], $4::text [], $5::text []) AS n (effect_id, attempt, outcome, detail)

-- name: definition
SELECT name, is_kind, version, document FROM sagas.definitions
WHERE environment = $1 AND name = $2 AND is_kind = $3 AND version = $4

-- name: definition_then
-- The version of a loose kind that was in force when the effect was admitted.
SELECT name, is_kind, version, document FROM sagas.definitions
WHERE environment = $1 AND name = $2 AND is_kind AND created_at <= $3
ORDER BY created_at DESC, version DESC LIMIT 1
