-- What SDKs counted, summed over instances: per window of ten seconds, flag and service. Nothing refers to these tables, and
-- they refer to nothing: no kill and no change ever waits for a count.

CREATE TABLE IF NOT EXISTS flagd.evaluation_counts (
    environment text NOT NULL,
    flag text NOT NULL,                       -- '' sums what found no room, or no flag of that name
    window_at timestamptz NOT NULL,           -- when the window began
    service text NOT NULL,
    variant text NOT NULL,                    -- '': the caller's default
    reason text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (environment, flag, window_at, service, variant, reason)
) WITH (fillfactor = 80);

CREATE TABLE IF NOT EXISTS flagd.outcome_counts (
    environment text NOT NULL,
    flag text NOT NULL,
    window_at timestamptz NOT NULL,
    service text NOT NULL,
    variant text NOT NULL,                    -- '': not known
    ok bigint NOT NULL,
    failed bigint NOT NULL,
    durations jsonb NOT NULL DEFAULT '{}',    -- bucket of rescind.durations to how many
    PRIMARY KEY (environment, flag, window_at, service, variant)
) WITH (fillfactor = 80);

-- Windows come in the order of time, so that a page's range tells what is old; and an update of a count stays on its page.
CREATE INDEX IF NOT EXISTS evaluation_counts_by_age ON flagd.evaluation_counts USING brin (window_at);
CREATE INDEX IF NOT EXISTS outcome_counts_by_age ON flagd.outcome_counts USING brin (window_at);

-- How far each process's windows are in, so that a repeat is known.
CREATE TABLE IF NOT EXISTS flagd.count_runs (
    environment text NOT NULL,
    run text NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, run)
) WITH (fillfactor = 50);
