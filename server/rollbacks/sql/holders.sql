-- Who may still hold records of effects that were begun without the server (`on_unreachable: proceed`), by rollback.

-- name: open
-- Rollbacks, not settled, with a flag that ever declared it.
SELECT r.id FROM sagas.rollbacks AS r
WHERE r.state <> 'settled' AND EXISTS (
    SELECT FROM sagas.rollback_flags AS f
    INNER JOIN sagas.fences AS x ON x.environment = f.environment AND x.flag = f.flag AND x.scope_key = ''
    WHERE f.rollback_id = r.id AND x.proceeds_since IS NOT NULL)
ORDER BY r.id LIMIT $1

-- name: note
-- Instances of the flag's services that were seen since it first declared so, can act on it, and have not said since the kill that
-- they know of it and hold nothing.
INSERT INTO sagas.holders AS h (rollback_id, instance_id, service, seen_at, has_open)
SELECT DISTINCT r.id, i.id, i.service, i.seen_at, i.journal_open
FROM sagas.rollbacks AS r
INNER JOIN sagas.rollback_flags AS f ON f.rollback_id = r.id
INNER JOIN sagas.fences AS x ON x.environment = f.environment AND x.flag = f.flag AND x.scope_key = ''
INNER JOIN flagd.flags AS d ON d.environment = f.environment AND d.key = f.flag
INNER JOIN flagd.instances AS i ON i.environment = f.environment AND i.proceeds AND i.seen_at >= x.proceeds_since
WHERE r.id = $1
    AND (coalesce(json_array_length(d.document -> 'services'), 0) = 0 OR i.service IN (
        SELECT s.value FROM json_array_elements_text(d.document -> 'services') AS s (value)))
    AND NOT ((i.signed_off_at IS NOT NULL OR (i.generation, i.revision) >= (r.generation, r.revision)) AND NOT i.journal_open)
-- a kill that widened the rollback asks those anew who had spoken; what was written off stays so
ON CONFLICT (rollback_id, instance_id) DO UPDATE SET
    seen_at = excluded.seen_at, has_open = excluded.has_open, cleared_at = NULL, how = NULL
WHERE (h.cleared_at IS NULL AND (h.seen_at, h.has_open) IS DISTINCT FROM (excluded.seen_at, excluded.has_open))
    OR (h.how <> 'written_off' AND EXISTS (
        SELECT FROM sagas.rollbacks AS k
        WHERE k.id = h.rollback_id AND (k.holders_generation, k.holders_revision) IS DISTINCT FROM (k.generation, k.revision)))

-- name: clear
-- By their own word: an acknowledged revision and an empty journal, or the last beat and an empty journal.
UPDATE sagas.holders AS h SET
    cleared_at = clock_timestamp(), how = CASE WHEN i.signed_off_at IS NULL THEN 'empty' ELSE 'signed_off' END,
    seen_at = i.seen_at, has_open = false
FROM sagas.rollbacks AS r, flagd.instances AS i
WHERE h.rollback_id = $1 AND h.cleared_at IS NULL AND r.id = h.rollback_id
    AND i.environment = r.environment AND i.id = h.instance_id
    AND (i.signed_off_at IS NOT NULL OR (i.generation, i.revision) >= (r.generation, r.revision)) AND NOT i.journal_open
RETURNING h.instance_id

-- name: looked
-- Written once for each revision of the kill; the rollback counts again.
UPDATE sagas.rollbacks SET holders_generation = generation, holders_revision = revision, version = version + 1
WHERE id = $1 AND (holders_generation, holders_revision) IS DISTINCT FROM (generation, revision)
RETURNING pg_notify('rescind_rollback', id::text)

-- name: cleared
UPDATE sagas.rollbacks SET version = version + 1 WHERE id = $1 RETURNING pg_notify('rescind_rollback', id::text)

-- name: locked
SELECT r.id FROM sagas.rollbacks AS r WHERE r.id = $1 AND r.state <> 'settled' FOR NO KEY UPDATE

-- name: of
SELECT h.instance_id AS instance, h.service, h.seen_at, h.has_open, h.cleared_at, h.how, h.by_whom, h.reason
FROM sagas.holders AS h WHERE h.rollback_id = $1 AND (h.cleared_at IS NULL OR h.how = 'written_off')
ORDER BY h.cleared_at NULLS FIRST, h.service, h.instance_id LIMIT $2

-- name: proceeding
-- Which flags of the rollback declare it, or did, and how many effects of its set were begun so.
SELECT array_agg(DISTINCT f.flag ORDER BY f.flag) AS flags,
    (SELECT count(*) FROM sagas.members AS m INNER JOIN sagas.effects AS e ON e.id = m.effect_id
     WHERE m.rollback_id = $1 AND e.proceeded_at IS NOT NULL) AS effects
FROM sagas.rollback_flags AS f
INNER JOIN sagas.fences AS x ON x.environment = f.environment AND x.flag = f.flag AND x.scope_key = ''
WHERE f.rollback_id = $1 AND x.proceeds_since IS NOT NULL
