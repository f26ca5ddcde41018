-- Kill and lift: one short transaction each over both wings, named by version, called by every path (P1, P4, P8, P19, P20).
--
-- Errors have states of their own: RS001 unknown environment, RS002 unknown flag (its key in DETAIL), RS003 nothing to lift,
-- RS004 a kill came in between (hazard 11), RS005 compensations are running.
--
-- Locks, in this order: the environment (every revision takes it first), flags, fences, rollbacks. None is held while
-- anything is waited for: the drain barrier comes after the commit, and belongs to the coordinator.

CREATE SCHEMA IF NOT EXISTS rollbacks;

CREATE OR REPLACE FUNCTION rollbacks.scope_key(scope jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE WHEN scope = '{}' THEN '' ELSE scope::text END $$;

-- The first line of every revision: the environment's row, locked; and its next number unless the caller's transaction took it.
CREATE OR REPLACE FUNCTION rollbacks.lock_environment(in_environment text)
RETURNS TABLE (generation bigint, revision bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.generation, e.revision FROM flagd.environments AS e WHERE e.name = in_environment FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown environment %', in_environment USING ERRCODE = 'RS001', DETAIL = in_environment;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION rollbacks.compensate_rank(compensate text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT array_position(ARRAY['none', 'hold', 'auto'], compensate) $$;

-- Raises what a standing rollback undoes, never lowers it (P19): an earlier since, none or hold to auto. Whatever was already
-- enumerated is looked at again. Answers whether anything was raised.
CREATE OR REPLACE FUNCTION rollbacks.strengthen_v1(
    in_rollback uuid, in_flags text [], in_compensate text, in_grace double precision, in_incident text,
    in_since_at timestamptz, in_since_generation bigint, in_since_revision bigint,
    in_fault_at timestamptz, in_detected_at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    r sagas.rollbacks;
    earlier boolean;
    stronger boolean;
BEGIN
    SELECT * INTO STRICT r FROM sagas.rollbacks WHERE id = in_rollback FOR NO KEY UPDATE;
    stronger := rollbacks.compensate_rank(in_compensate) > rollbacks.compensate_rank(r.compensate);

    WITH standing AS (
        SELECT f.rollback_id, f.flag, f.scope_key, f.since_at, f.since_generation, f.since_revision,
            -- what cannot be compared is compared by time: an effect of revision n was admitted after n was committed
            coalesce(f.since_at, (
                SELECT v.committed_at FROM flagd.revisions AS v
                WHERE v.environment = f.environment AND v.generation = f.since_generation AND v.revision = f.since_revision
            )) AS standing_time,
            coalesce(in_since_at, (
                SELECT v.committed_at FROM flagd.revisions AS v
                WHERE v.environment = f.environment AND v.generation = in_since_generation AND v.revision = in_since_revision
            )) AS asked_time
        FROM sagas.rollback_flags AS f
        WHERE f.rollback_id = in_rollback AND f.flag = ANY(in_flags)
            AND (f.since_at IS NOT NULL OR f.since_revision IS NOT NULL)
    ), decided AS (
        SELECT s.*, CASE
            WHEN in_since_at IS NULL AND in_since_revision IS NULL THEN 'all'
            WHEN s.since_revision IS NOT NULL AND in_since_revision IS NOT NULL THEN
                CASE WHEN (in_since_generation, in_since_revision) < (s.since_generation, s.since_revision) THEN 'asked' END
            WHEN s.asked_time < s.standing_time THEN 'time'
        END AS raised
        FROM standing AS s
    )
    UPDATE sagas.rollback_flags AS f SET
        since_at = CASE WHEN d.raised = 'time' THEN d.asked_time END,
        since_generation = CASE WHEN d.raised = 'asked' THEN in_since_generation END,
        since_revision = CASE WHEN d.raised = 'asked' THEN in_since_revision END
    FROM decided AS d
    WHERE d.raised IS NOT NULL
        AND f.rollback_id = d.rollback_id AND f.flag = d.flag AND f.scope_key = d.scope_key;
    earlier := FOUND;

    IF earlier OR stronger THEN
        UPDATE sagas.rollback_flags SET cursor = NULL, enumerated = false, sweep = sweep + 1 WHERE rollback_id = in_rollback;
    END IF;
    UPDATE sagas.rollbacks SET
        kill_count = kill_count + 1,
        version = version + 1,
        compensate = CASE WHEN stronger THEN in_compensate ELSE compensate END,
        grace_seconds = CASE WHEN stronger AND compensate = 'none' THEN in_grace ELSE grace_seconds END,
        incident = coalesce(incident, in_incident),
        fault_at = coalesce(fault_at, in_fault_at),
        detected_at = coalesce(detected_at, in_detected_at),
        enumerated_at = CASE WHEN earlier OR stronger THEN NULL ELSE enumerated_at END,
        outcome = CASE WHEN earlier OR stronger THEN NULL ELSE outcome END,
        reopened_count = reopened_count + CASE WHEN (earlier OR stronger) AND state = 'settled' THEN 1 ELSE 0 END,
        whole_at = CASE WHEN earlier OR stronger THEN NULL ELSE whole_at END,
        -- who cancelled did so for the set they saw
        cancelled_by = CASE WHEN earlier OR stronger THEN NULL ELSE cancelled_by END,
        cancelled_reason = CASE WHEN earlier OR stronger THEN NULL ELSE cancelled_reason END,
        state = CASE
            WHEN stronger AND state IN ('held', 'settled') THEN 'drained'
            WHEN earlier AND state = 'settled' AND outcome IS NOT NULL THEN 'drained'
            -- it only went on to skip: whether it begins is decided anew
            WHEN (earlier OR stronger) AND cancelled_by IS NOT NULL AND state IN ('compensating', 'waiting', 'settled')
                THEN 'drained'
            -- past its grace, or told to begin by a person: it is not held back again
            WHEN (earlier OR stronger) AND state IN ('waiting', 'settled') THEN 'compensating'
            ELSE state
        END
    WHERE id = in_rollback;
    RETURN earlier OR stronger;
END $$;

CREATE OR REPLACE FUNCTION rollbacks.kill_v1(
    in_environment text, in_flags text [], in_reason text, in_actor text, in_incident text,
    in_compensate text, in_grace_seconds double precision, in_scope jsonb,
    in_since_at timestamptz, in_since_generation bigint, in_since_revision bigint,
    in_fault_at timestamptz, in_detected_at timestamptz, in_decided_at timestamptz, in_rollback_id uuid,
    in_change boolean DEFAULT false          -- the caller's transaction is a change list: its revision is taken already
) RETURNS TABLE (
    rollback_id uuid, generation bigint, revision bigint, fenced_at timestamptz, joined boolean, widened boolean,
    kill_count integer, compensate text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    flags text [];
    missing text;
    covered text [];
    fresh text [];
    standing uuid [];
    target uuid;
    one uuid;
    env record;
    now_at timestamptz := clock_timestamp();
    the_scope jsonb := coalesce(in_scope, '{}');
    raised boolean := false;
    takes_revision boolean;
BEGIN
    -- hazard 6: a kill never waits for a standby
    PERFORM set_config('synchronous_commit', 'local', true);
    SELECT * INTO env FROM rollbacks.lock_environment(in_environment);
    SELECT array_agg(DISTINCT f ORDER BY f) INTO flags FROM unnest(in_flags) AS f;
    SELECT f INTO missing FROM unnest(flags) AS f
    WHERE NOT EXISTS (SELECT FROM flagd.flags AS k WHERE k.environment = in_environment AND k.key = f)
    ORDER BY f LIMIT 1;
    IF flags IS NULL OR missing IS NOT NULL THEN
        RAISE EXCEPTION 'unknown flag %', missing USING ERRCODE = 'RS002', DETAIL = coalesce(missing, '');
    END IF;

    -- covered: a standing kill asks for no more than this one does, so whoever is in this scope is in that one
    SELECT coalesce(array_agg(f), '{}') INTO covered FROM unnest(flags) AS f
    WHERE EXISTS (
        SELECT FROM flagd.kills AS k
        WHERE k.environment = in_environment AND k.flag = f AND k.lifted_at IS NULL AND the_scope @> k.scope
    );
    SELECT coalesce(array_agg(f ORDER BY f), '{}') INTO fresh FROM unnest(flags) AS f WHERE f <> ALL(covered);

    SELECT array_agg(DISTINCT k.rollback_id ORDER BY k.rollback_id) INTO standing FROM flagd.kills AS k
    WHERE k.environment = in_environment AND k.flag = ANY(covered) AND k.lifted_at IS NULL AND the_scope @> k.scope;
    FOREACH one IN ARRAY coalesce(standing, '{}') LOOP
        raised := rollbacks.strengthen_v1(
            one, covered, in_compensate, in_grace_seconds, in_incident, in_since_at, in_since_generation, in_since_revision,
            in_fault_at, in_detected_at) OR raised;
    END LOOP;

    -- a wider kill over narrower ones widens their rollback, the youngest if there are several
    SELECT k.rollback_id INTO target FROM flagd.kills AS k
    WHERE k.environment = in_environment AND k.flag = ANY(fresh) AND k.lifted_at IS NULL AND k.scope @> the_scope
    ORDER BY k.rollback_id DESC LIMIT 1;

    joined := fresh = '{}' OR target IS NOT NULL;
    widened := fresh <> '{}' AND target IS NOT NULL OR raised;
    takes_revision := fresh <> '{}' OR raised;

    IF takes_revision AND NOT in_change THEN
        env.revision := env.revision + 1;
        UPDATE flagd.environments AS e SET revision = env.revision WHERE e.name = in_environment;
        INSERT INTO flagd.revisions (environment, generation, revision, actor, reason, operations, keys)
        SELECT in_environment, env.generation, env.revision, in_actor, in_reason,
            json_agg(json_build_object('op', 'kill', 'key', f, 'scope', the_scope) ORDER BY f), flags
        FROM unnest(flags) AS f;
    END IF;

    IF fresh = '{}' THEN
        target := standing[cardinality(standing)];
    ELSIF target IS NULL THEN
        target := coalesce(in_rollback_id, uuidv7());
        INSERT INTO sagas.rollbacks (id, environment, generation, revision, compensate, grace_seconds, reason, incident, actor,
            fault_at, detected_at, decided_at, fenced_at)
        VALUES (target, in_environment, env.generation, env.revision, in_compensate, in_grace_seconds, in_reason, in_incident,
            in_actor, in_fault_at, in_detected_at, coalesce(in_decided_at, now_at), now_at);
    ELSE
        raised := rollbacks.strengthen_v1(
            target, fresh, in_compensate, in_grace_seconds, in_incident, in_since_at, in_since_generation, in_since_revision,
            in_fault_at, in_detected_at);
        UPDATE sagas.rollbacks AS r SET
            generation = env.generation, revision = env.revision, state = 'fenced',
            reopened_count = r.reopened_count + CASE WHEN r.state = 'settled' THEN 1 ELSE 0 END, outcome = NULL,
            closed_at = NULL, contained_at = NULL, drained_at = NULL, enumerated_at = NULL, whole_at = NULL,
            cancelled_by = NULL, cancelled_reason = NULL
        WHERE r.id = target;
    END IF;

    IF fresh <> '{}' THEN
        PERFORM rollbacks.close_v1(
            in_environment, fresh, the_scope, target, env.generation, env.revision, in_reason, in_actor, now_at,
            in_since_at, in_since_generation, in_since_revision);
    END IF;
    IF takes_revision THEN
        UPDATE flagd.flags AS k SET changed_generation = env.generation, changed_revision = env.revision
        WHERE k.environment = in_environment AND k.key = ANY(flags);
    END IF;

    SELECT r.id, r.generation, r.revision, r.fenced_at, r.kill_count, r.compensate
    INTO STRICT rollback_id, generation, revision, fenced_at, kill_count, compensate
    FROM sagas.rollbacks AS r WHERE r.id = target;
    IF takes_revision THEN
        generation := env.generation;
        revision := env.revision;
        fenced_at := now_at;
        PERFORM pg_notify('rescind_revision', in_environment || ' ' || generation || ' ' || revision);
    END IF;
    PERFORM pg_notify('rescind_rollback', target::text);
    INSERT INTO runtime.audit (actor, action, environment, object, reason, detail)
    SELECT in_actor, 'flag.kill', in_environment, f, in_reason, jsonb_build_object(
        'rollback_id', target, 'generation', generation, 'revision', revision, 'scope', the_scope, 'compensate', in_compensate,
        'grace_seconds', in_grace_seconds, 'incident', in_incident, 'since_at', in_since_at,
        'since_generation', in_since_generation, 'since_revision', in_since_revision,
        'covered', f = ANY(covered), 'joined', joined, 'widened', widened)
    FROM unnest(flags) AS f ORDER BY f;
    RETURN NEXT;
END $$;

-- Lays the overlay and closes the epoch of each flag for a scope. The scope's fence row holds the epoch that it closed; the
-- whole flag's row holds the flag's epoch, closed or not (hazard 9).
CREATE OR REPLACE FUNCTION rollbacks.close_v1(
    in_environment text, in_flags text [], in_scope jsonb, in_rollback uuid, in_generation bigint, in_revision bigint,
    in_reason text, in_actor text, in_at timestamptz,
    in_since_at timestamptz, in_since_generation bigint, in_since_revision bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    k record;
    key_of_scope text := rollbacks.scope_key(in_scope);
BEGIN
    FOR k IN
        SELECT f.key, f.off_variant, f.epoch FROM flagd.flags AS f
        WHERE f.environment = in_environment AND f.key = ANY(in_flags) ORDER BY f.key FOR UPDATE
    LOOP
        UPDATE flagd.flags AS f SET epoch = k.epoch + 1 WHERE f.environment = in_environment AND f.key = k.key;
        INSERT INTO sagas.fences AS x (environment, flag, lock_key, off_variant, epoch, closed, rollback_id)
        VALUES (in_environment, k.key, sagas.lock_key(in_environment, k.key), k.off_variant, k.epoch + 1, in_scope = '{}',
            CASE WHEN in_scope = '{}' THEN in_rollback END)
        ON CONFLICT (environment, flag, scope_key) DO UPDATE SET
            epoch = excluded.epoch, closed = x.closed OR excluded.closed,
            rollback_id = coalesce(excluded.rollback_id, x.rollback_id);
        IF in_scope <> '{}' THEN
            INSERT INTO sagas.fences (environment, flag, scope_key, scope, lock_key, off_variant, epoch, closed, rollback_id)
            VALUES (in_environment, k.key, key_of_scope, in_scope, sagas.lock_key(in_environment, k.key), k.off_variant,
                k.epoch, true, in_rollback)
            ON CONFLICT (environment, flag, scope_key) DO UPDATE SET
                epoch = excluded.epoch, closed = true, rollback_id = excluded.rollback_id;
        END IF;
        INSERT INTO flagd.kills (environment, flag, scope, off_variant, closes_epoch, generation, revision, rollback_id,
            reason, actor, killed_at)
        VALUES (in_environment, k.key, in_scope, k.off_variant, k.epoch, in_generation, in_revision, in_rollback,
            in_reason, in_actor, in_at);
        INSERT INTO sagas.rollback_flags (rollback_id, environment, flag, scope_key, scope, closes_epoch,
            since_at, since_generation, since_revision)
        VALUES (in_rollback, in_environment, k.key, key_of_scope, in_scope, k.epoch,
            in_since_at, in_since_generation, in_since_revision);
    END LOOP;
END $$;

-- Lifts every standing kill of one flag and opens a new epoch. A rollback that has undone nothing yet and has no other flag
-- standing settles as `lifted_in_grace`: its effects stay open for a later kill (P17).
CREATE OR REPLACE FUNCTION rollbacks.lift_v1(
    in_environment text, in_flag text, in_actor text, in_reason text, in_seen_count integer, in_force boolean
) RETURNS TABLE (
    generation bigint, revision bigint, lifted_at timestamptz, rollback_ids uuid [], kill_count integer, settled uuid []
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    env record;
    r sagas.rollbacks;
    untouched boolean;
    others boolean;
    busy boolean;
BEGIN
    SELECT * INTO env FROM rollbacks.lock_environment(in_environment);
    IF NOT EXISTS (SELECT FROM flagd.flags AS f WHERE f.environment = in_environment AND f.key = in_flag) THEN
        RAISE EXCEPTION 'unknown flag %', in_flag USING ERRCODE = 'RS002', DETAIL = in_flag;
    END IF;
    SELECT coalesce(array_agg(DISTINCT k.rollback_id ORDER BY k.rollback_id), '{}') INTO rollback_ids FROM flagd.kills AS k
    WHERE k.environment = in_environment AND k.flag = in_flag AND k.lifted_at IS NULL;
    IF rollback_ids = '{}' THEN
        RAISE EXCEPTION 'flag % is not killed', in_flag USING ERRCODE = 'RS003', DETAIL = in_flag;
    END IF;
    PERFORM FROM sagas.rollbacks AS b WHERE b.id = ANY(rollback_ids) ORDER BY b.id FOR NO KEY UPDATE;
    SELECT sum(b.kill_count) INTO kill_count FROM sagas.rollbacks AS b WHERE b.id = ANY(rollback_ids);
    IF in_seen_count IS NOT NULL AND in_seen_count <> kill_count THEN
        RAISE EXCEPTION 'flag % was killed again', in_flag USING ERRCODE = 'RS004', DETAIL = kill_count::text;
    END IF;

    lifted_at := clock_timestamp();
    generation := env.generation;
    revision := env.revision + 1;
    settled := '{}';
    FOR r IN SELECT b.* FROM sagas.rollbacks AS b WHERE b.id = ANY(rollback_ids) ORDER BY b.id LOOP
        untouched := r.state IN ('fenced', 'drained', 'grace', 'held')
            AND NOT EXISTS (SELECT FROM sagas.members AS m WHERE m.rollback_id = r.id)
            AND NOT EXISTS (SELECT FROM sagas.rollback_flags AS f
                WHERE f.rollback_id = r.id AND (f.cursor IS NOT NULL OR f.enumerated))
            AND pg_try_advisory_xact_lock(sagas.work_key(r.id));
        others := EXISTS (SELECT FROM flagd.kills AS k
            WHERE k.rollback_id = r.id AND k.lifted_at IS NULL AND k.flag <> in_flag);
        busy := r.state NOT IN ('waiting', 'settled') AND (
            r.state = 'paused' OR r.enumerated_at IS NULL
            OR EXISTS (SELECT FROM sagas.compensations AS c
                WHERE c.rollback_id = r.id AND c.state IN ('due', 'running', 'waiting'))
            OR EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.rollback_id = r.id AND d.judge_at IS NOT NULL));
        IF NOT untouched AND busy AND NOT coalesce(in_force, false) THEN
            RAISE EXCEPTION 'compensations of rollback % are running', r.id USING ERRCODE = 'RS005', DETAIL = r.id::text;
        END IF;
        IF untouched AND others THEN
            DELETE FROM sagas.rollback_flags AS f WHERE f.rollback_id = r.id AND f.flag = in_flag;
        END IF;
        IF untouched AND NOT others THEN
            settled := settled || r.id;
        END IF;
        UPDATE sagas.rollbacks AS b SET
            version = b.version + 1,
            lifted_at = CASE WHEN others THEN b.lifted_at ELSE lift_v1.lifted_at END,
            state = CASE WHEN untouched AND NOT others THEN 'settled' ELSE b.state END,
            outcome = CASE WHEN untouched AND NOT others THEN 'lifted_in_grace' ELSE b.outcome END,
            settled_at = CASE WHEN untouched AND NOT others THEN coalesce(b.settled_at, lift_v1.lifted_at) ELSE b.settled_at END
        WHERE b.id = r.id;
        PERFORM pg_notify('rescind_rollback', r.id::text);
    END LOOP;

    UPDATE flagd.environments AS e SET revision = lift_v1.revision WHERE e.name = in_environment;
    UPDATE flagd.flags AS f SET
        epoch = f.epoch + 1, changed_generation = env.generation, changed_revision = lift_v1.revision
    WHERE f.environment = in_environment AND f.key = in_flag;
    UPDATE flagd.kills AS k SET lifted_at = lift_v1.lifted_at, lifted_revision = lift_v1.revision
    WHERE k.environment = in_environment AND k.flag = in_flag AND k.lifted_at IS NULL;
    DELETE FROM sagas.fences AS x WHERE x.environment = in_environment AND x.flag = in_flag AND x.scope_key <> '';
    UPDATE sagas.fences AS x SET
        epoch = x.epoch + 1, closed = false, rollback_id = NULL,
        opened_generation = env.generation, opened_revision = lift_v1.revision
    WHERE x.environment = in_environment AND x.flag = in_flag AND x.scope_key = '';
    INSERT INTO flagd.revisions (environment, generation, revision, actor, reason, operations, keys)
    VALUES (in_environment, env.generation, lift_v1.revision, in_actor, in_reason,
        json_build_array(json_build_object('op', 'lift', 'key', in_flag)), ARRAY[in_flag]);
    INSERT INTO runtime.audit (actor, action, environment, object, reason, detail)
    VALUES (in_actor, 'flag.lift', in_environment, in_flag, in_reason, jsonb_build_object(
        'generation', env.generation, 'revision', lift_v1.revision, 'rollback_ids', rollback_ids, 'kill_count', kill_count,
        'settled', settled, 'force', coalesce(in_force, false)));
    PERFORM pg_notify('rescind_revision', in_environment || ' ' || env.generation || ' ' || lift_v1.revision);
    RETURN NEXT;
END $$;
