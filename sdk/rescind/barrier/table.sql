-- The barrier: whether an effect of Rescind was done, undone or neither in this database. One row per effect, for as long as the
-- sagas that write here may retry or undo; older rows may be deleted by `last_at`.
CREATE TABLE IF NOT EXISTS rescind_barrier (
    effect uuid PRIMARY KEY,
    acts integer NOT NULL,
    undos integer NOT NULL,
    last_attempt integer NOT NULL,
    last_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
