-- PostgreSQL was restored to an older state (P2, hazard 5): a new generation above everything that was seen, every epoch closed,
-- the kills that a cache or a replica knows laid again. And the kill that comes through even then (P4, P5).
--
-- What was seen is the caller's: the newest revision of its replica and of Redis, and the kills that stand there, as
-- [{"flag": key, "scope": {}, "rollback_id": uuid}]. What instances acknowledged is looked up here.
-- Errors: those of 0001, and RS006: the environment is in recovery (held and newest seen revision in DETAIL).

CREATE OR REPLACE FUNCTION rollbacks.newest_seen(
    in_environment text, in_seen_generation bigint, in_seen_revision bigint
) RETURNS TABLE (generation bigint, revision bigint) LANGUAGE sql STABLE AS $$
    SELECT s.generation, s.revision FROM (
        SELECT coalesce(in_seen_generation, 0) AS generation, coalesce(in_seen_revision, 0) AS revision
        UNION ALL
        SELECT i.generation, i.revision FROM flagd.instances AS i WHERE i.environment = in_environment
    ) AS s ORDER BY s.generation DESC, s.revision DESC LIMIT 1
$$;

-- Lays the kills that were seen and do not stand, under their own rollback's id where that was lost too, and held: what is undone
-- is for a person to say. Answers the flags whose kill cannot be laid, since they were lost themselves.
CREATE OR REPLACE FUNCTION rollbacks.lay_again_v1(in_environment text, in_known jsonb, in_actor text) RETURNS text []
LANGUAGE plpgsql AS $$
DECLARE
    k record;
    lost text [] := '{}';
BEGIN
    FOR k IN
        SELECT s.rollback_id, s.scope, array_agg(s.flag ORDER BY s.flag) AS flags
        FROM jsonb_to_recordset(coalesce(in_known, '[]')) AS s (flag text, scope jsonb, rollback_id uuid)
        WHERE NOT EXISTS (
            SELECT FROM flagd.kills AS x
            WHERE x.environment = in_environment AND x.flag = s.flag AND x.lifted_at IS NULL AND s.scope @> x.scope
        )
        GROUP BY s.rollback_id, s.scope ORDER BY s.rollback_id, s.scope
    LOOP
        lost := lost || ARRAY(
            SELECT f FROM unnest(k.flags) AS f
            WHERE NOT EXISTS (SELECT FROM flagd.flags AS x WHERE x.environment = in_environment AND x.key = f));
        k.flags := ARRAY(SELECT f FROM unnest(k.flags) AS f WHERE f <> ALL(lost));
        IF k.flags <> '{}' THEN
            PERFORM rollbacks.kill_v1(
                in_environment, k.flags, 'this kill was lost in a restore and is laid again', in_actor, NULL, 'hold', 0, k.scope,
                NULL, NULL, NULL, NULL, NULL, NULL,
                CASE WHEN NOT EXISTS (SELECT FROM sagas.rollbacks AS r WHERE r.id = k.rollback_id) THEN k.rollback_id END, true);
        END IF;
    END LOOP;
    RETURN lost;
END $$;

-- Puts the environment in recovery if it is older than what was seen; does nothing otherwise, also a second time.
CREATE OR REPLACE FUNCTION rollbacks.recover_v1(
    in_environment text, in_seen_generation bigint, in_seen_revision bigint, in_known jsonb, in_actor text
) RETURNS TABLE (generation bigint, revision bigint, entered boolean, lost text []) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    env record;
    newest record;
BEGIN
    SELECT * INTO env FROM rollbacks.lock_environment(in_environment);
    SELECT * INTO newest FROM rollbacks.newest_seen(in_environment, in_seen_generation, in_seen_revision);
    generation := env.generation;
    revision := env.revision;
    entered := (newest.generation, newest.revision) > (env.generation, env.revision);
    lost := '{}';
    IF NOT entered THEN
        RETURN NEXT;
        RETURN;
    END IF;
    generation := greatest(env.generation, newest.generation) + 1;
    revision := env.revision + 1;
    UPDATE flagd.environments AS e SET
        generation = recover_v1.generation, revision = recover_v1.revision,
        recovering_since = coalesce(e.recovering_since, clock_timestamp())
    WHERE e.name = in_environment;
    INSERT INTO flagd.revisions (environment, generation, revision, actor, reason, operations, keys)
    VALUES (in_environment, generation, revision, in_actor, 'PostgreSQL came back older than what was seen',
        json_build_array(json_build_object('op', 'recover')), '{}');
    UPDATE flagd.flags AS f SET
        epoch = f.epoch + 1, changed_generation = recover_v1.generation, changed_revision = recover_v1.revision
    WHERE f.environment = in_environment;
    UPDATE sagas.fences AS x SET epoch = x.epoch + 1, closed = true
    WHERE x.environment = in_environment AND x.scope_key = '';
    -- whoever acknowledged such a kill did so under revisions that may have meant something else
    UPDATE sagas.rollbacks AS r SET
        generation = recover_v1.generation, revision = recover_v1.revision, contained_at = NULL
    WHERE r.environment = in_environment AND r.state <> 'settled'
        AND EXISTS (SELECT FROM flagd.kills AS k WHERE k.rollback_id = r.id AND k.lifted_at IS NULL);
    INSERT INTO runtime.audit (actor, action, environment, object, reason, detail)
    VALUES (in_actor, 'environment.recover', in_environment, in_environment, 'PostgreSQL came back older than what was seen',
        jsonb_build_object('generation', generation, 'revision', revision,
            'held', env.generation || '.' || env.revision, 'seen', newest.generation || '.' || newest.revision));
    lost := rollbacks.lay_again_v1(in_environment, in_known, in_actor);
    PERFORM pg_notify('rescind_revision', in_environment || ' ' || generation || ' ' || revision);
    RETURN NEXT;
END $$;

-- `rescind doctor --restored`: what recover_v1 does, if nobody has yet; then flags that are not killed are open under a new epoch.
CREATE OR REPLACE FUNCTION rollbacks.restored_v1(
    in_environment text, in_seen_generation bigint, in_seen_revision bigint, in_known jsonb, in_actor text, in_reason text
) RETURNS TABLE (generation bigint, revision bigint, ended boolean, lost text []) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT r.generation, r.revision, r.lost INTO generation, revision, lost
    FROM rollbacks.recover_v1(in_environment, in_seen_generation, in_seen_revision, in_known, in_actor) AS r;
    UPDATE flagd.environments AS e SET revision = e.revision + 1, recovering_since = NULL
    WHERE e.name = in_environment AND e.recovering_since IS NOT NULL
    RETURNING e.revision INTO restored_v1.revision;
    ended := FOUND;
    IF NOT ended THEN
        SELECT e.revision INTO restored_v1.revision FROM flagd.environments AS e WHERE e.name = in_environment;
        RETURN NEXT;
        RETURN;
    END IF;
    WITH opened AS (
        UPDATE sagas.fences AS x SET
            epoch = x.epoch + 1, closed = false,
            opened_generation = restored_v1.generation, opened_revision = restored_v1.revision
        WHERE x.environment = in_environment AND x.scope_key = '' AND x.closed AND x.rollback_id IS NULL
        RETURNING x.flag
    )
    UPDATE flagd.flags AS f SET
        epoch = f.epoch + 1, changed_generation = restored_v1.generation, changed_revision = restored_v1.revision
    FROM opened AS o WHERE f.environment = in_environment AND f.key = o.flag;
    INSERT INTO flagd.revisions (environment, generation, revision, actor, reason, operations, keys)
    VALUES (in_environment, generation, revision, in_actor, in_reason,
        json_build_array(json_build_object('op', 'restored')), '{}');
    INSERT INTO runtime.audit (actor, action, environment, object, reason, detail)
    VALUES (in_actor, 'environment.restored', in_environment, in_environment, in_reason,
        jsonb_build_object('generation', generation, 'revision', revision, 'lost', lost));
    PERFORM pg_notify('rescind_revision', in_environment || ' ' || generation || ' ' || revision);
    RETURN NEXT;
END $$;

-- What a lift asks first: it would open a flag whose history is not settled. Locks the environment, as every revision does.
CREATE OR REPLACE FUNCTION rollbacks.expect_current_v1(
    in_environment text, in_seen_generation bigint, in_seen_revision bigint
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    env record;
    newest record;
BEGIN
    SELECT * INTO env FROM rollbacks.lock_environment(in_environment);
    SELECT * INTO newest FROM rollbacks.newest_seen(in_environment, in_seen_generation, in_seen_revision);
    IF (newest.generation, newest.revision) > (env.generation, env.revision)
        OR EXISTS (SELECT FROM flagd.environments AS e WHERE e.name = in_environment AND e.recovering_since IS NOT NULL)
    THEN
        RAISE EXCEPTION 'environment % is in recovery', in_environment USING ERRCODE = 'RS006',
            DETAIL = env.generation || '.' || env.revision || ' ' || newest.generation || '.' || newest.revision;
    END IF;
END $$;

-- The kill that every path calls: kill_v1, in a generation above everything that was seen.
CREATE OR REPLACE FUNCTION rollbacks.kill_v2(
    in_environment text, in_flags text [], in_reason text, in_actor text, in_incident text,
    in_compensate text, in_grace_seconds double precision, in_scope jsonb,
    in_since_at timestamptz, in_since_generation bigint, in_since_revision bigint,
    in_fault_at timestamptz, in_detected_at timestamptz, in_decided_at timestamptz, in_rollback_id uuid,
    in_change boolean DEFAULT false,
    in_seen_generation bigint DEFAULT NULL, in_seen_revision bigint DEFAULT NULL, in_known jsonb DEFAULT NULL
) RETURNS TABLE (
    rollback_id uuid, generation bigint, revision bigint, fenced_at timestamptz, joined boolean, widened boolean,
    kill_count integer, compensate text
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM rollbacks.recover_v1(in_environment, in_seen_generation, in_seen_revision, in_known, in_actor);
    RETURN QUERY SELECT * FROM rollbacks.kill_v1(
        in_environment, in_flags, in_reason, in_actor, in_incident, in_compensate, in_grace_seconds, in_scope,
        in_since_at, in_since_generation, in_since_revision, in_fault_at, in_detected_at, in_decided_at, in_rollback_id, in_change);
END $$;
