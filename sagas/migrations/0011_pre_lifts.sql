-- What a kill and a lift mean for running instances (docs/decisions/0029).

-- Instances that a kill stopped and has taken nothing of, one row for each flag that may have: whoever leases the range looks again
-- once that flag is open under a later epoch, whoever lifted it and whatever became of them.
CREATE TABLE IF NOT EXISTS sagas.stopped (
    range smallint NOT NULL,
    environment text NOT NULL,
    flag text NOT NULL,
    epoch bigint NOT NULL,                    -- of the flag, when it was looked at last
    uid uuid NOT NULL,
    PRIMARY KEY (range, environment, flag, epoch, uid)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS stopped_by_instance ON sagas.stopped (uid);

-- Who opened a flag again under which epoch, and why: for the histories of the instances that went on by it.
CREATE TABLE IF NOT EXISTS sagas.openings (
    environment text NOT NULL,
    flag text NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    by_whom text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, flag, epoch)
);

-- Those that were stopped before there was such a table are looked at once.
INSERT INTO sagas.stopped (range, environment, flag, epoch, uid)
SELECT DISTINCT sagas.lease_range(i.uid), i.environment, x.flag, 0, i.uid
FROM sagas.strays AS t
INNER JOIN sagas.instances AS i ON i.uid = t.uid
CROSS JOIN LATERAL (
    SELECT i.flag
    UNION
    SELECT e.flag FROM sagas.effects AS e
    WHERE e.environment = i.environment AND e.saga = i.saga AND e.saga_instance = i.id AND e.saga_instance IS NOT NULL
) AS x
WHERE t.state = 'killed'
ON CONFLICT DO NOTHING;

-- What a kill grants by name, in its own transaction (P8): instances of this version of a saga that it takes something of go on first,
-- all of them (`pivot` is null), or those whose pivot was completed before.
CREATE TABLE IF NOT EXISTS sagas.grants (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    environment text NOT NULL,
    flag text NOT NULL,
    scope_key text NOT NULL,
    closes_epoch bigint NOT NULL,             -- under which what they do is admitted: so it joins the set
    saga text NOT NULL,
    version text NOT NULL,
    pivot text,
    granted_at timestamptz NOT NULL,
    PRIMARY KEY (rollback_id, flag, scope_key, saga, version)
);
CREATE INDEX IF NOT EXISTS grants_by_flag ON sagas.grants (environment, flag);

-- Effects that were admitted under a grant.
CREATE TABLE IF NOT EXISTS sagas.continued (
    rollback_id uuid NOT NULL REFERENCES sagas.rollbacks,
    effect_id uuid NOT NULL,
    kind text NOT NULL,
    PRIMARY KEY (rollback_id, effect_id)
);

-- Whether an effect is of an instance that goes on under a grant of this rollback: it is undone once that has ended.
CREATE OR REPLACE FUNCTION sagas.continues(in_rollback uuid, e sagas.effects) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT e.saga_instance IS NOT NULL AND EXISTS (
        SELECT FROM sagas.grants AS g
        INNER JOIN sagas.rollback_flags AS f
            ON f.rollback_id = g.rollback_id AND f.flag = g.flag AND f.scope_key = g.scope_key
        INNER JOIN sagas.instances AS i
            ON i.environment = e.environment AND i.saga = e.saga AND i.id = e.saga_instance AND i.version = g.version
        WHERE g.rollback_id = in_rollback AND g.environment = e.environment AND g.saga = e.saga
            AND i.flag = g.flag AND NOT i.is_off AND NOT i.laid AND i.state IN ('running', 'waiting', 'undoing')
            AND EXISTS (
                SELECT FROM sagas.effects AS a
                WHERE a.environment = e.environment AND a.saga = e.saga AND a.saga_instance = e.saga_instance
                    AND a.saga_instance IS NOT NULL AND a.flag = f.flag AND sagas.is_named(f, a)
                    AND (g.pivot IS NULL
                        OR (a.step = g.pivot AND a.status = 'succeeded' AND a.completed_at <= g.granted_at))))
$$;
