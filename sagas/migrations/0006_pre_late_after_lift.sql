-- Late news of a rollback that a lift ended in this moment opens it no more: nothing would ever settle it again (P11, P17).

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

    FOR concerned IN
        SELECT r.id FROM sagas.rollbacks AS r
        WHERE r.id = ANY(touched) AND r.outcome IS NULL -- read again under its lock: a lift may have ended it meanwhile
        ORDER BY r.id FOR NO KEY UPDATE
    LOOP
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
