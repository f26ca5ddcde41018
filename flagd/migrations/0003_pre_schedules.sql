-- Changes that are applied later, and rollouts that go step by step: by the servers, in the name of who asked for them.

CREATE TABLE IF NOT EXISTS flagd.schedules (
    id uuid PRIMARY KEY,
    environment text NOT NULL REFERENCES flagd.environments,
    at timestamptz NOT NULL,                  -- by this database's clock
    operations json NOT NULL,                 -- as POST /changes takes them, without kills
    keys text [] NOT NULL,                    -- the flags that they are about
    bases json NOT NULL,                      -- {what is overwritten: [digests of what may stand there by then]}
    leaves json NOT NULL,                     -- {what is overwritten: digest of what then stands there}
    reason text,
    actor text NOT NULL,                      -- whose token it was, by name and by id
    token_id text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'applied', 'refused', 'cancelled')),
    generation bigint,                        -- the revision that it became
    revision bigint,
    faults json NOT NULL DEFAULT '[]',        -- why it was refused
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    ended_by text,
    ended_reason text,
    CHECK ((state = 'waiting') = (ended_at IS NULL)),
    CHECK ((state = 'applied') = (revision IS NOT NULL))
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS schedules_due ON flagd.schedules (environment, at, id) WHERE state = 'waiting';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS schedules_by_environment ON flagd.schedules (environment, id);

CREATE TABLE IF NOT EXISTS flagd.rollouts (
    id uuid PRIMARY KEY,
    environment text NOT NULL,
    flag text NOT NULL,
    variant text NOT NULL,                    -- what is rolled out
    rest text NOT NULL,                       -- what everyone else keeps
    steps json NOT NULL,                      -- [1, 10, 50, 100], in percent
    every_seconds double precision NOT NULL,
    done json NOT NULL,                       -- [{"percent": 1, "revision": "1.42", "at": ...}] of the steps that were taken
    epoch bigint NOT NULL,                    -- the flag's when it began: another one was killed since
    seen_generation bigint NOT NULL,          -- the flag's revision as the last step left it: at another one it was edited
    seen_revision bigint NOT NULL,
    reason text,
    actor text NOT NULL,
    token_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'finished', 'stopped')),
    stopped text CHECK (stopped IN ('asked', 'killed', 'edited', 'archived', 'refused')),
    faults json NOT NULL DEFAULT '[]',        -- of a step that was refused
    next_at timestamptz,                      -- by this database's clock; null once there is none
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    ended_by text,
    ended_reason text,
    FOREIGN KEY (environment, flag) REFERENCES flagd.flags (environment, key),
    CHECK ((state = 'stopped') = (stopped IS NOT NULL)),
    CHECK ((state = 'running') = (ended_at IS NULL)),
    CHECK ((state = 'running') = (next_at IS NOT NULL))
);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX IF NOT EXISTS one_running_rollout_per_flag ON flagd.rollouts (environment, flag) WHERE state = 'running';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS rollouts_of_a_flag ON flagd.rollouts (environment, flag, id);
