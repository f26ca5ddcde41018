-- Environments, flags, their revisions, kills as an overlay, and the instances that acknowledge them (P1, P2, P4).

CREATE SCHEMA IF NOT EXISTS flagd;

CREATE TABLE IF NOT EXISTS flagd.environments (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    generation bigint NOT NULL DEFAULT 1,
    revision bigint NOT NULL DEFAULT 0,
    evaluators json NOT NULL DEFAULT '{}',
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS flagd.flags (
    environment text NOT NULL REFERENCES flagd.environments,
    key text NOT NULL,
    document json NOT NULL,                   -- the flag as it was put: wire.Flag
    off_variant text NOT NULL,
    epoch bigint NOT NULL DEFAULT 1,          -- rises with every kill and every lift
    changed_generation bigint NOT NULL,
    changed_revision bigint NOT NULL,         -- the revision of its last change, kill and lift included
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at timestamptz,                  -- a key once used is never given to another flag
    PRIMARY KEY (environment, key)
);

CREATE TABLE IF NOT EXISTS flagd.revisions (
    environment text NOT NULL REFERENCES flagd.environments,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    actor text NOT NULL,
    reason text,
    operations json NOT NULL,                 -- [{"op": "put|archive|kill|lift", "key": ...}]
    keys text [] NOT NULL,                    -- the flags it touched
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, generation, revision)
);

CREATE TABLE IF NOT EXISTS flagd.kills (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    environment text NOT NULL,
    flag text NOT NULL,
    scope jsonb NOT NULL DEFAULT '{}',        -- {} is everyone, else attribute equals value, all of them
    off_variant text NOT NULL,
    closes_epoch bigint NOT NULL,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    rollback_id uuid NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    killed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lifted_at timestamptz,
    lifted_revision bigint,
    FOREIGN KEY (environment, flag) REFERENCES flagd.flags (environment, key)
);
CREATE UNIQUE INDEX IF NOT EXISTS one_standing_kill_per_scope
ON flagd.kills (environment, flag, scope) WHERE lifted_at IS NULL;

CREATE TABLE IF NOT EXISTS flagd.instances (
    environment text NOT NULL REFERENCES flagd.environments,
    id text NOT NULL,                         -- one running SDK
    service text NOT NULL,
    sdk_version text NOT NULL DEFAULT '',
    service_version text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    how text NOT NULL DEFAULT '',             -- push, poll, catch-up, reply, staleness
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    signed_off_at timestamptz,
    PRIMARY KEY (environment, id)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS flagd.acknowledgements (
    environment text NOT NULL,
    generation bigint NOT NULL,
    revision bigint NOT NULL,                 -- of a kill: these are acknowledged at once
    instance_id text NOT NULL,
    service text NOT NULL,
    how text NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, generation, revision, instance_id)
);
