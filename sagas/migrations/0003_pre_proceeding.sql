-- Flags that declare `on_unreachable: proceed`: their effects may be begun without the server, on lines in the journals of
-- instances. A rollback of such a flag is not settled while one may still hold such lines (P8, P10, P11, P12).

-- Set when the flag first declares it, in the transaction that puts the flag, and never taken back: lines may be older than a change of mind.
ALTER TABLE sagas.fences ADD COLUMN IF NOT EXISTS proceeds_since timestamptz;

-- When the line was written, by its machine's clock set right at delivery; null: admitted before it was done.
ALTER TABLE sagas.effects ADD COLUMN IF NOT EXISTS proceeded_at timestamptz;

-- The kill's revision for which it was last looked up who may hold lines.
ALTER TABLE sagas.rollbacks ADD COLUMN IF NOT EXISTS holders_generation bigint;
ALTER TABLE sagas.rollbacks ADD COLUMN IF NOT EXISTS holders_revision bigint;

-- The instances that might have held such lines at a kill. One is cleared by its own word, or written off by a named person.
CREATE TABLE IF NOT EXISTS sagas.holders (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    instance_id text NOT NULL,
    service text NOT NULL,
    seen_at timestamptz NOT NULL,
    has_open boolean NOT NULL DEFAULT false,  -- it said that it holds some
    cleared_at timestamptz,
    how text,                                 -- empty, signed_off, written_off
    by_whom text,
    reason text,
    PRIMARY KEY (rollback_id, instance_id),
    CHECK (cleared_at IS NULL OR how IS NOT NULL),
    CHECK (how <> 'written_off' OR by_whom IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS holders_uncleared ON sagas.holders (rollback_id) WHERE cleared_at IS NULL;

-- Whether an instance may still hold lines of a rollback's flags. Who cancels a rollback has answered for that too.
CREATE OR REPLACE FUNCTION sagas.is_held_open(r sagas.rollbacks) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.cancelled_by IS NULL
        AND EXISTS (SELECT FROM sagas.rollback_flags AS f
            INNER JOIN sagas.fences AS x ON x.environment = f.environment AND x.flag = f.flag AND x.scope_key = ''
            WHERE f.rollback_id = r.id AND x.proceeds_since IS NOT NULL)
        AND ((r.holders_generation, r.holders_revision) IS DISTINCT FROM (r.generation, r.revision)
            OR EXISTS (SELECT FROM sagas.holders AS h WHERE h.rollback_id = r.id AND h.cleared_at IS NULL))
$$;
