-- Which generation of bucketing an environment evaluates with, and which flags depend on which.

ALTER TABLE flagd.environments ADD COLUMN IF NOT EXISTS bucketing text NOT NULL DEFAULT 'v3';

-- An index of what the flags' documents say, for the way back: from a flag to those that have to hear of its changes.
CREATE TABLE IF NOT EXISTS flagd.prerequisites (
    environment text NOT NULL,
    flag text NOT NULL,
    prerequisite text NOT NULL,
    PRIMARY KEY (environment, flag, prerequisite),
    FOREIGN KEY (environment, flag) REFERENCES flagd.flags (environment, key)
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS dependents ON flagd.prerequisites (environment, prerequisite, flag);
