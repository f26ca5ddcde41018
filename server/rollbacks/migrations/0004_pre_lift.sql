-- The lift that every path calls: lift_v1, and who opened the flag is kept where the sagas' room reads it (docs/decisions/0029).

CREATE OR REPLACE FUNCTION rollbacks.lift_v2(
    in_environment text, in_flag text, in_actor text, in_reason text, in_seen_count integer, in_force boolean
) RETURNS TABLE (
    generation bigint, revision bigint, lifted_at timestamptz, rollback_ids uuid [], kill_count integer, settled uuid []
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT l.generation, l.revision, l.lifted_at, l.rollback_ids, l.kill_count, l.settled
    INTO STRICT generation, revision, lifted_at, rollback_ids, kill_count, settled
    FROM rollbacks.lift_v1(in_environment, in_flag, in_actor, in_reason, in_seen_count, in_force) AS l;
    INSERT INTO sagas.openings (environment, flag, epoch, generation, revision, by_whom, reason, at)
    SELECT x.environment, x.flag, x.epoch, lift_v2.generation, lift_v2.revision, in_actor, in_reason, lift_v2.lifted_at
    FROM sagas.fences AS x WHERE x.environment = in_environment AND x.flag = in_flag AND x.scope_key = ''
    ON CONFLICT DO NOTHING;
    RETURN NEXT;
END $$;
