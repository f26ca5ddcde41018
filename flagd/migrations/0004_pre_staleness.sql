-- Which instances turn flags with a staleness limit off by themselves (P6): the first release of the SDK did not.

ALTER TABLE flagd.instances ADD COLUMN IF NOT EXISTS obeys_staleness boolean NOT NULL DEFAULT false;
