-- Circuit breakers: one per kind and side, kept here so that they hold for every server (docs/decisions/0027). Rows of kinds that have
-- failed; who begins holds the row of an open one, who counts writes it in a transaction of its own.

CREATE TABLE IF NOT EXISTS sagas.breakers (
    environment text NOT NULL,
    kind text NOT NULL,
    side text NOT NULL CHECK (side IN ('act', 'undo')),
    failures integer NOT NULL DEFAULT 0,      -- in a row
    opened_at timestamptz,                    -- null: closed
    retry_at timestamptz,                     -- when one may try
    probe_until timestamptz,                  -- one tries: until then nobody else does
    last_error text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, kind, side)
);
