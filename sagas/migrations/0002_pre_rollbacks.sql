-- Rollbacks, what becomes of each of their effects, and the compensations that undo them (P11 to P18).

CREATE TABLE IF NOT EXISTS sagas.rollbacks (
    id uuid PRIMARY KEY,
    environment text NOT NULL,
    state text NOT NULL DEFAULT 'fenced' CHECK (
        state IN ('fenced', 'drained', 'grace', 'held', 'compensating', 'paused', 'waiting', 'settled')),
    version bigint NOT NULL DEFAULT 1,        -- raised by everything that may change its sums
    generation bigint NOT NULL,
    revision bigint NOT NULL,                 -- of the kill
    compensate text NOT NULL CHECK (compensate IN ('auto', 'hold', 'none')),
    grace_seconds double precision NOT NULL DEFAULT 0 CHECK (grace_seconds >= 0),
    kill_count integer NOT NULL DEFAULT 1,    -- every kill request counts; a lift names the count it saw
    paused boolean NOT NULL DEFAULT false,    -- asked for; the state follows when no attempt runs
    reason text NOT NULL,
    incident text,
    actor text NOT NULL,
    fault_at timestamptz,
    detected_at timestamptz,
    decided_at timestamptz,
    fenced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at timestamptz,                    -- the drain barrier was granted for every flag: the set is complete
    contained_at timestamptz,
    drained_at timestamptz,
    grace_until timestamptz,
    enumerated_at timestamptz,                -- every effect of the set has its disposition row
    verified_at timestamptz,
    whole_at timestamptz,
    settled_at timestamptz,                   -- the first time
    settled_sums jsonb,                       -- the independent query's answer, with "as_of"
    reopened_count integer NOT NULL DEFAULT 0,
    lifted_at timestamptz,
    cancelled_by text,                        -- the rest is skipped in this person's name
    cancelled_reason text,
    outcome text                              -- of one that settled with nothing to undo: lifted_in_grace, not_compensated
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS rollbacks_by_environment ON sagas.rollbacks (environment, id);
CREATE INDEX IF NOT EXISTS rollbacks_unsettled ON sagas.rollbacks (id) WHERE state <> 'settled';

CREATE TABLE IF NOT EXISTS sagas.rollback_flags (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    environment text NOT NULL,
    flag text NOT NULL,
    scope_key text NOT NULL DEFAULT '',
    scope jsonb NOT NULL DEFAULT '{}',
    closes_epoch bigint NOT NULL,
    since_at timestamptz,
    since_generation bigint,
    since_revision bigint,
    closed_at timestamptz,                    -- its drain barrier was granted
    cursor uuid,                              -- the last effect enumerated
    enumerated boolean NOT NULL DEFAULT false,
    sweep bigint NOT NULL DEFAULT 0,          -- raised when it begins anew: what an earlier sweep reached no longer counts
    PRIMARY KEY (rollback_id, flag, scope_key)
);
CREATE INDEX IF NOT EXISTS rollback_flags_by_flag ON sagas.rollback_flags (environment, flag);

-- The unit that is carried out: a refund (one effect), a correction mail (all effects of a subject).
CREATE TABLE IF NOT EXISTS sagas.compensations (
    id uuid PRIMARY KEY,
    environment text NOT NULL,
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    kind text NOT NULL,                       -- of the effects it undoes
    action text NOT NULL CHECK (action IN ('refund', 'email', 'webhook', 'worker')),
    action_key text NOT NULL UNIQUE,          -- "<effect id>:<action>", or "<merge key>:<n>"
    merge_key text,                           -- "<rollback id>:<kind>:<version>:<subject>:<action>", null unless merged
    ends_as text NOT NULL DEFAULT 'compensated' CHECK (ends_as IN ('compensated', 'irreversible')),
    definition text NOT NULL,
    definition_is_kind boolean NOT NULL DEFAULT false,
    definition_version text NOT NULL,
    step text,
    connection text NOT NULL DEFAULT '',
    subject text,
    position timestamptz NOT NULL,            -- actual completion of what it undoes, the latest when merged
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- what changes
    state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'running', 'waiting', 'final')),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt integer NOT NULL DEFAULT 0,
    attempt_base integer NOT NULL DEFAULT 0,  -- attempts before a person said to try again: those no longer count
    token uuid,                               -- of the last attempt
    lease_until timestamptz,                  -- its attempt can act no longer than this
    first_sent_at timestamptz,                -- when its first attempt began: the provider's window counts from here
    doubtful boolean NOT NULL DEFAULT false,  -- an attempt of it may have acted without our knowing
    reason text,                              -- why it waits
    proof jsonb,
    CHECK (state <> 'running' OR (token IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'waiting' OR reason IS NOT NULL)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS compensations_due ON sagas.compensations (rollback_id, position DESC, id) WHERE state = 'due';
CREATE INDEX IF NOT EXISTS compensations_running ON sagas.compensations (environment, kind) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS compensations_waiting ON sagas.compensations (rollback_id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS compensations_merged ON sagas.compensations (merge_key) WHERE merge_key IS NOT NULL;

-- What became of each effect. One row per effect for ever: undone at most once (P13).
CREATE TABLE IF NOT EXISTS sagas.dispositions (
    effect_id uuid PRIMARY KEY REFERENCES sagas.effects,
    environment text NOT NULL,
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,   -- the one that undoes it
    compensation_id uuid REFERENCES sagas.compensations DEFERRABLE INITIALLY DEFERRED,
    kind text NOT NULL,
    saga text,
    saga_instance text,
    position timestamptz NOT NULL,            -- when the effect was completed; 'infinity' while undetermined: undone latest first
    amount_minor bigint,
    currency text,
    merge_key text,
    judge_at timestamptz,                     -- undetermined: when to judge whether it happened (P16); null once judged
    judge_count integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'pending' CHECK (
        state IN ('pending', 'waiting', 'compensated', 'never_happened', 'irreversible', 'skipped')),
    reason text,
    by_whom text,                             -- of a skip or a decision
    proof jsonb,
    acknowledged_by text,                     -- of an irreversible one
    acknowledged_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (state <> 'waiting' OR reason IS NOT NULL),
    CHECK (state <> 'skipped' OR by_whom IS NOT NULL),
    CHECK (judge_at IS NULL OR state = 'pending')
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS dispositions_by_compensation ON sagas.dispositions (compensation_id);
CREATE INDEX IF NOT EXISTS dispositions_by_saga_instance
ON sagas.dispositions (environment, saga, saga_instance) WHERE saga_instance IS NOT NULL;
CREATE INDEX IF NOT EXISTS dispositions_undetermined
ON sagas.dispositions (rollback_id, judge_at) WHERE judge_at IS NOT NULL;

-- Which rollbacks name an effect: two may, one undoes it, both report it. Never left again.
CREATE TABLE IF NOT EXISTS sagas.members (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    effect_id uuid NOT NULL,
    undetermined boolean NOT NULL DEFAULT false, -- its outcome was not known when it was joined
    joined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rollback_id, effect_id)
);
CREATE INDEX IF NOT EXISTS members_by_effect ON sagas.members (effect_id);

-- Effects to look at again: an outcome reported after the set was closed (P11), or a person asked.
CREATE TABLE IF NOT EXISTS sagas.late (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    effect_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rollback_id, effect_id)
);

-- What was tried, appended and never changed except by its own outcome.
CREATE TABLE IF NOT EXISTS sagas.attempts (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    compensation_id uuid REFERENCES sagas.compensations,
    effect_id uuid,                           -- of a look-up
    attempt integer NOT NULL,
    verb text NOT NULL CHECK (verb IN ('act', 'look_up', 'retry', 'skip')),
    actor text NOT NULL,
    relaxed boolean NOT NULL DEFAULT false,   -- begun out of order, to open a circle of merged compensations
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text,
    detail jsonb,
    CHECK (compensation_id IS NOT NULL OR effect_id IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS attempts_by_compensation ON sagas.attempts (compensation_id, attempt);
CREATE INDEX IF NOT EXISTS attempts_by_effect ON sagas.attempts (effect_id) WHERE effect_id IS NOT NULL;

-- One compensation at a time per subject: the row is the right (P14).
CREATE TABLE IF NOT EXISTS sagas.subjects (
    environment text NOT NULL,
    subject text NOT NULL,
    compensation_id uuid NOT NULL,
    PRIMARY KEY (environment, subject)
);
CREATE INDEX IF NOT EXISTS subjects_by_compensation ON sagas.subjects (compensation_id);

-- Rate, kept here so that it holds for every coordinator (P17). Who claims holds the row; what runs is counted, not noted.
CREATE TABLE IF NOT EXISTS sagas.paces (
    environment text NOT NULL,
    kind text NOT NULL,
    connection text NOT NULL DEFAULT '',
    next_at timestamptz NOT NULL DEFAULT '-infinity', -- when the rate allows the next attempt to begin
    PRIMARY KEY (environment, kind, connection)
);

-- 256 shards of rollbacks in 16 ranges of 16, each range leased by one coordinator at a time (P18).
CREATE TABLE IF NOT EXISTS sagas.leases (
    range smallint PRIMARY KEY CHECK (range BETWEEN 0 AND 15),
    holder text NOT NULL DEFAULT '',
    token bigint NOT NULL DEFAULT 0,
    renewed_at timestamptz NOT NULL DEFAULT '-infinity',
    expires_at timestamptz NOT NULL DEFAULT '-infinity'   -- '-infinity': given back, free for anyone
);
INSERT INTO sagas.leases (range) SELECT r FROM generate_series(0, 15) AS r ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION sagas.lease_range(rollback_id uuid) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT (hashtext(rollback_id::text) & 255) >> 4 $$;

-- Workers that poll, so that a preview can say what no live worker serves (P15).
CREATE TABLE IF NOT EXISTS sagas.workers (
    environment text NOT NULL,
    id text NOT NULL,
    saga text NOT NULL,
    version text NOT NULL,
    steps text [] NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, id, saga, version)
);

-- An effect that lacks an attribute of the scope counts as in (P4, hazard 9).
CREATE OR REPLACE FUNCTION sagas.in_scope(attributes jsonb, scope jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT scope = '{}' OR NOT EXISTS (
        SELECT FROM jsonb_each(scope) AS wanted
        WHERE attributes ? wanted.key AND attributes -> wanted.key <> wanted.value)
$$;

-- Permissions to begin that are young enough to be used, found without reading the ledger and without an index on every update.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS effects_by_start ON sagas.effects USING brin (start_until) WITH (autosummarize = on);

-- The rules of the set, in the one place that arming, enumeration and drain share; settlement has a query of its own (P12).
-- Those over one row are inlined wherever they are called.

-- Whether one flag of a rollback names an effect of that flag.
CREATE OR REPLACE FUNCTION sagas.is_named(f sagas.rollback_flags, e sagas.effects) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT NOT e.is_off
        AND e.epoch <= f.closes_epoch
        AND sagas.in_scope(e.attributes, f.scope)
        AND (f.since_at IS NULL OR e.admitted_at >= f.since_at)
        AND (f.since_revision IS NULL OR e.revision = 0
            OR (e.revision_generation, e.revision) >= (coalesce(f.since_generation, 0), f.since_revision))
$$;

-- When an effect was completed; where that was never told, when it was admitted: what followed it, followed that.
CREATE OR REPLACE FUNCTION sagas.completion(e sagas.effects) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT coalesce(e.completed_at, e.admitted_at) $$;

-- Whether an effect that a rollback names takes what was completed after it in its saga instance: only what is known to have
-- succeeded does (hazard 13).
CREATE OR REPLACE FUNCTION sagas.is_anchor(e sagas.effects) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT e.status = 'succeeded' AND e.saga_instance IS NOT NULL $$;

-- Whether an effect of that saga instance was completed after this instant, or may yet be.
CREATE OR REPLACE FUNCTION sagas.comes_after(e sagas.effects, instant timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT NOT e.is_off
        AND (e.status IN ('admitted', 'in_doubt')
            OR (e.status = 'succeeded' AND coalesce(e.completed_at, e.admitted_at) > instant))
$$;

-- Whether the definition of an effect says that a kill of another flag leaves it alone: its step's, else its kind's.
CREATE OR REPLACE FUNCTION sagas.is_independent(e sagas.effects) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(
        (SELECT coalesce((s.value ->> 'independent')::boolean, false)
         FROM sagas.definitions AS d
         CROSS JOIN LATERAL jsonb_array_elements(d.document -> 'steps') AS s
         WHERE d.environment = e.environment AND d.name = e.saga AND NOT d.is_kind AND d.version = e.saga_version
             AND s.value ->> 'name' = e.step
         LIMIT 1),
        (SELECT coalesce((d.document ->> 'independent')::boolean, false)
         FROM sagas.definitions AS d
         WHERE d.environment = e.environment AND d.name = e.kind AND d.is_kind
             AND (d.version = e.kind_version OR (e.kind_version IS NULL AND d.created_at <= e.admitted_at))
         ORDER BY d.created_at DESC, d.version DESC LIMIT 1),
        false)
$$;

-- The effects a rollback names through its own flags (P12); those of their saga instances come on top (hazard 13).
CREATE OR REPLACE VIEW sagas.named AS
SELECT f.rollback_id, f.scope_key, f.closed_at AS flag_closed_at, e.*
FROM sagas.rollback_flags AS f
INNER JOIN sagas.effects AS e ON e.environment = f.environment AND e.flag = f.flag
WHERE sagas.is_named(f, e);

-- Whether an effect is in a rollback's set: it was joined for good, or is named, or comes after one that is named and joined.
CREATE OR REPLACE FUNCTION sagas.in_set(in_rollback uuid, e sagas.effects) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (SELECT FROM sagas.members AS m WHERE m.rollback_id = in_rollback AND m.effect_id = e.id)
        OR EXISTS (
            SELECT FROM sagas.rollback_flags AS f
            WHERE f.rollback_id = in_rollback AND f.environment = e.environment AND f.flag = e.flag AND sagas.is_named(f, e))
        OR (EXISTS (
                SELECT FROM sagas.effects AS a
                INNER JOIN sagas.members AS m ON m.rollback_id = in_rollback AND m.effect_id = a.id
                INNER JOIN sagas.rollback_flags AS f
                    ON f.rollback_id = in_rollback AND f.environment = a.environment AND f.flag = a.flag
                WHERE a.environment = e.environment AND a.saga = e.saga AND a.saga_instance = e.saga_instance
                    AND a.saga_instance IS NOT NULL AND a.id <> e.id
                    AND sagas.is_named(f, a) AND sagas.is_anchor(a) AND sagas.comes_after(e, sagas.completion(a)))
            AND NOT sagas.is_independent(e))
$$;

-- Who begins attempts or enumerates holds it shared, from before it looks whether it may; who has to know that nobody does so
-- any more takes it exclusively, after saying so. A row lock would let claims that overlap keep a kill waiting (hazard 10).
CREATE OR REPLACE FUNCTION sagas.work_key(rollback_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT hashtextextended('rescind.work/' || rollback_id::text, 0) $$;

-- What changes for an effect in the rollback that undoes it is news for every other rollback that reports it (hazard 11): one
-- row, standing for all of this statement, has each of them look and count again. The rollback's own row is left alone: a
-- kill may hold it.
CREATE OR REPLACE FUNCTION sagas.tell_others() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    told uuid;
BEGIN
    FOR told IN
        INSERT INTO sagas.late (rollback_id, effect_id)
        SELECT DISTINCT ON (m.rollback_id) m.rollback_id, m.effect_id
        FROM changed AS c
        CROSS JOIN LATERAL (
            SELECT x.rollback_id, x.effect_id FROM sagas.members AS x
            WHERE x.effect_id = c.effect_id AND x.rollback_id <> c.rollback_id OFFSET 0
        ) AS m
        INNER JOIN sagas.rollbacks AS r ON r.id = m.rollback_id
        WHERE c.changed_at >= statement_timestamp() AND r.state <> 'settled' AND r.outcome IS NULL
        ORDER BY m.rollback_id, m.effect_id
        ON CONFLICT (rollback_id, effect_id) DO UPDATE SET at = clock_timestamp()
        RETURNING rollback_id
    LOOP
        PERFORM pg_notify('rescind_rollback', told::text);
    END LOOP;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER dispositions_changed AFTER UPDATE ON sagas.dispositions
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sagas.tell_others();

-- Called in the transaction that records an outcome: whoever names these effects looks at them again (P11, hazards 3 and 12).
-- Returns the rollbacks concerned. A rollback that had settled reopens and keeps its first time.
CREATE OR REPLACE FUNCTION sagas.arm_v1(effect_ids uuid []) RETURNS uuid [] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    touched uuid [];
    concerned record;
BEGIN
    WITH candidates AS MATERIALIZED (
        SELECT f.rollback_id, e.id AS effect_id
        FROM sagas.effects AS e
        INNER JOIN sagas.rollback_flags AS f ON f.environment = e.environment AND f.flag = e.flag
        WHERE e.id = ANY(effect_ids) AND f.closed_at IS NOT NULL
        UNION
        SELECT m.rollback_id, m.effect_id FROM sagas.members AS m WHERE m.effect_id = ANY(effect_ids)
        UNION
        SELECT m.rollback_id, e.id
        FROM sagas.effects AS e
        INNER JOIN sagas.effects AS a
            ON a.environment = e.environment AND a.saga = e.saga AND a.saga_instance = e.saga_instance AND a.id <> e.id
        INNER JOIN sagas.members AS m ON m.effect_id = a.id
        WHERE e.id = ANY(effect_ids) AND a.saga_instance IS NOT NULL
    ), concerned AS (
        SELECT c.rollback_id, c.effect_id
        FROM candidates AS c
        INNER JOIN sagas.effects AS e ON e.id = c.effect_id
        WHERE sagas.in_set(c.rollback_id, e)
            AND (EXISTS (SELECT FROM sagas.members AS m WHERE m.rollback_id = c.rollback_id AND m.effect_id = c.effect_id)
                OR NOT EXISTS (SELECT FROM sagas.dispositions AS d
                    WHERE d.effect_id = c.effect_id AND d.rollback_id <> c.rollback_id))
    ), noted AS (
        INSERT INTO sagas.late (rollback_id, effect_id)
        SELECT c.rollback_id, c.effect_id FROM concerned AS c
        INNER JOIN sagas.rollbacks AS r ON r.id = c.rollback_id
        WHERE r.outcome IS NULL AND r.compensate <> 'none'
        ORDER BY c.rollback_id, c.effect_id
        ON CONFLICT (rollback_id, effect_id) DO UPDATE SET at = clock_timestamp()
        RETURNING rollback_id
    )
    SELECT array_agg(DISTINCT rollback_id ORDER BY rollback_id) INTO touched FROM noted;

    FOR concerned IN SELECT r.id FROM sagas.rollbacks AS r WHERE r.id = ANY(touched) ORDER BY r.id FOR NO KEY UPDATE LOOP
        UPDATE sagas.rollbacks AS r SET
            version = r.version + 1,
            state = CASE WHEN news.changes AND r.state IN ('settled', 'waiting') THEN 'compensating' ELSE r.state END,
            reopened_count = r.reopened_count + (news.changes AND r.state = 'settled')::integer,
            whole_at = CASE WHEN news.changes THEN NULL ELSE r.whole_at END
        FROM (
            SELECT count(*) > 0 AS changes
            FROM sagas.late AS l
            INNER JOIN sagas.effects AS e ON e.id = l.effect_id
            LEFT JOIN sagas.dispositions AS d ON d.effect_id = l.effect_id
            WHERE l.rollback_id = concerned.id AND l.effect_id = ANY(effect_ids)
                AND (d.effect_id IS NULL OR d.state IN ('pending', 'waiting')
                    OR (d.state = 'never_happened' AND e.status IN ('succeeded', 'in_doubt')))
        ) AS news
        WHERE r.id = concerned.id;
        PERFORM pg_notify('rescind_rollback', concerned.id::text);
    END LOOP;
    RETURN coalesce(touched, '{}');
END $$;
