-- What stands behind a question: nothing but a person's decision sets it going (P14, P17; docs/decisions/0033).

-- Whether something that is not undone yet stands later in a saga instance in which this compensation stands.
CREATE OR REPLACE FUNCTION sagas.is_out_of_turn(p_id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM (
            SELECT m.environment, m.saga, m.saga_instance, max(m.position) AS position
            FROM sagas.dispositions AS m
            WHERE m.compensation_id = p_id AND m.state = 'pending' AND m.saga_instance IS NOT NULL
            GROUP BY 1, 2, 3
        ) AS p
        INNER JOIN sagas.dispositions AS y
            ON y.environment = p.environment AND y.saga = p.saga AND y.saga_instance = p.saga_instance
            AND y.state = 'pending' AND y.position > p.position AND y.compensation_id IS DISTINCT FROM p_id)
$$;

-- Whether the subject of this compensation, or of one that stands before it in the order, however many lie between, is in the
-- hands of one that waits for a person. Null is an effect that has none yet: time decides about it.
CREATE OR REPLACE FUNCTION sagas.is_behind_question(p_id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    WITH RECURSIVE before AS (
        SELECT p_id AS id
        UNION
        SELECT y.compensation_id
        FROM before AS b
        CROSS JOIN LATERAL (
            SELECT m.environment, m.saga, m.saga_instance, max(m.position) AS position
            FROM sagas.dispositions AS m
            WHERE m.compensation_id = b.id AND m.state = 'pending' AND m.saga_instance IS NOT NULL
            GROUP BY 1, 2, 3
        ) AS p
        INNER JOIN sagas.dispositions AS y
            ON y.environment = p.environment AND y.saga = p.saga AND y.saga_instance = p.saga_instance
            AND y.state = 'pending' AND y.position > p.position
        WHERE y.compensation_id IS NOT NULL
    )
    SELECT EXISTS (
        SELECT FROM before AS b
        INNER JOIN sagas.compensations AS c ON c.id = b.id
        INNER JOIN sagas.subjects AS s ON s.environment = c.environment AND s.subject = c.subject AND s.compensation_id <> c.id
        INNER JOIN sagas.compensations AS w ON w.id = s.compensation_id AND w.state = 'waiting')
$$;

-- How the undoing of an instance stands. `is_final`: all of it has ended; null: nothing was done. `reason`: why it waits, null where
-- something goes on by itself.
CREATE OR REPLACE FUNCTION sagas.undoing_v1(in_environment text, in_saga text, in_id text)
RETURNS TABLE (is_final boolean, reason text) LANGUAGE sql STABLE AS $$
    SELECT bool_and(coalesce(d.state NOT IN ('pending', 'waiting')
            AND NOT (d.state = 'never_happened' AND e.status IN ('succeeded', 'in_doubt')), false)) AS is_final,
        CASE WHEN bool_or(d.state = 'waiting') AND NOT EXISTS (
            SELECT FROM sagas.effects AS f
            LEFT JOIN sagas.dispositions AS p ON p.effect_id = f.id
            WHERE f.environment = in_environment AND f.saga = in_saga AND f.saga_instance = in_id
                AND (p.effect_id IS NULL OR p.state = 'pending') AND NOT sagas.is_behind_question(p.compensation_id))
        THEN min(d.reason) FILTER (WHERE d.state = 'waiting') END AS reason
    FROM sagas.effects AS e
    LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
    WHERE e.environment = in_environment AND e.saga = in_saga AND e.saga_instance = in_id
$$;
