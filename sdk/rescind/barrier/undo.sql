INSERT INTO rescind_barrier AS here (effect, acts, undos, last_attempt)
VALUES (CAST(:effect AS uuid), 0, 1, CAST(:attempt AS integer))
ON CONFLICT (effect) DO UPDATE
    SET undos = here.undos + 1, last_attempt = excluded.last_attempt, last_at = clock_timestamp()
RETURNING CASE WHEN here.undos > 1 THEN 'done' WHEN here.acts = 0 THEN 'never' ELSE 'do' END
