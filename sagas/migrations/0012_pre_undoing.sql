-- Undoing in groups (docs/decisions/0030): what a worker undoes and what a coordinator carries out by itself are each found without
-- walking over the other, latest completion first.

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS compensations_due_worker
ON sagas.compensations (rollback_id, definition, position DESC, id DESC) WHERE state = 'due' AND action = 'worker';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS compensations_due_declared
ON sagas.compensations (rollback_id, position DESC, id DESC) WHERE state = 'due' AND action <> 'worker';

-- An attempt and a disposition are updated once, by how they end: with room on their page no index is written.
ALTER TABLE sagas.attempts SET (fillfactor = 50);
ALTER TABLE sagas.dispositions SET (fillfactor = 50);

-- The index of a saga's versions is found only by who asks for it by this condition, which holds of every row: while the table is young
-- and not analysed yet, a look by id took it for as good as the unique one, and read every instance of the saga. No release had it.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS instances_of_versions ON sagas.instances (environment, saga, version, uid) WHERE started_at > '-infinity';
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX IF EXISTS sagas.instances_by_version;
