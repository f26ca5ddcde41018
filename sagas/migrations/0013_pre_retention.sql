-- History that ends: what stays of it, and how far it was looked through (P9, P12, docs/decisions/0031). Nothing that stands is changed:
-- a server that knows none of this goes on, and answers for keys whose history has gone that it cannot decide.

-- What a key answers once the history of its present generation is gone. Written in the transaction that deletes the effect.
CREATE TABLE IF NOT EXISTS sagas.remains (
    id uuid PRIMARY KEY,                      -- the effect's: `effect_id` of its key's row
    environment text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    flag text NOT NULL,
    is_off boolean NOT NULL,
    epoch bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('succeeded', 'failed', 'in_doubt', 'admitted')),
    attempt integer NOT NULL,
    token uuid NOT NULL,                      -- of its last attempt: what is told again is not told anew
    tombstoned boolean NOT NULL,
    disposition text,                         -- compensated, irreversible, skipped, never_happened; null: nothing became of it
    result jsonb,                             -- of one that is replayed; of what was undone it is withheld, so not kept
    gone_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What the id of a saga instance answers once the instance is gone: it does not begin again.
CREATE TABLE IF NOT EXISTS sagas.instance_remains (
    environment text NOT NULL,
    saga text NOT NULL,
    id text NOT NULL,
    uid uuid NOT NULL,
    state text NOT NULL,                      -- done, undone, killed
    input_hash bytea NOT NULL,
    reason text,
    result jsonb,
    error jsonb,
    gone_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, saga, id)
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS instance_remains_by_uid ON sagas.instance_remains (uid);

-- Up to when history of a flag has gone that a kill could have named, by the day on which it went.
CREATE TABLE IF NOT EXISTS sagas.horizons (
    environment text NOT NULL,
    flag text NOT NULL,
    gone_on date NOT NULL,
    first_gone_at timestamptz NOT NULL,
    admitted_at timestamptz NOT NULL,         -- the latest of them
    number bigint NOT NULL,                   -- succeeded, not served the off variant, and not undone
    PRIMARY KEY (environment, flag, gone_on)
);

-- What became of effects of a rollback whose history has gone: its sums stay true.
CREATE TABLE IF NOT EXISTS sagas.gone (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    kind text NOT NULL,
    state text NOT NULL,
    currency text NOT NULL,                   -- '': without an amount
    number bigint NOT NULL,
    amount_minor numeric NOT NULL,
    PRIMARY KEY (rollback_id, kind, state, currency)
);

-- How far each kind of history was looked through. Whoever leases the first range moves it on.
CREATE TABLE IF NOT EXISTS sagas.sweeps (
    what text PRIMARY KEY CHECK (what IN ('instances', 'effects', 'keys', 'instance_ids', 'operations')),
    cursor uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,                     -- of the last time it came to the end
    looked bigint NOT NULL DEFAULT 0,         -- since it began
    dropped bigint NOT NULL DEFAULT 0,
    dropped_ever bigint NOT NULL DEFAULT 0
);
INSERT INTO sagas.sweeps (what)
SELECT w FROM unnest(ARRAY['instances', 'effects', 'keys', 'instance_ids', 'operations']) AS w ON CONFLICT DO NOTHING;

-- Whether an unfinished rollback of a kill names this flag: then all of the flag's history stays.
CREATE OR REPLACE FUNCTION sagas.is_flag_held_v1(in_environment text, in_flag text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (
        SELECT FROM sagas.rollback_flags AS f
        INNER JOIN sagas.rollbacks AS r ON r.id = f.rollback_id
        WHERE f.environment = in_environment AND f.flag = in_flag AND r.state <> 'settled')
$$;

-- Whether nothing is open about an effect: its outcome is known or decided, and no unfinished rollback names it, its flag, or what
-- was done in its saga instance (hazard 13).
CREATE OR REPLACE FUNCTION sagas.is_at_rest_v1(e sagas.effects) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (e.status IN ('succeeded', 'failed') OR e.undone)
        AND NOT sagas.is_flag_held_v1(e.environment, e.flag)
        AND NOT EXISTS (
            SELECT FROM sagas.dispositions AS d
            WHERE d.effect_id = e.id AND (d.state IN ('pending', 'waiting') OR (d.state = 'never_happened' AND e.status <> 'failed')))
        AND NOT EXISTS (
            SELECT FROM sagas.members AS m
            INNER JOIN sagas.rollbacks AS r ON r.id = m.rollback_id
            WHERE m.effect_id = e.id AND (
                (r.carries = 'kill' AND r.state <> 'settled')
                OR EXISTS (SELECT FROM sagas.late AS l WHERE l.rollback_id = m.rollback_id AND l.effect_id = m.effect_id)))
        AND (e.saga_instance IS NULL OR NOT EXISTS (
            SELECT FROM sagas.effects AS s
            WHERE s.environment = e.environment AND s.saga = e.saga AND s.saga_instance = e.saga_instance AND s.flag <> e.flag
                AND sagas.is_flag_held_v1(s.environment, s.flag)))
$$;

-- When something last became of an effect, as far as it is on record.
CREATE OR REPLACE FUNCTION sagas.last_changed_v1(e sagas.effects) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT greatest(e.admitted_at, e.completed_at, e.lease_until,
        (SELECT d.changed_at FROM sagas.dispositions AS d WHERE d.effect_id = e.id))
$$;

-- For how many days the history of an effect, or of an instance of a saga's version, is kept after its end; null: for ever.
CREATE OR REPLACE FUNCTION sagas.saga_days_v1(in_environment text, in_saga text, in_version text, default_days integer) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(
        (SELECT (d.document ->> 'retention_days')::integer FROM sagas.definitions AS d
         WHERE d.environment = in_environment AND d.name = in_saga AND NOT d.is_kind AND d.version = in_version),
        default_days)
$$;
CREATE OR REPLACE FUNCTION sagas.kept_days_v1(e sagas.effects, default_days integer) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN e.saga IS NOT NULL THEN sagas.saga_days_v1(e.environment, e.saga, e.saga_version, default_days)
        ELSE coalesce(
            (SELECT (d.document ->> 'retention_days')::integer FROM sagas.definitions AS d
             WHERE d.environment = e.environment AND d.name = e.kind AND d.is_kind
                 AND (e.kind_version IS NULL OR d.version = e.kind_version)
             ORDER BY d.created_at DESC, d.version DESC LIMIT 1),
            default_days)
    END
$$;
