-- Environments, flags and revisions. Every statement that reads a state reads it whole: one statement, one snapshot (P1).

-- name: list_environments
SELECT e.name, e.generation, e.revision, e.bucketing, e.created_at FROM flagd.environments AS e ORDER BY e.name;

-- name: create_environment
INSERT INTO flagd.environments (name) VALUES ($1) ON CONFLICT (name) DO NOTHING RETURNING name;

-- name: lock_environment
-- `told_revision`: the newest of this generation that an instance has acknowledged (P2).
SELECT e.generation, e.revision, e.evaluators, e.metadata, e.bucketing, e.recovering_since IS NOT NULL AS is_recovering, coalesce((
    SELECT max(i.revision) FROM flagd.instances AS i WHERE i.environment = e.name AND i.generation = e.generation
), 0) AS told_revision
FROM flagd.environments AS e WHERE e.name = $1 FOR UPDATE;

-- name: take_turn
-- Of those who edit; kills and lifts take the environment's row alone, and pass.
SELECT pg_advisory_xact_lock(hashtext('flagd turn'), hashtext($1));

-- name: advance
UPDATE flagd.environments SET revision = revision + 1 WHERE name = $1 RETURNING generation, revision;

-- name: put_document
UPDATE flagd.environments SET evaluators = $2, metadata = $3 WHERE name = $1;

-- name: put_bucketing
UPDATE flagd.environments SET bucketing = $2 WHERE name = $1;

-- name: held_flags
SELECT f.key, f.document::text AS document, f.epoch, f.changed_generation, f.changed_revision,
    f.archived_at IS NOT NULL AS is_archived
FROM flagd.flags AS f WHERE f.environment = $1 AND f.key = ANY($2::text []) ORDER BY f.key;

-- name: standing_kills
SELECT k.flag, k.rollback_id::text AS rollback_id, k.off_variant, k.closes_epoch, k.generation, k.revision, k.scope,
    k.reason, k.actor, k.killed_at
FROM flagd.kills AS k
WHERE k.environment = $1 AND k.lifted_at IS NULL AND ($2::text [] IS NULL OR k.flag = ANY($2))
ORDER BY k.generation, k.revision;

-- name: put_flags
INSERT INTO flagd.flags AS f (environment, key, document, off_variant, changed_generation, changed_revision)
SELECT $1, d.value ->> 'key', d.value, d.value ->> 'off_variant', $2, $3
FROM json_array_elements($4::json) AS d
ORDER BY d.value ->> 'key'
ON CONFLICT (environment, key) DO UPDATE SET
    document = excluded.document, off_variant = excluded.off_variant,
    changed_generation = excluded.changed_generation, changed_revision = excluded.changed_revision;

-- name: archive_flags
UPDATE flagd.flags SET archived_at = clock_timestamp(), changed_generation = $2, changed_revision = $3
WHERE environment = $1 AND key = ANY($4::text []);

-- name: record_revision
INSERT INTO flagd.revisions (environment, generation, revision, actor, reason, operations, keys)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: notify
SELECT pg_notify('rescind_revision', $1 || ' ' || $2 || ' ' || $3);

-- name: heads
SELECT e.name, e.generation, e.revision FROM flagd.environments AS e;

-- name: recovering
SELECT e.name FROM flagd.environments AS e WHERE e.recovering_since IS NOT NULL;

-- name: list_flags
SELECT f.key, f.document::text AS document, f.epoch, f.changed_generation, f.changed_revision, f.created_at, f.archived_at
FROM flagd.flags AS f
WHERE f.environment = $1 AND f.archived_at IS NULL AND f.key > $2 ORDER BY f.key LIMIT $3;

-- name: get_flag
SELECT f.key, f.document::text AS document, f.epoch, f.changed_generation, f.changed_revision, f.created_at, f.archived_at
FROM flagd.flags AS f WHERE f.environment = $1 AND f.key = $2;

-- name: flag_keys
SELECT f.key FROM flagd.flags AS f WHERE f.environment = $1 AND f.archived_at IS NULL ORDER BY f.key LIMIT 10000;

-- name: environment_document
SELECT e.generation, e.revision, e.evaluators, e.metadata, e.bucketing, e.recovering_since IS NOT NULL AS is_recovering, coalesce((
    SELECT max(i.revision) FROM flagd.instances AS i WHERE i.environment = e.name AND i.generation = e.generation
), 0) AS told_revision
FROM flagd.environments AS e WHERE e.name = $1;

-- name: all_flags
SELECT f.document::text AS document FROM flagd.flags AS f
WHERE f.environment = $1 AND f.archived_at IS NULL ORDER BY f.key;
