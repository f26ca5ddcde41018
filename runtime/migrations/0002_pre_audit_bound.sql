-- The audit log becomes partitioned by month in three steps (docs/decisions/0031). First: every entry, and every one that may come
-- until the partitions stand, is older than a bound two months ahead. New entries obey it at once, old ones are looked at in 0003.

-- The lowest UUID version 7 of an instant: ids carry the time, so a range of ids is a range of time.
CREATE OR REPLACE FUNCTION runtime.id_at(instant timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(EPOCH FROM instant) * 1000)::bigint), 12, '0') || '70008' || repeat('0', 15))::uuid
$$;

-- The first instant of a month in UTC, so many months from that of an instant.
CREATE OR REPLACE FUNCTION runtime.month_of(instant timestamptz, months integer) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (date_trunc('month', instant AT TIME ZONE 'UTC') + months * interval '1 month') AT TIME ZONE 'UTC'
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = 'runtime.audit'::regclass AND c.relkind = 'r')
        AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = 'runtime.audit'::regclass AND k.conname = 'audit_before')
    THEN
        EXECUTE format('ALTER TABLE runtime.audit ADD CONSTRAINT audit_before CHECK (id < %L) NOT VALID',
            runtime.id_at(runtime.month_of(clock_timestamp(), 2)));
    END IF;
END $$;
