-- Search over instances, verbs for many of them at once, and the spans that effects came from (docs/decisions/0026).

-- Instances that left the straight way from running to done, by how they stand: written when they leave it, never on the way.
CREATE TABLE IF NOT EXISTS sagas.strays (
    environment text NOT NULL,
    state text NOT NULL,                      -- waiting, undoing, killed, undone; paused stands beside the state of the others
    uid uuid NOT NULL,
    saga text NOT NULL,
    PRIMARY KEY (environment, state, uid)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO sagas.strays (environment, state, uid, saga)
SELECT i.environment, i.state, i.uid, i.saga FROM sagas.instances AS i WHERE i.state NOT IN ('running', 'done')
UNION ALL
SELECT i.environment, 'paused', i.uid, i.saga FROM sagas.instances AS i WHERE i.paused
ON CONFLICT DO NOTHING;

-- Over columns that are never updated: an instance still goes from its start to its end inside its page.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS instances_by_version ON sagas.instances (environment, saga, version, uid);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS instances_by_subject ON sagas.instances (environment, subject, uid) WHERE subject IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS instances_by_attributes
ON sagas.instances USING gin (attributes jsonb_path_ops) WHERE attributes <> '{}';

-- One verb for all instances that a filter finds, carried out in chunks by whoever leases its range.
CREATE TABLE IF NOT EXISTS sagas.operations (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    environment text NOT NULL,
    saga text,                                -- null: of all sagas
    verb text NOT NULL CHECK (verb IN ('cancel', 'pause', 'resume', 'retry', 'skip')),
    step text NOT NULL DEFAULT '',
    filter jsonb NOT NULL,
    per_second double precision NOT NULL CHECK (per_second > 0),
    reason text NOT NULL,
    actor text NOT NULL,
    estimated bigint NOT NULL,                -- how many the filter found when it began
    is_exact boolean NOT NULL,                -- counted, not estimated
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- what changes; of it the index below knows the end alone
    cursor uuid NOT NULL,                     -- instances below this one are still to come; it begins above all that stood then
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when the pace allows the next chunk
    done bigint NOT NULL DEFAULT 0,
    refused jsonb NOT NULL DEFAULT '{}',      -- by reason, how many were left as they stood
    cancelled_by text,
    cancelled_reason text,
    ended_at timestamptz
) WITH (fillfactor = 50);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS operations_open ON sagas.operations (id) WHERE ended_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS operations_by_environment ON sagas.operations (environment, id);

-- The span in which an effect was done, so that the span of its compensation can say what it undoes (W3C Trace Context).
ALTER TABLE sagas.effects ADD COLUMN IF NOT EXISTS traceparent text;
