-- Saga instances that Rescind runs (docs/decisions/0024). Where one stands is not stored: it follows from its effects and these facts.

CREATE TABLE IF NOT EXISTS sagas.instances (
    uid uuid PRIMARY KEY,                     -- uuidv7: its range follows from it, as a rollback's does (sagas.lease_range)
    environment text NOT NULL,
    saga text NOT NULL,
    id text NOT NULL,                         -- the caller's; `saga_instance` of its effects
    version text NOT NULL,
    flag text NOT NULL,
    variant text,
    is_off boolean NOT NULL,
    revision_generation bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    subject text,
    attributes jsonb NOT NULL DEFAULT '{}',
    input jsonb NOT NULL,
    input_hash bytea NOT NULL,                -- of version and input: the same id with another is a conflict
    run_by text,                              -- the worker that alone serves it, of `client.run`
    lease_seconds double precision NOT NULL DEFAULT 30,
    traceparent text,
    started_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- what changes; in no index, so that updates stay in their page
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'undoing', 'waiting', 'killed', 'done', 'undone')),
    paused boolean NOT NULL DEFAULT false,
    turned_back boolean NOT NULL DEFAULT false, -- once said, for ever: it never goes forward again, whatever is heard
    laid boolean NOT NULL DEFAULT false,      -- its undoing was handed to its range's standing rollback
    reason text,
    error jsonb,
    result jsonb,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CHECK (state <> 'waiting' OR reason IS NOT NULL)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX IF NOT EXISTS instances_by_id ON sagas.instances (environment, saga, id);

-- What was said and decided, appended and never changed: events, approvals, waits that ended by the clock, verbs of people.
CREATE TABLE IF NOT EXISTS sagas.facts (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    uid uuid NOT NULL,
    fact text NOT NULL,                       -- event, approved, refused, deadline, ended, cancel, retry, skip, pause, resume, taken_over
    name text NOT NULL DEFAULT '',            -- of the wait, or of the step
    detail jsonb,
    by_whom text NOT NULL,
    reason text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS facts_by_instance ON sagas.facts (uid, id);

-- Steps that nobody has taken yet, and retries for when they are due. Inserted and deleted, never updated.
CREATE TABLE IF NOT EXISTS sagas.ready (
    environment text NOT NULL,
    saga text NOT NULL,
    version text NOT NULL,
    due_at timestamptz NOT NULL,
    uid uuid NOT NULL,
    step text NOT NULL,
    run_by text,
    PRIMARY KEY (environment, saga, version, due_at, uid, step)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE INDEX IF NOT EXISTS ready_by_instance ON sagas.ready (uid);

-- Waits that stand: delays, events, approvals; `at` is when the delay ends or the deadline passes.
CREATE TABLE IF NOT EXISTS sagas.waits (
    range smallint NOT NULL,
    at timestamptz NOT NULL,                  -- 'infinity': no deadline
    uid uuid NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (range, at, uid, name)
);
CREATE INDEX IF NOT EXISTS waits_by_instance ON sagas.waits (uid);

-- Instances that a coordinator looks at: steps in workers' hands, whose leases may run out; what one process alone runs; what is
-- being undone.
CREATE TABLE IF NOT EXISTS sagas.moving (
    range smallint NOT NULL,
    uid uuid NOT NULL,
    PRIMARY KEY (range, uid)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Whose undoing a rollback carries: a kill's ('kill'), or that of instances that failed or were cancelled ('instances'): one
-- standing rollback per environment and range, never settled and not listed.
ALTER TABLE sagas.rollbacks ADD COLUMN IF NOT EXISTS carries text NOT NULL DEFAULT 'kill';
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX IF NOT EXISTS rollbacks_standing
ON sagas.rollbacks (environment, sagas.lease_range(id)) WHERE carries = 'instances';
