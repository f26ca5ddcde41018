INSERT INTO rescind_barrier AS here (effect, acts, undos, last_attempt)
VALUES (CAST(:effect AS uuid), 1, 0, CAST(:attempt AS integer))
ON CONFLICT (effect) DO UPDATE
    SET acts = here.acts + 1, last_attempt = excluded.last_attempt, last_at = clock_timestamp()
RETURNING CASE WHEN here.undos > 0 THEN 'never' WHEN here.acts > 1 THEN 'done' ELSE 'do' END
