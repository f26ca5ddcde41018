-- The kill that every path calls: kill_v2, and what it grants by name, in the same transaction (P8, docs/decisions/0029). A row per
-- version of a saga, however many instances run: a kill is as short for a hundred thousand of them as for one.

CREATE OR REPLACE FUNCTION rollbacks.kill_v3(
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
    SELECT k.rollback_id, k.generation, k.revision, k.fenced_at, k.joined, k.widened, k.kill_count, k.compensate
    INTO STRICT rollback_id, generation, revision, fenced_at, joined, widened, kill_count, compensate
    FROM rollbacks.kill_v2(
        in_environment, in_flags, in_reason, in_actor, in_incident, in_compensate, in_grace_seconds, in_scope,
        in_since_at, in_since_generation, in_since_revision, in_fault_at, in_detected_at, in_decided_at, in_rollback_id, in_change,
        in_seen_generation, in_seen_revision, in_known) AS k;
    IF NOT joined OR widened THEN
        -- of what this kill closed: a flag that stood closed before keeps what was granted then
        INSERT INTO sagas.grants (rollback_id, environment, flag, scope_key, closes_epoch, saga, version, pivot, granted_at)
        SELECT f.rollback_id, f.environment, f.flag, f.scope_key, f.closes_epoch, d.name, d.version,
            CASE WHEN d.document ->> 'on_kill' = 'finish_then_compensate' THEN NULL ELSE p.step END, clock_timestamp()
        FROM sagas.rollback_flags AS f
        INNER JOIN flagd.kills AS k
            ON k.environment = f.environment AND k.flag = f.flag AND k.rollback_id = f.rollback_id
            AND rollbacks.scope_key(k.scope) = f.scope_key AND k.generation = kill_v3.generation AND k.revision = kill_v3.revision
        INNER JOIN sagas.definitions AS d
            ON d.environment = f.environment AND NOT d.is_kind AND d.document ->> 'flag' = f.flag
        LEFT JOIN LATERAL (
            SELECT s.value ->> 'name' AS step FROM jsonb_array_elements(d.document -> 'steps') AS s
            WHERE s.value ->> 'class' = 'pivot' LIMIT 1
        ) AS p ON true
        WHERE f.rollback_id = kill_v3.rollback_id AND f.closed_at IS NULL
            AND (d.document ->> 'on_kill' = 'finish_then_compensate' OR p.step IS NOT NULL)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NEXT;
END $$;
