-- Limits of what steps and compensations may do, kept here so that they hold for every server (P17, docs/decisions/0027).

-- Of steps that a pace held back: when the next of them tries again, so that many wait at the rate at which they may begin.
ALTER TABLE sagas.paces ADD COLUMN IF NOT EXISTS tries_at timestamptz NOT NULL DEFAULT '-infinity';

-- Steps in hands whose kind names how many may be: only those. One whose attempt is over is taken out by whoever counts next.
CREATE TABLE IF NOT EXISTS sagas.slots (
    environment text NOT NULL,
    kind text NOT NULL,
    connection text NOT NULL,                 -- as in `paces`
    effect_id uuid NOT NULL,
    token uuid NOT NULL,                      -- of the attempt
    PRIMARY KEY (environment, kind, connection, effect_id, token)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
