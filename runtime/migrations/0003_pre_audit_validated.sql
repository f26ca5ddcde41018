-- Second: what was there before is looked at, beside reads and writes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = 'runtime.audit'::regclass AND c.relkind = 'r') THEN
        ALTER TABLE runtime.audit VALIDATE CONSTRAINT audit_before;
    END IF;
END $$;
