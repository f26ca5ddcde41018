-- When an instance applied its revision, and which flags its code supports.

ALTER TABLE flagd.instances ADD COLUMN IF NOT EXISTS applied_at timestamptz;  -- by this database's clock; null where it does not say
ALTER TABLE flagd.instances ADD COLUMN IF NOT EXISTS declared text [];        -- null where it has never said
ALTER TABLE flagd.acknowledgements ADD COLUMN IF NOT EXISTS applied_at timestamptz;

-- What proofs of revisions are made with: who shows one has seen the revision, wherever the table of instances was restored to (P2).
ALTER TABLE flagd.environments ADD COLUMN IF NOT EXISTS proof_key uuid;
ALTER TABLE flagd.environments ALTER COLUMN proof_key SET DEFAULT gen_random_uuid();
UPDATE flagd.environments SET proof_key = gen_random_uuid() WHERE proof_key IS NULL;
