-- Which instances may begin effects without the server (`on_unreachable: proceed`), and which hold what the server has not got
-- yet (P10, P11): the first release of the SDK said neither.

ALTER TABLE flagd.instances ADD COLUMN IF NOT EXISTS proceeds boolean NOT NULL DEFAULT false;
ALTER TABLE flagd.instances ADD COLUMN IF NOT EXISTS journal_open boolean NOT NULL DEFAULT false;
