-- Third: the table is the first partition, unread and unwritten, since its bound is proven; its indexes become parts of the new ones.
DO $$
DECLARE
    bound text;
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = 'runtime.audit'::regclass AND c.relkind = 'p') THEN
        RETURN;
    END IF;
    SELECT substring(pg_get_constraintdef(k.oid) FROM '[0-9a-f]{8}-[0-9a-f-]{27}') INTO STRICT bound
    FROM pg_constraint AS k WHERE k.conrelid = 'runtime.audit'::regclass AND k.conname = 'audit_before';
    ALTER TABLE runtime.audit RENAME TO audit_first;
    ALTER INDEX runtime.audit_pkey RENAME TO audit_first_pkey;
    ALTER INDEX runtime.audit_by_object RENAME TO audit_first_by_object;
    CREATE TABLE runtime.audit (LIKE runtime.audit_first INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE INDEX audit_by_object ON runtime.audit (environment, object, id);
    EXECUTE format('ALTER TABLE runtime.audit ATTACH PARTITION runtime.audit_first FOR VALUES FROM (MINVALUE) TO (%L)', bound);
    -- where entries go for which nobody has made a partition: none is ever refused
    CREATE TABLE runtime.audit_rest PARTITION OF runtime.audit DEFAULT;
END $$;

CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON runtime.audit
FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();
CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON runtime.audit_rest
FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

-- The partitions that are bounded above, with their upper bound.
CREATE OR REPLACE VIEW runtime.audit_partitions AS
SELECT c.relname AS name, x.upper, uuid_extract_timestamp(x.upper) AS ends_at
FROM pg_inherits AS i
INNER JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid AS upper
) AS x
WHERE i.inhparent = 'runtime.audit'::regclass AND x.upper IS NOT NULL;

-- Make the partition that follows the last one, if that ends less than so many months ahead. Answers its name, or null. Attached with
-- a proven bound: entries may be written meanwhile. One at a time; who comes second has nothing to do.
CREATE OR REPLACE FUNCTION runtime.make_audit_partition_v1(months_ahead integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    begins timestamptz;
    made text;
    lowest uuid;
    upper uuid;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('rescind.audit_partitions', 0)) THEN
        RETURN NULL;
    END IF;
    SELECT max(p.ends_at) INTO STRICT begins FROM runtime.audit_partitions AS p;
    -- every partition was dropped, or nobody made one for long: on from this month
    begins := greatest(begins, runtime.month_of(clock_timestamp(), 0));
    -- a month of which entries lie in the rest stays there
    WHILE EXISTS (SELECT FROM runtime.audit_rest AS r
        WHERE r.id >= runtime.id_at(begins) AND r.id < runtime.id_at(runtime.month_of(begins, 1))) LOOP
        begins := runtime.month_of(begins, 1);
    END LOOP;
    IF begins >= runtime.month_of(clock_timestamp(), months_ahead) THEN
        RETURN NULL;
    END IF;
    made := 'audit_' || to_char(begins AT TIME ZONE 'UTC', 'YYYY_MM');
    lowest := runtime.id_at(begins);
    upper := runtime.id_at(runtime.month_of(begins, 1));
    EXECUTE format('CREATE TABLE runtime.%I (LIKE runtime.audit INCLUDING DEFAULTS INCLUDING INDEXES, CHECK (id >= %L AND id < %L))',
        made, lowest, upper);
    EXECUTE format('CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON runtime.%I'
        ' FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change()', made);
    EXECUTE format('ALTER TABLE runtime.audit ATTACH PARTITION runtime.%I FOR VALUES FROM (%L) TO (%L)', made, lowest, upper);
    RETURN made;
END $$;

-- Drop the oldest partition of which every entry is older than so many days. Answers its name, or null.
CREATE OR REPLACE FUNCTION runtime.drop_audit_partition_v1(days integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    oldest text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('rescind.audit_partitions', 0)) THEN
        RETURN NULL;
    END IF;
    SELECT p.name INTO oldest FROM runtime.audit_partitions AS p
    WHERE p.ends_at < clock_timestamp() - days * interval '1 day' ORDER BY p.ends_at LIMIT 1;
    IF oldest IS NOT NULL THEN
        EXECUTE format('DROP TABLE runtime.%I', oldest);
    END IF;
    RETURN oldest;
END $$;
