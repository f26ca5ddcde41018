-- Counts of evaluations and outcomes. Rows are always taken in the order of their keys: two servers never wait for each other.

-- name: open_runs
-- Holds the runs until the end of the transaction, and says how far each is. `now`: windows are placed by this clock alone.
INSERT INTO flagd.count_runs AS r (environment, run)
SELECT o.environment, o.run FROM unnest($1::text [], $2::text []) AS o (environment, run) ORDER BY o.environment, o.run
ON CONFLICT (environment, run) DO UPDATE SET seen_at = clock_timestamp()
RETURNING r.environment, r.run, r.sequence, extract(epoch FROM clock_timestamp())::float8 AS now;

-- name: advance_runs
UPDATE flagd.count_runs AS r SET sequence = o.sequence
FROM unnest($1::text [], $2::text [], $3::bigint []) AS o (environment, run, sequence)
WHERE r.environment = o.environment AND r.run = o.run;

-- name: known_flags
SELECT f.environment, f.key
FROM (SELECT DISTINCT a.environment, a.flag FROM unnest($1::text [], $2::text []) AS a (environment, flag)) AS asked
INNER JOIN flagd.flags AS f ON f.environment = asked.environment AND f.key = asked.flag;

-- name: add_evaluations
WITH added AS (
    SELECT a.* FROM json_to_recordset($1::json) AS a (
        environment text, flag text, window_at double precision, service text, variant text, reason text, count bigint
    )
)
INSERT INTO flagd.evaluation_counts AS c (environment, flag, window_at, service, variant, reason, count)
SELECT a.environment, a.flag, to_timestamp(a.window_at), a.service, a.variant, a.reason, a.count FROM added AS a
ORDER BY a.environment, a.flag, a.window_at, a.service, a.variant, a.reason
ON CONFLICT (environment, flag, window_at, service, variant, reason) DO UPDATE SET count = c.count + excluded.count;

-- name: add_outcomes
WITH added AS (
    SELECT a.* FROM json_to_recordset($1::json) AS a (
        environment text, flag text, window_at double precision, service text, variant text, ok bigint, failed bigint,
        durations jsonb
    )
)
INSERT INTO flagd.outcome_counts AS c (environment, flag, window_at, service, variant, ok, failed, durations)
SELECT a.environment, a.flag, to_timestamp(a.window_at), a.service, a.variant, a.ok, a.failed, a.durations FROM added AS a
ORDER BY a.environment, a.flag, a.window_at, a.service, a.variant
ON CONFLICT (environment, flag, window_at, service, variant) DO UPDATE SET
    ok = c.ok + excluded.ok, failed = c.failed + excluded.failed,
    durations = (
        SELECT coalesce(jsonb_object_agg(summed.bucket, summed.number), '{}') FROM (
            SELECT one.bucket, sum(one.number::bigint) AS number
            FROM (
                SELECT * FROM jsonb_each_text(c.durations) AS held (bucket, number)
                UNION ALL SELECT * FROM jsonb_each_text(excluded.durations) AS more (bucket, number)
            ) AS one GROUP BY one.bucket
        ) AS summed
    );

-- name: evaluations
-- Of one flag from $3 until $4, by windows of $5 seconds. `now`: windows that end later are not complete.
SELECT date_bin(make_interval(secs => $5), c.window_at, 'epoch') AS at, c.service, c.variant, c.reason,
    sum(c.count)::bigint AS count
FROM flagd.evaluation_counts AS c
WHERE c.environment = $1 AND c.flag = $2 AND c.window_at >= $3 AND c.window_at < $4
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $6;

-- name: outcomes
WITH held AS (
    SELECT date_bin(make_interval(secs => $5), c.window_at, 'epoch') AS at, c.service, c.variant, c.ok, c.failed, c.durations
    FROM flagd.outcome_counts AS c
    WHERE c.environment = $1 AND c.flag = $2 AND c.window_at >= $3 AND c.window_at < $4
),

buckets AS (
    SELECT summed.at, summed.service, summed.variant, jsonb_object_agg(summed.bucket, summed.number) AS durations FROM (
        SELECT h.at, h.service, h.variant, one.bucket, sum(one.number::bigint)::bigint AS number
        FROM held AS h CROSS JOIN LATERAL jsonb_each_text(h.durations) AS one (bucket, number)
        GROUP BY h.at, h.service, h.variant, one.bucket
    ) AS summed GROUP BY summed.at, summed.service, summed.variant
),

outcomes AS (
    SELECT h.at, h.service, h.variant, sum(h.ok)::bigint AS ok, sum(h.failed)::bigint AS failed
    FROM held AS h GROUP BY h.at, h.service, h.variant
)

SELECT o.at, o.service, o.variant, o.ok, o.failed, coalesce(b.durations, '{}') AS durations
FROM outcomes AS o LEFT JOIN buckets AS b ON b.at = o.at AND b.service = o.service AND b.variant = o.variant
ORDER BY o.at, o.service, o.variant LIMIT $6;

-- name: now
SELECT clock_timestamp() AS now;

-- name: forget_evaluations
DELETE FROM flagd.evaluation_counts WHERE ctid IN (
    SELECT c.ctid FROM flagd.evaluation_counts AS c
    WHERE c.window_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2
);

-- name: forget_outcomes
DELETE FROM flagd.outcome_counts WHERE ctid IN (
    SELECT c.ctid FROM flagd.outcome_counts AS c
    WHERE c.window_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2
);

-- name: forget_runs
DELETE FROM flagd.count_runs WHERE seen_at < clock_timestamp() - make_interval(secs => $1);
