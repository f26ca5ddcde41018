-- What a lift means for the instances that its kill stopped (docs/decisions/0029).

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
