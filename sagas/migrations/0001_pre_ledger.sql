-- The effect ledger and its fence (P8, P9, P10), definitions pinned by version (P15), connections.

CREATE SCHEMA IF NOT EXISTS sagas;

-- One row per flag (scope_key '') and one per scope under a standing narrowed kill.
CREATE TABLE IF NOT EXISTS sagas.fences (
    environment text NOT NULL,
    flag text NOT NULL,
    scope_key text NOT NULL DEFAULT '',       -- canonical text of scope, '' for everyone
    scope jsonb NOT NULL DEFAULT '{}',
    lock_key bigint NOT NULL,                 -- of the flag: admission takes it shared, the drain barrier exclusive
    off_variant text NOT NULL,
    epoch bigint NOT NULL DEFAULT 1,          -- the flag's epoch on the '' row; on a scope's row the epoch it closed
    closed boolean NOT NULL DEFAULT false,
    rollback_id uuid,                         -- whose kill closed it
    opened_generation bigint NOT NULL DEFAULT 0,
    opened_revision bigint NOT NULL DEFAULT 0, -- where the present epoch opened: creation or the last lift
    PRIMARY KEY (environment, flag, scope_key)
);

CREATE OR REPLACE FUNCTION sagas.lock_key(environment text, flag text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT hashtextextended('rescind.fence/' || environment || '/' || flag, 0) $$;

CREATE TABLE IF NOT EXISTS sagas.effects (
    id uuid PRIMARY KEY,                      -- uuidv7: time-ordered, never reused
    environment text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,                        -- idempotency key
    generation integer NOT NULL DEFAULT 1,    -- of the key
    flag text NOT NULL,
    variant text,                             -- as served; null counts as not the off variant
    is_off boolean NOT NULL,
    revision_generation bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,       -- of the evaluation, 0: not told
    epoch bigint NOT NULL,                    -- that admitted it
    attributes jsonb NOT NULL DEFAULT '{}',
    saga text,
    saga_version text,
    saga_instance text,
    step text,
    kind_version text,
    subject text,
    payload jsonb NOT NULL,
    instance_id text NOT NULL DEFAULT '',     -- the SDK instance that asked
    admitted_at timestamptz NOT NULL DEFAULT now(), -- the transaction's begin: before its look at the fence, so before any kill it missed
    -- what changes; in no index, so that updates stay in their page
    status text NOT NULL DEFAULT 'admitted' CHECK (status IN ('admitted', 'succeeded', 'failed', 'in_doubt')),
    attempt integer NOT NULL DEFAULT 1,
    token uuid NOT NULL,                      -- of the present attempt
    begun boolean NOT NULL DEFAULT false,     -- said by its instance when it acknowledged a kill
    start_until timestamptz NOT NULL,
    lease_until timestamptz NOT NULL,
    tombstoned boolean NOT NULL DEFAULT false,-- this generation of the key is closed for ever
    undone boolean NOT NULL DEFAULT false,    -- a final disposition was written (compensated, irreversible, skipped)
    result jsonb,
    error jsonb,
    evidence jsonb NOT NULL DEFAULT '[]',     -- late or second reports, look-ups
    completed_at timestamptz                  -- when its success was reported, by PostgreSQL's clock
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS effects_by_flag ON sagas.effects (environment, flag, id);
CREATE INDEX IF NOT EXISTS effects_by_saga_instance
ON sagas.effects (environment, saga, saga_instance) WHERE saga_instance IS NOT NULL;

CREATE TABLE IF NOT EXISTS sagas.keys (
    environment text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    effect_id uuid NOT NULL,                  -- of the present generation
    generation integer NOT NULL DEFAULT 1,
    payload_hash bytea NOT NULL,
    last_used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, kind, key)
);

CREATE TABLE IF NOT EXISTS sagas.definitions (
    environment text NOT NULL,
    name text NOT NULL,                       -- of a saga, or of a loose kind
    is_kind boolean NOT NULL DEFAULT false,
    version text NOT NULL,
    document jsonb NOT NULL,
    semantics_hash bytea NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, name, is_kind, version)
);

CREATE TABLE IF NOT EXISTS sagas.connections (
    environment text NOT NULL,
    name text NOT NULL,
    document jsonb NOT NULL,                  -- secrets by reference: env:NAME or file:PATH
    updated_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, name)
);
