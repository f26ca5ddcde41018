-- Look-ups by a team's own function: what became of an effect in doubt (docs/decisions/0032).

-- One per effect in doubt and attempt at it, whoever asks for it: the instance that cannot go on, or the undoing.
CREATE TABLE IF NOT EXISTS sagas.look_ups (
    effect_id uuid PRIMARY KEY,
    environment text NOT NULL,
    saga text NOT NULL,
    version text NOT NULL,
    step text NOT NULL,
    saga_instance text,
    attempt integer NOT NULL,                 -- the attempt whose outcome is asked for
    due_at timestamptz NOT NULL,              -- when a worker may take it; who takes it moves this on by its lease
    token uuid,                               -- of who has it
    count integer NOT NULL DEFAULT 0,         -- how often nobody could say
    said jsonb,                               -- what was said last
    given_up boolean NOT NULL DEFAULT false   -- a person decides
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS look_ups_due ON sagas.look_ups (environment, saga, version, due_at) WHERE NOT given_up;

-- Whose outcome a worker can look up, beside what it can undo.
ALTER TABLE sagas.workers ADD COLUMN IF NOT EXISTS look_ups text [] NOT NULL DEFAULT '{}';

-- Instances of one subject that run one after another (`ordered_by_subject`): in the line from their start to their end, and no
-- longer. Who leads runs; the lead goes on in the transaction that ends the last who had it.
CREATE TABLE IF NOT EXISTS sagas.lines (
    environment text NOT NULL,
    line text NOT NULL,                       -- the saga whose instances stand in it, or the one that they name
    subject text NOT NULL,
    position bigint NOT NULL,                 -- given under the line's lock: in the order in which they were started
    uid uuid NOT NULL,
    stripe smallint NOT NULL,                 -- of the lock under which the line changes
    leads boolean NOT NULL,                -- in no index
    PRIMARY KEY (environment, line, subject, position)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE UNIQUE INDEX IF NOT EXISTS lines_by_instance ON sagas.lines (uid);

-- The keys that payloads were ever sealed with, each with a value sealed by it: who starts without one, or with another under its id,
-- is told so before it does anything.
CREATE TABLE IF NOT EXISTS sagas.payload_keys (
    id text PRIMARY KEY,
    probe jsonb NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
