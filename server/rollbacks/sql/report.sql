-- The report: every effect of the set with what became of it (P12).

-- name: one_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: effects
SELECT e.id, e.kind, e.key, e.flag, e.variant, e.subject, e.saga, e.saga_version, e.saga_instance, e.step, e.status, e.begun,
    e.epoch, e.admitted_at, e.proceeded_at, e.completed_at, e.error,
    coalesce(d.state, 'pending') AS disposition, d.reason, d.by_whom, d.proof, d.amount_minor, d.currency,
    d.acknowledged_by, d.acknowledged_at, d.changed_at, d.rollback_id AS undone_by,
    c.action, c.action_key, c.connection, c.attempt AS attempts, c.state AS compensation_state, c.reason AS compensation_reason,
    CASE WHEN c.state = 'due' AND c.attempt > c.attempt_base THEN c.due_at END AS next_try_at,
    CASE WHEN d.state IN ('waiting', 'pending') THEN (
        SELECT a.detail FROM sagas.attempts AS a
        WHERE a.compensation_id = c.id AND a.verb = 'act' AND a.detail IS NOT NULL ORDER BY a.attempt DESC LIMIT 1
    ) END AS cause,
    CASE WHEN d.state = 'waiting' AND c.attempt > 0 THEN c.lease_until END AS can_no_longer_act_at
FROM sagas.members AS m
INNER JOIN sagas.effects AS e ON e.id = m.effect_id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
LEFT JOIN sagas.compensations AS c ON c.id = d.compensation_id
WHERE m.rollback_id = $1 AND ($2::uuid IS NULL OR m.effect_id > $2)
ORDER BY m.effect_id LIMIT $3
